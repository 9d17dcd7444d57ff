"""The reader of Amazon's ratings, on small files with the quirks of the published ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.errors import LogFileError
from streaming.events import Impression
from streaming.logs import AmazonElectronics
from streaming.logs.prices import price_class

DAY = 1_365_811_200
# not in time order; ids of digits, ties of a day, a rating for each side of the line
RATINGS = [
    ("A2", "B00000J061", "4.0", DAY + 86_400),
    ("A10", "0132793040", "5.0", DAY),
    ("A2", "0132793040", "3.0", DAY),
    ("00123", "0132793040", "1.0", DAY),
]
PRODUCTS = [
    {
        "asin": "0132793040",
        "title": 'Bob\'s "cable"',
        "price": 11.69,
        "categories": [["Electronics", "Cables"], ["Electronics", "Audio & Video"]],
        "related": {"also_viewed": ["B00000J061"]},
    },
    {"asin": "B00000J061", "imUrl": "http://example.org/a.jpg", "categories": [["Electronics"]]},
]


def write_amazon(folder: Path, header: str = "", products: str | None = None) -> Path:
    lines = [f"{','.join(map(str, rating))}\n" for rating in RATINGS]
    (folder / "ratings_Electronics.csv").write_text(header + "".join(lines))
    if products is None:
        products = "".join(f"{product!r}\n" for product in PRODUCTS)
    (folder / "meta_Electronics.json").write_text(products)
    return folder


@pytest.mark.parametrize("header", ["", "UserId,ItemId,rating,timestamp\n"])
def test_4_and_5_are_clicks_with_and_without_a_header(tmp_path: Path, header: str) -> None:
    log = AmazonElectronics(write_amazon(tmp_path, header))
    events = [
        (isinstance(event, Impression), event.user_id, event.item_id, event.ts)
        for event in log.events()
    ]
    assert events == [
        (True, "00123", "0132793040", DAY * 1000),
        (True, "A10", "0132793040", DAY * 1000),
        (False, "A10", "0132793040", DAY * 1000),
        (True, "A2", "0132793040", DAY * 1000),
        (True, "A2", "B00000J061", (DAY + 86_400) * 1000),
        (False, "A2", "B00000J061", (DAY + 86_400) * 1000),
    ]
    assert list(log.users()) == []


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    expected = list(AmazonElectronics(write_amazon(tmp_path)).events())
    path = tmp_path / "ratings_Electronics.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert list(AmazonElectronics(tmp_path).events()) == expected


@pytest.mark.parametrize("notation", [repr, json.dumps])
@pytest.mark.parametrize("packed", [False, True])
def test_metadata_in_every_form(tmp_path: Path, notation: object, packed: bool) -> None:
    assert callable(notation)
    text = "".join(f"{notation(product)}\n" for product in PRODUCTS)
    path = write_amazon(tmp_path, products=text) / "meta_Electronics.json"
    if packed:
        path.with_suffix(".json.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    log = AmazonElectronics(tmp_path)
    cable, other = log.items()
    assert cable.id == "0132793040"
    assert cable.attributes == {
        "title": 'Bob\'s "cable"',
        "categories": ["Electronics", "Cables", "Audio & Video"],
        "price": "8",
    }
    assert other.attributes == {"categories": ["Electronics"]}
    assert len(list(log.items())) == len(PRODUCTS), "it can be read again"


def test_without_metadata_the_catalogue_is_empty_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (write_amazon(tmp_path) / "meta_Electronics.json").unlink()
    assert list(AmazonElectronics(tmp_path).items()) == []
    assert "meta_Electronics.json.gz: the products go without categories and price" in caplog.text


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("A3,0132793040,5.0", r"line 5 \(the last line: was the file cut short\?\): 3 columns ins"),
        ("A3,0132793040,5.0,13658\n", r"line 5 \(the last .*column timestamp: '13658' is not a"),
        ("A3,0132793040,5.0,1365811200000\n", "column timestamp: '1365811200000' is not a whole"),
        ("A3,0132793040,5.0," + "1" * 5000, "column timestamp"),
        ("A3,0132793040,6.0,1365811200\nA3", "line 6 .*1 columns instead of 4"),
        ("A3,0132793040,0,1365811200\n", "column rating: '0' is not a rating from 1 to 5"),
        ("A3,0132793040,nan,1365811200\n", "column rating: 'nan' is not"),
        ("A3,0132793040,,1365811200\n", "column rating: '' is not"),
        ("0132793040,A2CX7LUOHB2NDG,5.0,1365811200\n", "column item: .*later editions begin with"),
        (",0132793040,5.0,1365811200\n", "column user: '' is not an id"),
        ("a b,0132793040,5.0,1365811200\n", "column user: 'a b' is not an id"),
        ("A3,0132793040,5.0,1365811200,x\n", "line 5 .*5 columns instead of 4"),
        ("\n" + "A3,0132793040,5.0,1365811200\n", "line 5, column"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = write_amazon(tmp_path) / "ratings_Electronics.csv"
    path.write_text(path.read_text() + line)
    with pytest.raises(LogFileError, match=complaint) as caught:
        AmazonElectronics(tmp_path)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = write_amazon(tmp_path) / "ratings_Electronics.csv"
    path.write_bytes(path.read_bytes() + b"A\xff,0132793040,5.0,1365811200\n")
    with pytest.raises(LogFileError, match=r"line 5 .*column user: .*utf-8"):
        AmazonElectronics(tmp_path)


def test_a_broken_first_line_is_no_header(tmp_path: Path) -> None:
    path = write_amazon(tmp_path) / "ratings_Electronics.csv"
    path.write_text("A3,0132793040,five,1365811200\n" + path.read_text())
    with pytest.raises(LogFileError, match="line 1, column rating: 'five'"):
        AmazonElectronics(tmp_path)


@pytest.mark.parametrize("content", ["", "UserId,ItemId,rating,timestamp\n"])
def test_a_file_without_rows_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "ratings_Electronics.csv").write_text(content)
    with pytest.raises(LogFileError, match=r"ratings_Electronics\.csv holds no rows"):
        AmazonElectronics(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogFileError, match=r"ratings_Electronics\.csv is missing: is .* the fold"):
        AmazonElectronics(tmp_path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{'asin': 'B00000J061', 'pri", "line 1 is neither JSON nor Python's .*cut short"),
        ("__import__('os').getcwd()", "line 1 is neither JSON nor Python's"),
        ("(" * 5000, "line 1 is neither JSON nor Python's"),
        ("[" * 100_000, "line 1 is neither JSON nor Python's"),
        ("['asin']", "line 1 is not the description of a product"),
        ("{'title': 'x'}", "line 1, column asin: None is not a product's id"),
        ("{'asin': 'a', 'price': '$5'}", r"line 1, column price: '\$5' is not a price"),
        ("{'asin': 'a', 'price': -1.0}", r"line 1, column price: -1\.0 is not a price"),
        ("{'asin': 'a', 'categories': ['x']}", r"column categories: \['x'\] is not a list of lis"),
    ],
)
def test_a_broken_product_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    log = AmazonElectronics(write_amazon(tmp_path, products=line))
    with pytest.raises(LogFileError, match=complaint) as caught:
        list(log.items())
    assert "meta_Electronics.json" in str(caught.value)


def test_packed_metadata_that_was_cut_short_is_named(tmp_path: Path) -> None:
    path = write_amazon(tmp_path) / "meta_Electronics.json"
    path.with_suffix(".json.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    with pytest.raises(LogFileError, match=r"meta_Electronics\.json\.gz cannot be read"):
        list(AmazonElectronics(tmp_path).items())


@given(st.floats(0, 1e300))
def test_a_price_lies_in_its_class(price: float) -> None:
    low = int(price_class(price))
    assert low <= price
    assert low == 65536 or price < max(1, 2 * low)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[0-9A-Z]{1,14}", fullmatch=True),
            st.from_regex(r"[0-9A-Z]{10}", fullmatch=True),
            st.integers(1, 5),
            st.integers(10_000, 16_000),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("amazon")
    (folder / "ratings_Electronics.csv").write_text(
        "".join(f"{user},{item},{rating}.0,{day * 86_400}\n" for user, item, rating, day in rows)
    )
    events = list(AmazonElectronics(folder).events())
    shown = [(e.user_id, e.item_id, e.ts) for e in events if isinstance(e, Impression)]
    assert sorted(shown) == sorted((user, item, day * 86_400_000) for user, item, _, day in rows)
    clicked = [(e.user_id, e.item_id, e.ts) for e in events if not isinstance(e, Impression)]
    assert sorted(clicked) == sorted((u, i, day * 86_400_000) for u, i, r, day in rows if r >= 4)
