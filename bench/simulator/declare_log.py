"""The TOML that declares a simulated log: for its files, and for a system that is driven live."""

from __future__ import annotations

from pathlib import Path

from bench.simulator.world_settings import WorldSettings
from settings.errors import LogFileError

DECLARATION_FILE = "log.toml"
IMPRESSIONS_FILE = "impressions.parquet"
ACTIONS_FILE = "actions.parquet"
ITEMS_FILE = "items.parquet"
USERS_FILE = "users.parquet"


def declared_log(settings: WorldSettings, name: str, speed: float = 1.0) -> str:
    """The declaration, as text.

    Args:
        settings: of the world: its kinds of action, and how long they count.
        name: of the log.
        speed: of the run that it is for; the log's own files are in the world's time, so 1.
    """
    attribution_ms = max(1, round(1000 * settings.clicks.attribution_s / speed))
    kinds = "\n".join(
        f"{kind} = {{ label = {_value(action.label)} }}"
        for kind, action in settings.actions.items()
    )
    return f'''\
# made by `headrace simulate`; truth.parquet, beside the files, is what no model may know
name = "{name}"
attribution = "{attribution_ms}ms"

[events]
files = "{IMPRESSIONS_FILE}"
request = "request_id"
user = "user_id"
item = "item_id"
time = {{ column = "ts", unit = "ms" }}
arrival = {{ column = "arrival", unit = "ms" }}
position = "position"
context = {{ device = "device", page = "page", hour = {{ column = "hour", kind = "category" }} }}

[feedback]
files = "{ACTIONS_FILE}"
request = "request_id"
user = "user_id"
item = "item_id"
time = {{ column = "ts", unit = "ms" }}
arrival = {{ column = "arrival", unit = "ms" }}
kind = "action"
value = "value"

[actions]
{kinds}

[items]
files = "{ITEMS_FILE}"
id = "item_id"
[items.attributes]
category = "category"
tags = "set"

[users]
files = "{USERS_FILE}"
id = "user_id"
[users.attributes]
segment = "category"
'''


def write_declaration(path: Path, settings: WorldSettings, name: str, speed: float = 1.0) -> None:
    """Write it to a file.

    Raises:
        LogFileError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(declared_log(settings, name, speed), encoding="utf-8")
    except OSError as error:
        raise LogFileError(f"{path}: {error.strerror}") from error


def _value(label: int | str) -> str:
    return f'"{label}"' if isinstance(label, str) else str(label)
