"""The examples of the library's page run as they stand."""

import re
from pathlib import Path

import pytest

from streaming.kafka.java import cache_folder
from streaming.logs import fetch_ml_100k

PAGE = Path(__file__).parents[2] / "inttower" / "README.md"


def run(with_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the one example that holds these words, where the log lies."""
    folder = fetch_ml_100k(cache_folder() / "ml-100k")
    monkeypatch.chdir(folder.parent)
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    [example] = [code for code in found if with_ in code]
    exec(compile(example, str(PAGE), "exec"), {})  # noqa: S102 - our own page


def test_the_ten_lines_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("top_k(", monkeypatch)
    ranked = capsys.readouterr().out.strip()
    assert len(re.findall(r"'\d+'", ranked)) == 10


def test_the_stream_with_a_user_state_reaches_what_the_page_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("with_state(", monkeypatch)
    assert f"It prints {capsys.readouterr().out.strip()}:" in PAGE.read_text()
