"""Amazon's reviews of electronics, as published in 2014.

The data set is "Amazon product data" of J. McAuley (UC San Diego; "Image-based recommendations on
styles and substitutes", SIGIR 2015): the ratings-only file of the category Electronics, and
optionally the category's metadata. A rating is an impression, and a click too if it is 4 or 5, as
in the IntTower paper.

What is odd about the files:

- The published ratings file has no header; copies of it elsewhere have one. Both are read.
- ASINs that are also ISBNs are all digits, some with leading zeros; every id stays a text.
- Times are whole days. All that happened on a day is simultaneous: no rating of a day knows another
  one of that day, and the order within it is that of the ids.
- The metadata's lines are not JSON but Python's own notation, with single quotes. Both are read.
- Most products have no title, and many have no price; prices and categories are those of 2014, not
  those of the day of a rating.
"""

from __future__ import annotations

import ast
import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from settings.errors import LogFileError
from streaming.events import Entity
from streaming.logs.chunks import first_cells, matching, read_whole, seconds
from streaming.logs.outcomes import OutcomeLog
from streaming.logs.prices import price_class
from streaming.logs.text_tables import reading

log = logging.getLogger(__name__)

_RATINGS = "ratings_Electronics.csv"
_METADATA = ("meta_Electronics.json", "meta_Electronics.json.gz")
_COLUMNS = ("user", "item", "rating", "timestamp")
_LIKED = 4

# a request id of all three must have room in an event
_user_id = matching(r"[^\s,]{1,100}", "an id of 1 to 100 characters without blanks")
_asin = matching(
    r"[0-9A-Za-z]{10}",
    "an ASIN of 10 letters and digits (the columns are user, item, rating, timestamp; later"
    " editions begin with the item)",
)


class AmazonElectronics(OutcomeLog):
    """The ratings in memory; see :class:`streaming.logs.EventLog`.

    Args:
        folder: of ``ratings_Electronics.csv``. ``meta_Electronics.json`` or ``.json.gz`` may lie
            beside it; without it the catalogue is empty.

    Raises:
        LogFileError: the ratings are missing or broken.
    """

    name = "amazon-electronics"
    declaration = "amazon"

    def __init__(self, folder: Path) -> None:
        self._metadata = _metadata_of(folder)
        path = folder / _RATINGS
        rows = read_whole(path, _COLUMNS, header=int(_has_header(path)))
        codes, ratings = rows.distinct("rating", _rating)
        super().__init__(
            rows.texts("user", _user_id),
            rows.texts("item", _asin),
            rows.integers("timestamp", seconds),
            (np.array(ratings) >= _LIKED)[codes],
        )

    def items(self) -> Iterator[Entity]:
        """The products of the metadata: title, categories, class of price; read at each call.

        Raises:
            LogFileError: the metadata is broken.
        """
        return iter(()) if self._metadata is None else _products(self._metadata)

    def users(self) -> Iterator[Entity]:
        """Nobody: nothing but their ids is known of the reviewers."""
        return iter(())


def _metadata_of(folder: Path) -> Path | None:
    for name in _METADATA:
        if (folder / name).exists():
            return folder / name
    log.warning(
        "%s has no %s: the products go without categories and price", folder, " or ".join(_METADATA)
    )
    return None


def _has_header(path: Path) -> bool:
    """Whether the first line names the columns: neither rating nor time is a number there."""
    cells = first_cells(path)
    return len(cells) == len(_COLUMNS) and not any(map(_is_number, cells[2:]))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rating(text: str) -> float:
    if not _is_number(text) or not 1 <= float(text) <= 5:
        raise ValueError("is not a rating from 1 to 5")
    return float(text)


def _products(path: Path) -> Iterator[Entity]:
    opened = gzip.open if path.suffix == ".gz" else open
    with reading(path), opened(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            yield _product(_record(line, f"{path}, line {number}"), f"{path}, line {number}")


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        try:
            record = ast.literal_eval(line)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise LogFileError(
                f"{place} is neither JSON nor Python's notation of a dict ({error}): was the file"
                f" cut short? {line[:80]!r}"
            ) from error
    if not isinstance(record, dict):
        raise LogFileError(f"{place} is not the description of a product: {line[:80]!r}")
    return record


def _product(record: dict[str, Any], place: str) -> Entity:
    asin, title, price = (record.get(name) for name in ("asin", "title", "price"))
    paths = record.get("categories") or []
    if not isinstance(asin, str) or not asin:
        raise LogFileError(f"{place}, column asin: {asin!r} is not a product's id")
    if not isinstance(paths, list) or not all(isinstance(p, list) for p in paths):
        raise LogFileError(f"{place}, column categories: {paths!r} is not a list of lists")
    # a product stands at several places of the tree, which share their upper parts
    names = dict.fromkeys(str(name) for path in paths for name in path)
    attributes: dict[str, str | list[str]] = {"categories": list(names)}
    if title:
        attributes["title"] = str(title)
    if price is not None:
        try:
            attributes["price"] = price_class(price)
        except (ValueError, TypeError) as error:
            raise LogFileError(f"{place}, column price: {price!r} is not a price") from error
    return Entity(id=asin, attributes=attributes)
