"""Finds the declaration that the settings name: from a log's own file, or a shipped one."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from features.declaration import Declaration
from features.logs.registry import declaration
from inttower.core.durable_files import write_atomic
from settings.errors import ConfigurationError
from settings.settings import Settings

DECLARATION_FILE = "declaration.json"


def declared_features(settings: Settings) -> Declaration:
    """The features of ``log.file``, or of ``log.name`` where there is no file.

    What was generated from a log lies in the state folder, so that each part reads the same one:
    see :func:`keep_declaration`. A part that has no such file generates it from the log.

    Raises:
        ConfigurationError: the log is not there, or the kept file cannot be read.
    """
    if not settings.log.file:
        return declaration(settings.log.name)
    kept = settings.state / DECLARATION_FILE
    if kept.exists():
        return _read(kept).declaration
    return _generated(settings)


def _generated(settings: Settings) -> Declaration:
    # DuckDB and Arrow take a moment and memory: a server reads what the launcher kept
    from features.generate import generated_declaration  # noqa: PLC0415
    from streaming.logs.choose import find_log  # noqa: PLC0415

    return generated_declaration(find_log(settings.log.file, settings.log.path))


def keep_declaration(settings: Settings) -> Declaration:
    """Generate the features and keep them in the state folder, for the parts.

    They stay as they are while the TOML does: what is learnt goes on when more files are there.
    """
    if not settings.log.file:
        return declaration(settings.log.name)
    from streaming.logs.choose import find_log_file  # noqa: PLC0415

    declared, _ = find_log_file(settings.log.file, settings.log.path)
    said = sha256(declared.model_dump_json().encode()).hexdigest()
    kept = settings.state / DECLARATION_FILE
    if kept.exists() and _read(kept).said == said:
        return _read(kept).declaration
    made = _generated(settings)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(kept, msgspec.json.encode(_Kept(said, made)))
    return made


@dataclass(frozen=True, slots=True)
class _Kept:
    """A declaration, and the hash of the TOML that it was generated from."""

    said: str
    declaration: Declaration


def _read(path: Path) -> _Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(
            f"{path} is no declaration of this release ({error}): delete it and start again"
        ) from error
