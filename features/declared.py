"""Finds the declaration that the settings name: from a log's own file, or a shipped one."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from features.declaration import Declaration
from features.logs.movielens_features import MOVIELENS
from inttower.core.durable_files import write_atomic
from settings.errors import ConfigurationError
from settings.settings import Settings

DECLARATION_FILE = "declaration.json"


def declared_features(settings: Settings) -> Declaration:
    """The features of ``log.file``, or of ``log.name`` where there is no file.

    What was generated from a log is kept in the state folder, so that each part reads the same one:
    see :func:`keep_declaration`. A part that has no such file generates it from the log.

    Raises:
        ConfigurationError: the log is not there, or the kept file cannot be read.
    """
    if not settings.log.file:
        return _without_file(settings.log.name)
    kept = settings.state / DECLARATION_FILE
    if kept.exists():
        return _read(kept).declaration
    return _generated(settings)


def _without_file(name: str) -> Declaration:
    if name != MOVIELENS.name:
        raise ConfigurationError(
            f"log.name is {name!r}, and only {MOVIELENS.name!r} has features without a log file:"
            " set log.file to the log's TOML or to the name of a log that comes with headrace"
        )
    return MOVIELENS


def _generated(settings: Settings) -> Declaration:
    # DuckDB and Arrow take a moment and memory: a server reads what the launcher kept
    from features.generate import generated_declaration  # noqa: PLC0415
    from streaming.logs.choose import find_log  # noqa: PLC0415

    return generated_declaration(find_log(settings.log.file, settings.log.path))


def keep_declaration(settings: Settings) -> Declaration:
    """Generate the features and keep them in the state folder, for the parts.

    They change only when the TOML changes: a model goes on learning when the log gets more files.
    """
    if not settings.log.file:
        return _without_file(settings.log.name)
    from streaming.logs.choose import find_log_file  # noqa: PLC0415

    declared, _ = find_log_file(settings.log.file, settings.log.path)
    digest = sha256(declared.model_dump_json().encode()).hexdigest()
    kept = settings.state / DECLARATION_FILE
    if kept.exists() and _read(kept).digest == digest:
        return _read(kept).declaration
    made = _generated(settings)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(kept, msgspec.json.encode(_Kept(digest, made)))
    return made


@dataclass(frozen=True, slots=True)
class _Kept:
    """A declaration, and the hash of the TOML that it was generated from."""

    digest: str
    declaration: Declaration


def _read(path: Path) -> _Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(
            f"{path} is no declaration of this release ({error}): delete it and start again"
        ) from error
