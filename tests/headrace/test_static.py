"""Lint, types and the import rules of the design are part of the tests."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("inttower", "streaming", "features", "trainer", "serving", "headrace", "deploy")
MAY_IMPORT = {
    "inttower": set[str](),
    "streaming": {"settings.settings"},
    "features": {"settings.settings", "streaming", "inttower"},
    "trainer": {"settings.settings", "inttower", "streaming", "features"},
    "serving": {"settings.settings", "inttower", "streaming", "features"},
    "deploy": set[str](),
}


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
    ],
    ids=["lint", "format", "types"],
)
def test_static_check(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_the_design_allows(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {folder}
    for path in (ROOT / folder).rglob("*.py"):
        for name in imports(path):
            if name == "headrace" or name.split(".")[0] not in FOLDERS:
                continue
            assert any(name == a or name.startswith(a + ".") for a in allowed), (
                f"{path.relative_to(ROOT)} imports {name}; {folder}/ may import {sorted(allowed)}"
            )


def test_the_pins_of_uv_and_of_the_lock_file_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = set(project["tool"]["uv"]["constraint-dependencies"])
    lock = (ROOT / "requirements.lock").read_text()
    locked = {
        f"{name}=={version}"
        for name, version in re.findall(r"^([\w.\-]+)==([^\s;\\]+)", lock, re.MULTILINE)
    }
    assert pinned == locked, "run scripts/lock"


def test_a_server_loads_no_training_library() -> None:
    """They would cost it half a gigabyte and seconds of its start."""
    code = "import sys, serving.http.server; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "sklearn", "pandas", "matplotlib"} & set(done.stdout.split())
