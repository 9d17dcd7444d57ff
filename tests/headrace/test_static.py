"""Lint, types and the import rules of the design are part of the tests."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import typer.main

from headrace.cli import app

ROOT = Path(__file__).parents[2]
# a folder imports those on lower floors; what stands on one floor does not import each other
FLOORS = (
    ("settings", "inttower"),
    ("streaming",),
    ("features",),
    ("trainer", "serving"),
    ("deploy",),
    ("bench",),
    ("headrace",),
)
FLOOR_OF = {folder: height for height, floor in enumerate(FLOORS) for folder in floor}


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


def modules() -> dict[str, Path]:
    """Every module of the repository, by its dotted name."""
    found = {}
    for folder in FLOOR_OF:
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Iterable[str]) -> set[str]:
    """The modules that a file imports, those inside functions and type checks included."""
    known = set(known)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= inside
            # `from package import module` reads the package's own file for other names alone
            if len(inside) < len(node.names):
                found.add(node.module)
    return found & known


def test_every_import_points_to_a_lower_floor() -> None:
    there = modules()
    upward = []
    for name, path in there.items():
        own = name.split(".", maxsplit=1)[0]
        for imported in imports(path, there):
            folder = imported.split(".", maxsplit=1)[0]
            if folder != own and FLOOR_OF[folder] >= FLOOR_OF[own]:
                upward.append(f"{path.relative_to(ROOT)} imports {imported}")
    assert not upward, "\n".join(upward)


def test_no_files_import_each_other_in_a_circle() -> None:
    there = modules()
    graph = {name: imports(path, there) - {name} for name, path in there.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_the_command_line_holds_commands_and_nothing_else() -> None:
    commands = set(typer.main.get_group(app).commands)
    modules = {path.stem for path in (ROOT / "headrace").rglob("*.py")}
    # groups of commands whose own name is a folder or several
    groups = {"bench_command": {"bench"}, "entity_commands": {"items", "users"}}
    assert set().union(*groups.values()) <= commands
    assert modules - {"__init__", "__main__", "cli", *groups} <= commands


def test_no_two_public_modules_or_classes_share_a_name() -> None:
    """But for a library's own name, what Python asks for, and the two trees of errors."""
    names: dict[str, list[str]] = {}
    for module, path in modules().items():
        leaf = module.rpartition(".")[2]
        if path.name not in {"__init__.py", "__main__.py", "errors.py"} and leaf != "inttower":
            names.setdefault(f"{leaf}.py", []).append(module)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names.setdefault(node.name, []).append(module)
    shared = {name: where for name, where in names.items() if len(where) > 1}
    assert not shared, shared


def test_no_folder_holds_more_than_twenty_files() -> None:
    for folder in {path.parent for path in modules().values()}:
        assert len(list(folder.glob("*.py"))) <= 20, folder


def test_a_file_over_400_lines_gives_its_reason() -> None:
    for path in modules().values():
        text = path.read_text()
        if text.count("\n") > 400:
            docstring = ast.get_docstring(ast.parse(text)) or ""
            assert "one file" in docstring, f"{path}: split it, or say why it is one file"


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
    assert not {"torch", "sklearn", "pandas", "matplotlib", "feast", "pyarrow"} & set(
        done.stdout.split()
    )
