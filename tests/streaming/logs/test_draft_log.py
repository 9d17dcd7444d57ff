"""`headrace log init` on logs in the shapes of public ones: what it drafts can be read at once."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.errors import ConfigurationError
from streaming.logs.check_log import LogCheck, check_log
from streaming.logs.draft.cell_shapes import set_separator
from streaming.logs.draft.draft_log import draft_log
from streaming.logs.draft.text_layout import first_row_is_data
from streaming.logs.parse_log_file import parse_log_file

T = 1_541_030_400


def drafted(folder: Path, *names: str) -> tuple[dict[str, Any], LogCheck]:
    """The draft, and what a check of it as it stands finds."""
    keys = tomllib.loads(draft_log([folder / name for name in names], "", folder))
    return keys, check_log(parse_log_file(keys, "draft.toml"), folder)


def write(path: Path, rows: list[list[Any]], separator: str) -> None:
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))


@pytest.fixture
def dice() -> random.Random:
    return random.Random(3)


def test_files_without_a_header_are_read_by_what_their_cells_hold(
    tmp_path: Path, dice: random.Random
) -> None:
    rows = []
    for at in range(300):
        shown = [
            f"N{item}-{int(not place)}" for place, item in enumerate(dice.sample(range(60), 5))
        ]
        history = " ".join(f"N{dice.randrange(60)}" for _ in range(4))
        time = f"11/{11 + at // 100}/2019 {1 + at % 12}:{at % 60:02}:00 {'AP'[at % 2]}M"
        rows.append([at + 1, f"U{dice.randrange(90)}", time, history, " ".join(shown)])
    write(tmp_path / "behaviors.tsv", rows, "\t")
    news = [
        [
            f"N{item}",
            ["sports", "news"][item % 2],
            '"Quoted" title, of a text',
            "http://x",
            "[]",
            "[]",
        ]
        for item in range(60)
    ]
    write(tmp_path / "news.tsv", news, "\t")
    for order in (("behaviors.tsv", "news.tsv"), ("news.tsv", "behaviors.tsv")):
        keys, found = drafted(tmp_path, *order)
        events, items = keys["events"], keys["items"]
        assert events["columns"] == ["request", "user", "time", "history", "shown"]
        assert events["header"] is False
        assert events["time"] == {"column": "time", "format": "%m/%d/%Y %I:%M:%S %p"}
        assert events["lists"]["mark"] == "-"
        assert events["context"]["history"] == {
            "column": "history",
            "kind": "set",
            "separator": " ",
        }
        assert (items["id"], items["files"], items["quote"]) == ("item", "news.tsv", "")
        assert items["attributes"]["c2"] == "category"
        assert (found.impressions, found.positives, found.items) == (1500, 300, 60)
        assert not found.unreadable


def test_a_table_of_ratings_without_a_header(tmp_path: Path, dice: random.Random) -> None:
    rows = [
        [dice.randrange(100), dice.randrange(150), dice.randint(1, 5), T + 60 * at]
        for at in range(400)
    ]
    write(tmp_path / "u.data", rows, "\t")
    # ids of users and of items are the same numbers
    write(tmp_path / "u.user", [[at, "MF"[at % 2]] for at in range(100)], "|")
    films = "".join(f"{at}|{'ABC'[at % 3]} é\n" for at in range(150))
    (tmp_path / "u.item").write_text(films, encoding="latin-1")
    keys, found = drafted(tmp_path, "u.data", "u.user", "u.item")
    assert (keys["items"]["files"], keys["users"]["files"]) == ("u.item", "u.user")
    assert keys["items"]["encoding"] == "latin-1"
    assert keys["items"]["attributes"] == {"c2": "category"}
    assert keys["events"]["columns"] == ["user", "item", "rating", "time"]
    assert keys["events"]["time"] == {"column": "time", "unit": "s"}
    assert found.impressions == 400
    assert 0 < found.positives < 400


def test_sets_and_lists_beside_the_shown_one(tmp_path: Path, dice: random.Random) -> None:
    header = "user_id,session_id,timestamp,reference,city,filters,impressions,prices,clicked_flags"
    rows: list[list[Any]] = [header.split(",")]
    for at in range(200):
        shown = [str(1000 + item) for item in dice.sample(range(50), 2 + at % 4)]
        prices = "|".join(str(dice.randint(20, 300)) for _ in shown)
        flags = "|".join("1" if not place else "0" for place in range(len(shown)))
        city = '"Paris, France"' if at % 2 else '"Rome, Italy"'
        filters = ["", "Pool|Cheap", "Cheap|Near", "Near|Pool", "Near"][dice.randrange(5)]
        user = f"u{dice.randrange(40)}"
        row = [user, f"s{at}", T + at, shown[0], city, filters, "|".join(shown), prices, flags]
        rows.append(row)
    write(tmp_path / "sessions.csv", rows, ",")
    meta = [
        [1000 + item, ["Bar|Spa", "Pool|Bar", "Spa", "Pool|Spa|Bar"][item % 4]]
        for item in range(50)
    ]
    write(tmp_path / "meta.csv", [["item_id", "properties"], *meta], ",")
    keys, found = drafted(tmp_path, "sessions.csv", "meta.csv")
    assert keys["events"]["lists"]["each"] == {"prices": "prices"}
    assert "header" not in keys["events"]
    context = keys["events"]["context"]
    assert context["filters"] == {"column": "filters", "kind": "set", "separator": "|"}
    assert context["city"] == "city"
    assert keys["items"]["attributes"]["properties"] == {"kind": "set", "separator": "|"}
    assert (found.positives, found.unlisted) == (200, 0)
    text = draft_log([tmp_path / "sessions.csv"], "", tmp_path)
    assert '# not used, as it may tell the outcome of each item shown: "clicked_flags"' in text


def test_what_is_not_used_is_said(tmp_path: Path, dice: random.Random) -> None:
    rows: list[list[Any]] = [
        ["user_id", "item_id", "timestamp", "clicked", "hour", "constant", "noise"]
    ]
    rows += [
        [f"u{at % 60}", f"i{dice.randrange(70)}", T + at, int(at % 7 == 0), at % 24, "x", f"w{at}"]
        for at in range(300)
    ]
    write(tmp_path / "log.csv", rows, ",")
    clicks: list[list[Any]] = [["user_id", "item_id", "time"], ["u1", "i1", T], ["u2", "i2", T + 9]]
    write(tmp_path / "clicks.csv", clicks, ",")
    files = [tmp_path / "log.csv", tmp_path / "clicks.csv"]
    lines = draft_log(files, "", tmp_path).splitlines()
    assert '# not used: "clicks.csv"; if it holds actions, declare it as [feedback]' in lines
    assert '# not used, with one value or none: "constant"' in lines
    assert '# not used, parts of a time, by their names: "hour"' in lines
    assert '# not used, with too many values for a category: "noise"' in lines


def test_where_a_part_is_not_found_the_message_says_what_to_write(tmp_path: Path) -> None:
    write(tmp_path / "odd.csv", [["who", "what"], ["ann lee", "red"], ["bo", "blue"]], ",")
    with pytest.raises(ConfigurationError) as refused:
        draft_log([tmp_path / "odd.csv"], "", tmp_path)
    said = str(refused.value)
    assert "who: 'ann lee', 'bo'" in said
    assert "what: 'red', 'blue'" in said
    # the TOML in it can be read once the columns are filled in
    toml = said[said.index("name = ") :].replace("<", "").replace(">", "")
    assert parse_log_file(tomllib.loads(toml), "said").events.user == "user"


@pytest.mark.parametrize(
    ("rows", "data"),
    [
        ([["user", "item", "time"], ["1", "2", "3"], ["4", "5", "6"]], False),
        ([["196", "242", "3"], ["186", "302", "3"], ["22", "377", "1"]], True),
        ([["u1", "x", "[]", "[]"], ["u2", "y", "[]", "[]"]], True),
        ([["title", "genre"], ["A film", "Drama"], ["Another", "Comedy"]], False),
        ([["0", "1"], ["5", "7"], ["6", "8"]], False),  # as Pandas writes columns without names
        ([["user", "2019", "2020"], ["u1", "3", "4"], ["u2", "5", "6"]], True),
    ],
)
def test_a_first_row_is_data_where_it_looks_like_the_others(
    rows: list[list[str]], data: bool
) -> None:
    assert first_row_is_data(rows) is data


names = st.text("abcdefgh_", min_size=2, max_size=8)


@given(
    st.lists(names, min_size=2, max_size=6, unique=True),
    st.lists(st.integers(0, 10**9), min_size=2, max_size=20),
)
def test_names_above_numbers_are_a_header_and_numbers_are_not(
    header: list[str], numbers: list[int]
) -> None:
    rows = [[str(number + at) for at in range(len(header))] for number in numbers]
    assert not first_row_is_data([header, *rows])
    assert first_row_is_data([["17"] * len(header), *rows])


@given(
    st.sampled_from("|;,"),
    st.lists(
        st.sets(st.sampled_from(["a b", "c", "d", "e"]), min_size=2), min_size=40, max_size=60
    ),
)
def test_a_set_is_found_by_what_splits_it(separator: str, sets: list[set[str]]) -> None:
    cells = [separator.join(sorted(one)) for one in sets]
    expected = separator if len(set(cells)) >= len(set().union(*sets)) else None
    assert set_separator(cells) == expected


@pytest.mark.parametrize(
    "cells",
    [
        ["Paris, France", "Rome, Italy", "Nice, France"] * 20,
        ["1,5", "2,5", "3,5", "1,2"] * 20,
        ["a red car", "a blue car", "a red bus", "red car"] * 20,
        ["2019-01-01 10:00", "2019-01-02 11:00", "2019-01-01 11:00"] * 20,
    ],
)
def test_texts_numbers_and_times_are_no_sets(cells: list[str]) -> None:
    assert set_separator(cells) is None
