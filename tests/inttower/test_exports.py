"""What can be imported from the library's top, for people and for type checkers alike."""

import ast
from pathlib import Path

import inttower

TOP = Path(inttower.__file__)


def test_every_name_loads_and_type_checkers_see_the_same() -> None:
    imported = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(TOP.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("inttower.")
        for alias in node.names
    }
    loaded = {(f"inttower.{module}", name) for name, module in inttower._MODULE_OF.items()}
    assert imported == loaded
    for name in dir(inttower):
        assert getattr(inttower, name) is not None
    # a submodule of the same name would hide the object
    assert not {f"{name}.py" for name in dir(inttower)} & {p.name for p in TOP.parent.iterdir()}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(inttower, "nothing_of_this_name")
