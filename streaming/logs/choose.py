"""Which log a command means: a TOML of the user's, or one that comes with headrace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from settings.errors import ConfigurationError
from settings.settings import Settings
from streaming.kafka.java import cache_folder
from streaming.logs.demo_data import fetch_ml_100k
from streaming.logs.event_log import EventLog
from streaming.logs.log_file import LogFile
from streaming.logs.own_log import OwnLog
from streaming.logs.parse_log_file import read_log_file

SHIPPED = Path(__file__).parent / "shipped"
FETCHED = "ml-100k"
_FORM = "recbole"


def shipped_names() -> list[str]:
    """The logs that come with headrace, as declarations: the data is the user's to get.

    >>> "ml-1m" in shipped_names()
    True
    """
    return sorted(path.stem for path in SHIPPED.glob("*.toml") if not path.stem.endswith(_FORM))


def find_log_file(log: str, path: Path | None) -> tuple[LogFile, Path]:
    """The declaration of a log, and the folder that its paths start from.

    Args:
        log: path of a TOML, or the name of a shipped one.
        path: the folder of the files; none: that of the TOML, or of the fetched log.

    Raises:
        ConfigurationError: there is no such log, or its TOML is wrong.
    """
    file = Path(log).expanduser()
    if file.suffix == ".toml" or file.is_file():
        return read_log_file(file), (path or file.parent).absolute()
    if log not in shipped_names():
        raise ConfigurationError(
            f"no log {log!r}: give the path of a TOML that declares it (`headrace log init FILES`"
            f" writes one), or one of {', '.join(shipped_names())}"
        )
    if path is None:
        if log != FETCHED:
            raise ConfigurationError(
                f"the log {log} is not fetched: download it and give its folder with --path"
            )
        path = fetch_ml_100k(cache_folder() / FETCHED)
    form = f"{log}-{_FORM}" if (path / f"{log}.inter").exists() else log
    return read_log_file(SHIPPED / f"{form}.toml"), path.absolute()


def find_log(log: str, path: Path | None = None) -> OwnLog:
    """The events of a log; see :func:`find_log_file`.

    Raises:
        ConfigurationError: there is no such log, or its declaration does not fit the files.
        LogFileError: its files are missing or broken.
    """
    declared, folder = find_log_file(log, path)
    file = log if log in shipped_names() else str(Path(log).expanduser().absolute())
    return OwnLog(declared, folder, file)


def log_section(log: EventLog) -> dict[str, Any]:
    """What the settings' section ``log`` says of a log."""
    if not isinstance(log, OwnLog):
        return {"name": log.declaration, "attribution_ms": log.attribution_ms}
    return _section(log.declared, log.file, log.folder)


def with_log_file(settings: Settings) -> Settings:
    """Settings whose section ``log`` says what the TOML of ``log.file`` does.

    The attribution window and the kinds of action are the log's: one place says them.

    Raises:
        ConfigurationError: there is no such file, or it is wrong.
    """
    if not settings.log.file:
        return settings
    declared, folder = find_log_file(settings.log.file, settings.log.path)
    return settings.with_changes(log=_section(declared, settings.log.file, folder))


def _section(declared: LogFile, file: str, folder: Path) -> dict[str, Any]:
    section: dict[str, Any] = {
        "file": file,
        "path": folder,
        "name": declared.name,
        "attribution_ms": declared.attribution_ms,
        "actions": {
            kind: {"label": None if rule.label == "none" else rule.label, "weight": rule.weight}
            for kind, rule in declared.kinds.items()
        },
    }
    if declared.wait_ms is not None:
        section["wait_ms"] = declared.wait_ms
    return section
