"""``headrace items`` and ``headrace users``: load a catalogue from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from features.declaration import Entity
    from settings.settings import Settings

items_app = typer.Typer(no_args_is_help=True, help="The items that can be ranked.")
users_app = typer.Typer(no_args_is_help=True, help="The users and their attributes.")

out = Console()

File = Annotated[Path, typer.Argument(help="CSV, JSON lines or Parquet, by its ending")]
IdColumn = Annotated[
    str, typer.Option("--id", help="the column of the ids; empty: id, item_id or user_id")
]
Separator = Annotated[str, typer.Option(help="between the texts of a list, in CSV")]


@items_app.command("load")
def load_items(
    context: typer.Context, file: File, id_column: IdColumn = "", separator: Separator = "|"
) -> None:
    """Put the items of a file, with their attributes; those of other ids stay as they are.

    Example: [bold]headrace items load items.csv --id sku[/bold]
    """
    load(context.obj, "item", file, id_column, separator)


@users_app.command("load")
def load_users(
    context: typer.Context, file: File, id_column: IdColumn = "", separator: Separator = "|"
) -> None:
    """Put the users of a file, with their attributes; those of other ids stay as they are.

    Example: [bold]headrace users load users.parquet[/bold]
    """
    load(context.obj, "user", file, id_column, separator)


def load(
    settings: Settings, entity: Entity, file: Path, id_column: str = "", separator: str = "|"
) -> int:
    """Write the entities of a file to their topic; the number of rows.

    Raises:
        LogFileError: a row cannot be read; those before it have been written.
        BrokerError: the broker is away, or the topic is not there.
    """
    from features.declared import declared_features
    from features.entity_file import read_entities
    from streaming.events import encode
    from streaming.kafka.topics import ITEMS, USERS
    from streaming.kafka.writer import Writer

    topic = settings.topic({"item": ITEMS, "user": USERS}[entity])
    count, declared = 0, declared_features(settings)
    entities = read_entities(file, entity, declared, id_column=id_column, separator=separator)
    with Writer(settings, bulk=True) as writer:
        for one in entities:
            writer.send(topic, 0, one.id.encode(), encode(one))
            count += 1
    out.print(f"{count:,} {entity}s of {file} are on the topic {topic}")
    return count
