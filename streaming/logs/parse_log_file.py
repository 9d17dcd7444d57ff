"""Reads and checks a log's TOML; errors name the key, the place and what to do."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from settings.errors import ConfigurationError
from streaming.logs.log_file import LogFile


def read_log_file(path: Path) -> LogFile:
    """Read and check a TOML file.

    Raises:
        ConfigurationError: it is missing, is not TOML, or a key is wrong.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: there is no such file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    return parse_log_file(data, str(path))


def parse_log_file(data: Mapping[str, Any], place: str) -> LogFile:
    """Check a declaration in memory.

    Args:
        data: as ``tomllib`` returns it.
        place: where it is from, for errors.

    Raises:
        ConfigurationError: a key is wrong.
    """
    try:
        return LogFile.model_validate(dict(data))
    except ValidationError as error:
        faults = [(_path(one), one) for one in error.errors()]
        # a union reports every member: the deepest error is of the member that was meant
        said = [
            _fault(path, one)
            for path, one in faults
            if not any(other[: len(path)] == path and len(other) > len(path) for other, _ in faults)
        ]
        raise ConfigurationError(f"{place}: " + "; ".join(list(dict.fromkeys(said))[:5])) from error


def log_schema() -> dict[str, Any]:
    """The JSON Schema, for editors."""
    return LogFile.model_json_schema()


def _path(error: Any) -> list[str]:  # noqa: ANN401 - pydantic's dictionary
    """The keys that lead to a fault."""
    return [str(part) for part in error["loc"] if not _is_type(str(part))]


def _fault(parts: list[str], error: Any) -> str:  # noqa: ANN401 - pydantic's dictionary
    where = ".".join(parts) or "the file"
    if error["type"] == "extra_forbidden":
        known = _keys_at(LogFile, parts[:-1])
        near = difflib.get_close_matches(parts[-1], known, 1)
        cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        return f"{where}: there is no such key; {cure}"
    if error["type"] == "missing":
        return f"{where} is missing: add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}"


def _is_type(part: str) -> bool:
    """Whether a part of pydantic's path names a member of a union and no key."""
    return (
        part in {"str", "list[str]"}
        or part[:1].isupper()
        or part.startswith(("dict[", "literal[", "function-"))
    )


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys of the table at this path."""
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            continue  # a name that the user chose
        inner = _models_in(field.annotation)
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for one in get_args(annotation) for model in _models_in(one)]
