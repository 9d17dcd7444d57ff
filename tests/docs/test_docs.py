"""The documentation builds, and what it names exists."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from headrace.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE = (
    *("settings", "inttower", "streaming", "features", "trainer"),
    *("serving", "deploy", "bench", "headrace"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as a reader of the repository builds it: any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe)[^>]*src=\"?(https?:[^\" >]+)", page.read_text()
        )
        loaded += re.findall(
            r"<link[^>]*rel=\"?(?:stylesheet|preconnect|icon)[^>]*href=\"?(https?:[^\" >]+)",
            page.read_text(),
        )
        assert not loaded, page


def test_every_metric_is_on_its_page(site: Path) -> None:
    """Metrics whose full name stands in the code; the trainer's are checked with the trainer."""
    page = (site / "reference" / "metrics" / "index.html").read_text()
    names = set()
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(ast.Name("Counter" | "Gauge" | "Histogram"), [first, *_]):
                        if isinstance(first, ast.Constant) and isinstance(first.value, str):
                            names.add(first.value)
    assert len(names) > 20
    missing = sorted(name for name in names if name not in page)
    assert not missing, "scripts/reference.py does not import the modules that make these"


def test_every_setting_says_what_it_does(site: Path) -> None:
    page = (site / "reference" / "settings" / "index.html").read_text()
    rows = re.findall(r"<tr>\s*<td><code>([^<]+)</code></td>(.*?)</tr>", page, re.DOTALL)
    assert len(rows) > 40
    silent = [name for name, rest in rows if re.search(r"<td></td>\s*$", rest)]
    assert not silent, "give these a description in settings/"


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def commands_written() -> Iterator[tuple[str, list[str]]]:
    """Every ``headrace …`` in a page's code, as the words behind it."""
    for page in pages():
        text = page.read_text().replace("\\\n", " ")
        fenced = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
        lines = [line for block in fenced.findall(text) for line in block.splitlines()]
        lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", fenced.sub("", text))]
        for line in lines:
            found = re.search(r"(?:^|\s)headrace\s+([^#&|;]+)", line)
            if found:
                yield page.name, found[1].split()


def test_every_command_that_a_page_names_exists_with_its_options() -> None:
    checked = 0
    for page, words in commands_written():
        command = typer.main.get_command(app)
        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        takes_value = {"--state", "--config", "--set"}
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word in takes_value and rest:
                rest.pop(0)
            elif word.startswith("-"):
                name = word.partition("=")[0]
                assert name in options | {"--help", "-h"}, f"{page}: headrace {' '.join(words)}"
            elif word in getattr(command, "commands", {}):
                command = command.commands[word]  # type: ignore[attr-defined]
                options |= {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
                checked += 1
            else:
                stranger = hasattr(command, "commands") and re.fullmatch(r"[a-z]+", word)
                assert not stranger, f"{page}: no command `headrace {' '.join(words)}`"
    assert checked > 10


def test_every_promise_has_a_test(site: Path) -> None:
    """Or says that it has none; the build fails for a test that is not there."""
    text = (site / "how-it-works" / "index.html").read_text()
    sections = re.split(r"<h3 id=", text)[1:]
    assert len(sections) == 11
    for section in sections:
        assert "tests/" in section or "no test" in section, section[:60]


def glossary() -> list[tuple[str, str, str]]:
    """Rows of the tables of the glossary: term or question, word to grep for, file."""
    rows = []
    for line in (DOCS / "glossary.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[2].startswith("`"):
            first = cells[0].strip("*")
            word = cells[1].strip("`") if cells[1].startswith("`") else first
            rows.append((first, word, cells[2].strip("`")))
    return rows


def test_every_term_stands_in_the_file_that_the_glossary_names() -> None:
    assert len(glossary()) > 40
    for term, word, file in glossary():
        path = ROOT / file
        assert path.exists(), f"{term}: {file}"
        texts = (
            [path.read_text()] if path.is_file() else [p.read_text() for p in path.rglob("*.py")]
        )
        plain = [" ".join(re.sub(r"[#*`]", " ", text).split()).lower() for text in texts]
        assert any(word.lower() in text for text in plain), f"{term}: no {word!r} in {file}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_links_between_the_pages_and_into_the_repository_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "inttower" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
