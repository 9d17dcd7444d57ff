"""Reads users or items from a file: CSV, JSON lines or Parquet, a row an entity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.catalogue import check_entity
from features.declaration import Declaration
from features.declaration import Entity as EntityName
from settings.errors import EventError, LogFileError
from streaming.events import MAX_EVENT_BYTES, MAX_ID_BYTES, Entity, encode

if TYPE_CHECKING:
    import pyarrow.dataset as ds

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
}


def read_entities(
    path: Path,
    entity: EntityName,
    declaration: Declaration,
    *,
    id_column: str = "",
    separator: str = "|",
) -> Iterator[Entity]:
    """The entities of a file, in its order, in bounded memory.

    Every other column is an attribute of that name; numbers become text, and empty ones are left
    out. Of a field that the log declares as a list, a text is split.

    Args:
        path: its ending gives the format: .csv, .tsv, .jsonl (.ndjson, .json) or .parquet.
        entity: whether its rows are users or items.
        declaration: of the log.
        id_column: holds the ids; empty: ``id``, ``item_id`` or ``user_id``.
        separator: between the texts of a list, where a format has no lists.

    It raises:
        LogFileError: the file cannot be read; names file and row.
    """
    import pyarrow as pa  # noqa: PLC0415 - takes a moment, and only a load needs it

    lists = {
        f.source
        for f in declaration.statics_of(entity)
        if f.convert == "vector" or (f.kind == "multi" and f.convert == "as_is")
    }
    row = 0
    try:
        dataset = _dataset(path)
        column = _id_column(path, dataset.schema.names, entity, id_column)
        for batch in dataset.to_batches():
            for fields in batch.to_pylist():
                row += 1
                where = f"{path}, row {row}"
                made = _entity(where, fields, column, lists, separator)
                _check(where, made, declaration, entity)
                yield made
    except (pa.ArrowException, OSError) as error:
        raise LogFileError(f"{path}: cannot be read behind row {row}: {error}") from error


def _dataset(path: Path) -> ds.Dataset:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.dataset as ds  # noqa: PLC0415
    from pyarrow import csv  # noqa: PLC0415

    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise LogFileError(
            f"{path}: the ending {path.suffix!r} is no known format; name it {', '.join(FORMATS)}"
        )
    if kind != "csv":
        return ds.dataset(path, format=kind)
    parsing = csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    with csv.open_csv(path, parse_options=parsing) as head:
        names = head.schema.names
    # all text: an id of 007 is not 7
    texts = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return ds.dataset(path, format=ds.CsvFileFormat(parse_options=parsing, convert_options=texts))


def _id_column(path: Path, names: Sequence[str], entity: EntityName, wanted: str) -> str:
    for name in (wanted,) if wanted else ("id", f"{entity}_id"):
        if name in names:
            return name
    raise LogFileError(
        f"{path} has no column {wanted or 'id'!r}; it has {', '.join(names)}: name the one with the"
        " ids by --id"
    )


def _entity(
    where: str, fields: dict[str, Any], id_column: str, lists: set[str], separator: str
) -> Entity:
    given = fields.pop(id_column)
    id_ = "" if given is None else str(given)
    if not 1 <= len(id_.encode()) <= MAX_ID_BYTES:
        raise LogFileError(
            f"{where}, column {id_column!r}: an id has 1 to {MAX_ID_BYTES} bytes, this has"
            f" {len(id_.encode())}"
        )
    attributes: dict[str, str | list[str]] = {}
    for name, value in fields.items():
        if isinstance(value, list):
            attributes[name] = [str(one) for one in value if one is not None]
        elif value is not None and value != "":
            text = str(value)
            attributes[name] = text.split(separator) if name in lists else text
    return Entity(id=id_, attributes=attributes)


def _check(where: str, record: Entity, declaration: Declaration, entity: EntityName) -> None:
    try:
        check_entity(declaration, entity, record)
    except EventError as error:
        raise LogFileError(f"{where}: {error}") from error
    if len(encode(record)) > MAX_EVENT_BYTES:
        raise LogFileError(f"{where}: longer than {MAX_EVENT_BYTES} bytes; leave columns out")
