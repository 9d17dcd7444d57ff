"""The example of the library's page runs as it stands."""

import re
from pathlib import Path

import pytest

from streaming.java import cache_folder
from streaming.logs import fetch_ml_100k

PAGE = Path(__file__).parents[2] / "inttower" / "README.md"


def test_the_ten_lines_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fetch_ml_100k(cache_folder() / "ml-100k")
    monkeypatch.chdir(folder.parent)
    [example] = [
        code
        for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "loadtxt" in code
    ]
    exec(compile(example, str(PAGE), "exec"), {})  # noqa: S102 - our own page
    ranked = capsys.readouterr().out.strip()
    assert len(re.findall(r"'\d+'", ranked)) == 10
