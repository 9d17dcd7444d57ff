"""Files as they come: read all the same, or refused with file, line and cure."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from settings.errors import ConfigurationError, HeadraceError, LogFileError
from tests.streaming.logs.small_logs import ROWS, SOUND, T, declare, outcomes

BAD: dict[str, Any] = {"log": {"max_bad_share": 0.5}}
HEAD = "user,item,rating,time\n"


def columns(text: str) -> str:
    """Without the header."""
    return text.split("\n", 1)[1]


READ: dict[str, tuple[str | bytes, dict[str, Any]]] = {
    "as it should be": (ROWS, {}),
    "byte order mark": ("\ufeff" + ROWS, {}),
    "line ends of Windows": (ROWS.replace("\n", "\r\n"), {}),
    "no end of the last line": (ROWS.rstrip("\n"), {}),
    "semicolons, found": (ROWS.replace(",", ";"), {}),
    "tabs, found": (ROWS.replace(",", "\t"), {}),
    "two colons": (ROWS.replace(",", "::"), {"separator": "::"}),
    "no header": (columns(ROWS), {"columns": ["user", "item", "rating", "time"]}),
    "header and names": (ROWS, {"columns": ["user", "item", "rating", "time"]}),
    "quotes": (ROWS.replace("u1", '"u1"').replace("rating", '"rating"'), {}),
    "columns in another order": (
        "time,x,item,user,rating\n"
        + "".join(
            f"{time},,{item},{user},{rating}\n"
            for user, item, rating, time in (r.split(",") for r in columns(ROWS).split())
        ),
        {},
    ),
    "gzip": (gzip.compress(ROWS.encode()), {"file": "rows.csv.gz"}),
    "empty lines": (ROWS.replace("\n", "\n\n"), {}),
    "times as floats": (ROWS.replace(str(T), f"{T}.0"), {}),
    "milliseconds": (
        "".join(line + ("000" if line[-1:].isdigit() else "") + "\n" for line in ROWS.split()),
        {"time": {"column": "time", "unit": "ms"}},
    ),
    "unsorted": (HEAD + "\n".join(reversed(columns(ROWS).split())), {}),
    "JSON lines": (
        "".join(
            f'{{"user": "{u}", "item": "{i}", "rating": {r}, "time": {t}}}\n'
            for u, i, r, t in (row.split(",") for row in columns(ROWS).split())
        ),
        {"file": "rows.jsonl"},
    ),
    "utf-16": (ROWS.encode("utf-16"), {"encoding": "utf-16"}),
}


@pytest.mark.parametrize("case", READ)
def test_it_is_read(case: str, tmp_path: Path) -> None:
    content, changes = READ[case]
    log = declare(tmp_path, content, **changes)
    assert outcomes(log) == SOUND
    assert log.summary.unreadable == {}


REFUSED: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "empty file": ("", {}, r"rows\.csv holds no rows: it is empty; was the file cut short"),
    "a header alone": (HEAD, {}, "holds no rows behind its header"),
    "missing column": (
        ROWS.replace("rating", "ratings"),
        {},
        "no column 'rating'; did you mean 'ratings'",
    ),
    "missing user": (ROWS.replace("user", "uid"), {}, "events: .* no column 'user'"),
    "missing header": (columns(ROWS), {}, r"line 1: the first line looks like a row .*columns = "),
    "wrong separator": (ROWS, {"separator": ";"}, r"one column, split at ';'.*separator = ','\?"),
    "duplicate header": (
        "user,item,rating,time,user\nu,i,5,1494137644,u\n",
        {},
        "'user' is there twic",
    ),
    "seconds as milliseconds": (
        ROWS,
        {"time": {"column": "time", "unit": "ms"}},
        r"1970-01-18.* unit = 's' fits",
    ),
    "no unit": (ROWS, {"time": "time"}, r"holds numbers, of what unit.*unit = 's'"),
    "wrong pattern": (
        ROWS,
        {"time": {"column": "time", "format": "%d/%m/%Y"}},
        "holds no time of the form",
    ),
    "text for a number": (
        ROWS.replace(str(T + 1), "yesterday"),
        {},
        r"line 3.*time: not a time.*u2,i1,1,yesterday",
    ),
    "cut line": (ROWS[:-8], {}, r"1 of 3 rows cannot be read.*time: before 1973"),
    "too few columns": (ROWS + "u9,i9\n", {}, r"line 5.*missing columns.*u9,i9"),
    "too many columns": (ROWS + "u,i,5,1494137644,x\n", {}, "line 5.*too many columns"),
    "empty id": (ROWS.replace("u2", ""), {}, "line 3.*user: missing"),
    "rating missing": (ROWS.replace(",1,", ",,"), {}, "the rule has no answer, for a value is mi"),
    "rating a text": (ROWS.replace(",1,", ",bad,"), {}, "rating: not a number"),
    "NaN": (ROWS.replace(",1,", ",nan,"), {}, "rating: not a number|no answer"),
    "negative time": (ROWS.replace(str(T), "-5"), {}, r"line 2.*time: before 1973"),
    "in the future": (ROWS.replace(str(T), "9999999999"), {}, "line 2.*time: in the future"),
    "huge id": (ROWS.replace("u2", "u" * 300), {}, "an id is longer than 216 bytes"),
    "result as context": (ROWS, {"context": ["rating"]}, "'rating' is a result of the action"),
    "result in a derived context": (
        ROWS,
        {"context": ["x"], "derive": {"x": "rating || '!'"}},
        "'rating' is a result of the",
    ),
    "named result as position": (
        ROWS,
        {"position": "time", "log": {"results": ["time"]}},
        "events.position: column 'time' is a result",
    ),
    "glob without a match": (ROWS, {"files": "*.parquet"}, "no file matches it"),
    "missing file": (ROWS, {"files": "other.csv"}, r"other\.csv is missing: there is no such file"),
    "no rows left": (ROWS, {"where": "rating > 9"}, "holds no row that can be used"),
    "a rule with a query": (ROWS, {"click": "(SELECT true)"}, "events.click: .* holds a subquery"),
    "a rule that is none": (ROWS, {"click": "rating >"}, "is not a rule over columns"),
    "a rule over nothing": (ROWS, {"click": "stars > 3"}, "no column 'stars'; it has user, item"),
    "not JSON": ("{\n", {"file": "rows.jsonl"}, "none of the first lines is a JSON object"),
    "cut JSON": (
        f'{{"user":"u","item":"i","rating":5,"time":{T}}}\n{{"user":"u","it',
        {"file": "rows.jsonl"},
        "line 2.*not JSON",
    ),
    "cut gzip": (
        gzip.compress((ROWS * 2000).encode())[:-30],
        {"file": "rows.csv.gz"},
        r"rows\.csv\.gz",
    ),
    "no parquet": (ROWS, {"file": "rows.parquet"}, r"rows\.parquet cannot be read"),
    "a spreadsheet": (ROWS, {"file": "rows.xlsx"}, "neither CSV, JSON lines nor Parquet"),
    "latin-1": (ROWS.replace("u2", "é").encode("latin-1"), {}, "cannot be read|invalid|encoding"),
    "header = false without names": (ROWS, {"header": False}, "needs the names of the columns"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused(case: str, tmp_path: Path) -> None:
    content, changes, complaint = REFUSED[case]
    with pytest.raises(HeadraceError, match=f"(?s){complaint}"):
        declare(tmp_path, content, **changes)


def test_a_few_bad_rows_are_skipped_counted_and_shown(tmp_path: Path) -> None:
    bad = f"u1,i1\n,i1,5,{T}\nu3,i1,x,{T}\nu4,i1,5,x\n"
    log = declare(tmp_path, ROWS * 1 + columns(ROWS) * 200 + bad, log={"max_bad_share": 0.01})
    assert log.summary.unreadable == {
        "missing columns": 1,
        "user: missing": 1,
        "rating: not a number": 1,
        "time: not a time": 1,
    }
    first = "\n".join(log.summary.first_unreadable)
    for line in range(605, 609):
        assert f"rows.csv, line {line}" in first


def test_ids_stay_as_they_are(tmp_path: Path) -> None:
    ids = ["007", "7", "a b", "ü", '"q"', "-1", "1e3", "NULL", "a,b"]
    cells = ['"' + one.replace('"', '""') + '"' for one in ids]
    text = HEAD + "".join(f"{cell},i,5,{T}\n" for cell in cells)
    log = declare(tmp_path, text)
    assert sorted(user for user, *_ in outcomes(log)) == sorted(ids)


def test_equal_rows_are_impressions_of_their_own(tmp_path: Path) -> None:
    log = declare(tmp_path, HEAD + f"u,i,5,{T}\n" * 3)
    assert log.summary.duplicates == 2
    assert [e.request_id for e in log.events()][::2] == [f"u-{T}-i", f"u-{T}-i.2", f"u-{T}-i.3"]


def test_without_a_positive_and_with_nothing_else(tmp_path: Path) -> None:
    assert declare(tmp_path, ROWS, click="rating > 9").summary.actions == {"click": 0}
    assert declare(tmp_path, ROWS, click="rating >= 0").summary.actions == {"click": 3}


def test_missing_values_that_are_told(tmp_path: Path) -> None:
    text = ROWS.replace(",1,", ",-99,")
    with pytest.raises(LogFileError, match="no answer"):
        declare(tmp_path, text, null=["", "-99"])
    assert outcomes(declare(tmp_path, text, null=["-99"], click="coalesce(rating, 0) > 3")) == SOUND


def test_time_zones(tmp_path: Path) -> None:
    text = "user,item,rating,time\nu,i,5,{}\n"
    for cell, time in {
        "2017-05-07T06:14:04Z": "time",
        "2017-05-07 06:14:04 UTC": "time",
        "2017-05-07T08:14:04+02:00": "time",
        "2017-05-07 08:14:04": {"column": "time", "zone": "Europe/Paris"},
        "07/05/2017 08:14": {"column": "time", "format": "%d/%m/%Y %H:%M", "zone": "Europe/Paris"},
    }.items():
        (first,) = outcomes(declare(tmp_path, text.format(cell), time=time))
        assert first[2] == (0 if cell.count(":") > 1 else -4), cell


def test_an_unknown_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"events\.time.*no time zone 'Paris'"):
        declare(tmp_path, time={"column": "time", "zone": "Paris"})


def test_parquet_with_its_own_types(tmp_path: Path) -> None:
    stamps = pa.array([T * 1_000_000, (T + 1) * 1_000_000, None], pa.timestamp("us"))
    table = pa.table(
        {"user": [1.0, 2.0, 3.0], "item": [7, 8, 9], "rating": [5, None, 2], "time": stamps}
    )
    pq.write_table(table, tmp_path / "more.parquet")
    log = declare(
        tmp_path, files="more.parquet", time="time", click="coalesce(rating, 0) > 3", **BAD
    )
    assert outcomes(log) == [("1", "7", 0, True), ("2", "8", 1, False)]
    assert log.summary.unreadable == {"time: missing": 1}


def test_many_files_with_columns_in_another_order(tmp_path: Path) -> None:
    (tmp_path / "b2.csv").write_text(f"time,user,item,rating\n{T + 5},u5,i5,5\n")
    (tmp_path / "b1.csv").write_text(ROWS)
    log = declare(tmp_path, files=["b*.csv"])
    assert outcomes(log) == [*SOUND, ("u5", "i5", 5, True)]
