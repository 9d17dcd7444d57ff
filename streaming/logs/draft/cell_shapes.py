"""What the cells of a column hold: times, lists of shown items, sets, ids."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from streaming.logs.log_file import Unit

FORMS = (
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%Y%m%d%H%M%S",
    "%d.%m.%Y %H:%M:%S",
    "%d/%b/%Y:%H:%M:%S %z",
    "%Y/%m/%d %H:%M:%S",
)
# kinds of action that say what was shown
SHOWN_KINDS = frozenset({"view", "pv", "impression", "show", "shown"})
_UNITS: dict[Unit, float] = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_EARLIEST_MS = 631_152_000_000  # 1990
_MARKED = re.compile(r"\S+-[01]")
_ID = re.compile(r"[A-Za-z]*[_-]?\d+|[0-9a-fA-F-]{8,}")
_MOST = 0.95  # share of the cells that must fit: some may be broken


def share(good: int, cells: Sequence[str]) -> float:
    """Part of the cells; 0 of none."""
    return good / len(cells) if cells else 0.0


def epoch_unit(cells: Sequence[str]) -> Unit | None:
    """The unit in which nearly all of these numbers lie between 1990 and tomorrow."""
    numbers = [float(cell) for cell in cells if re.fullmatch(r"\d+(\.\d+)?", cell)]
    latest = time.time() * 1000 + 86_400_000
    for unit, factor in _UNITS.items():
        good = sum(_EARLIEST_MS <= number * factor <= latest for number in numbers)
        if share(good, cells) >= _MOST:
            return unit
    return None


def is_date(cells: Sequence[str]) -> bool:
    """Whether nearly all cells are a day and a time of a known pattern, or ISO 8601."""
    return any(
        share(sum(_reads(cell, form) for cell in cells), cells) >= _MOST for form in (*FORMS, "")
    )


def _reads(cell: str, form: str) -> bool:
    """Whether a text is a time of this pattern; without a pattern, of ISO 8601."""
    if not form and (len(cell) < 10 or "-" not in cell):
        return False
    try:
        found = datetime.strptime(cell, form) if form else datetime.fromisoformat(cell)
    except ValueError:
        return False
    return 1990 <= found.year <= datetime.now(UTC).year + 1


def marked_separator(cells: Sequence[str]) -> str | None:
    """What parts the entries of ``N1-1 N2-0``; None: the cells are no such lists."""
    if any(re.search(r"\d{4}-\d", cell) for cell in cells[:5]) and is_date(cells):
        return None
    for separator in (" ", "|", ";", ","):
        good = sum(
            all(_MARKED.fullmatch(one) for one in cell.split(separator) if one) for cell in cells
        )
        both = any(cell.endswith("-1") or f"-1{separator}" in cell for cell in cells)
        several = any(separator in cell for cell in cells)
        if both and several and share(good, cells) >= _MOST:
            return separator
    return None


def set_separator(cells: Sequence[str]) -> str | None:
    """What splits these cells into few values that come again; None: they are no sets.

    A blank splits ids only, since words of a text come again too; and a comma is none where a
    blank follows it.

    >>> set_separator(["Pool|Spa", "Pool", "Spa|Bar", "Bar|Pool"])
    '|'
    >>> set_separator(["Paris, France", "Rome, Italy"]) is None
    True
    """
    if any(cell.startswith(("{", "[{", "http")) for cell in cells):
        return None
    for separator in ("|", ";", ",", " "):
        with_it = sum(separator in cell for cell in cells)
        if share(with_it, cells) < 0.1:
            continue
        parts = [one for cell in cells for one in cell.split(separator) if one.strip()]
        different = set(parts)
        if len(different) > min(len(set(cells)), 0.5 * len(parts)):
            continue
        if separator == " " and not all(_ID.fullmatch(one) for one in different):
            continue
        if separator == "," and any(one.startswith(" ") for one in different):
            continue
        if separator == "," and all(re.fullmatch(r"-?\d+(,\d+)?", cell) for cell in cells):
            continue  # a decimal comma
        return separator
    return None


def is_id(cells: Sequence[str]) -> bool:
    """Whether the cells look like ids: whole numbers, letters and a number, or hexadecimal."""
    return share(sum(_ID.fullmatch(cell) is not None for cell in cells), cells) >= _MOST


def overlap(cells: Collection[str], ids: Collection[str]) -> float:
    """Part of the different cells that are among the ids."""
    different = set(cells)
    return len(different & set(ids)) / len(different) if different else 0.0


def split_cells(cells: Sequence[str]) -> set[str]:
    """The different entries of lists in texts, whatever parts them.

    >>> sorted(split_cells(["N1-0 N2-1", "[a, b]"]))
    ['N1-0', 'N2-1', 'a', 'b']
    """
    return {one for cell in cells for one in re.split(r"[\s,;|\[\]'\"]+", cell) if one}
