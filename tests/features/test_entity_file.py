"""Entities out of files: the three formats say the same, and what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.entity_file import read_entities
from features.logs.movielens_features import MOVIELENS
from headrace.entity_commands import load
from settings.errors import LogFileError
from settings.settings import Settings
from streaming.events import Entity
from streaming.kafka.client import create_topics
from streaming.kafka.span import read_span, span
from streaming.kafka.topics import ITEMS

ROWS: list[dict[str, Any]] = [
    {"item_id": "007", "genres": ["Drama", "War"], "decade": "1990", "price": "9.5"},
    {"item_id": 'ü, "x"', "genres": ["Comedy"], "decade": None, "price": None},
]
EXPECTED = [
    Entity(id="007", attributes={"genres": ["Drama", "War"], "decade": "1990", "price": "9.5"}),
    Entity(id='ü, "x"', attributes={"genres": ["Comedy"]}),
]


def csv(path: Path) -> Path:
    path = path / "items.csv"
    path.write_text('item_id,genres,decade,price\n007,Drama|War,1990,9.5\n"ü, ""x""",Comedy,,\n')
    return path


def tsv(path: Path) -> Path:
    path = path / "items.tsv"
    path.write_text(
        'item_id\tgenres\tdecade\tprice\n007\tDrama|War\t1990\t9.5\n"ü, ""x"""\tComedy\t\t\n'
    )
    return path


def jsonl(path: Path) -> Path:
    path = path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def parquet(path: Path) -> Path:
    path = path / "items.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("make", [csv, tsv, jsonl, parquet])
def test_every_format_gives_the_same(make: Callable[[Path], Path], tmp_path: Path) -> None:
    assert list(read_entities(make(tmp_path), "item", MOVIELENS)) == EXPECTED


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "", "is no known format"),
        ("a.csv", "sku,decade\n1,1990\n", "no column 'id'; it has sku, decade"),
        ("a.csv", "id,decade\n1,1990\n,1990\n", "row 2, column 'id': an id has 1 to 256 bytes"),
        ("a.csv", "id,decade\n1\n", "cannot be read"),
        ("a.jsonl", '{"id": "1", "decade": ["1990"]}\n', "row 1: attribute 'decade'"),
        ("a.jsonl", "{\n", "cannot be read"),
        ("a.parquet", "x", "cannot be read"),
        ("a.csv", "id,text\n1," + "x" * 1_000_001, "longer than 1000000 bytes"),
        ("nowhere.csv", None, "nowhere.csv"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(LogFileError, match=says):
        list(read_entities(path, "item", MOVIELENS))


def test_a_file_is_loaded_into_the_topic(cluster: Settings, tmp_path: Path) -> None:
    create_topics(cluster)
    path = tmp_path / "big.csv"
    path.write_text("sku,decade\n" + "".join(f"{n},1990\n" for n in range(30_000)))
    assert load(cluster, "item", path, id_column="sku") == 30_000
    records = list(read_span(cluster, *span(cluster, [ITEMS])))
    assert [record.key for record in records] == [str(n).encode() for n in range(30_000)]
    assert records[7].value == b'{"id":"7","attributes":{"decade":"1990"}}'
