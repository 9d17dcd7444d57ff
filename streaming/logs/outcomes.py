"""Logs in which a row is an impression and its outcome at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from settings.errors import LogFileError
from streaming.events import Click, Impression
from streaming.logs.event_log import Event
from streaming.logs.text_tables import Int64Array

Int32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]

_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of texts, each kept once.

    Attributes:
        codes: int32 [n], of the rows.
        texts: of the codes.
    """

    codes: Int32Array
    texts: Sequence[str]


class OutcomeLog:
    """Rows in memory, as events: an impression each, and a click right behind it if clicked.

    Rows are sorted by time, user, item, context and outcome, where users, items and contexts sort
    by code. Rows that agree in all of these are alike, so the events do not depend on the order of
    the rows, and neither do their ids: user, seconds and item, with a number behind the second and
    later rows that share these.

    About 32 bytes a row are held, and the texts.

    Args:
        users: of the rows.
        items: of the rows; no text may hold ``-`` or ``.``, so that no two events share an id.
        seconds: of the rows, since 1970.
        clicked: of the rows.
        context: name and values of what the impressions' ``context`` says, if anything.
    """

    # a row is its own feedback and times are whole seconds or days: this keeps seconds apart
    attribution_ms = 500

    def __init__(
        self,
        users: Coded,
        items: Coded,
        seconds: Int64Array,
        clicked: BoolArray,
        context: tuple[str, Coded] | None = None,
    ) -> None:
        if not len(seconds):
            raise LogFileError("the log holds no rows: is it the right folder?")
        name, where = context or ("", Coded(np.zeros(len(seconds), np.int32), [""]))
        order = np.lexsort((clicked, where.codes, items.codes, users.codes, seconds))
        self._user, self._user_ids = users.codes[order], users.texts
        self._item, self._item_ids = items.codes[order], items.texts
        self._seconds = seconds[order]
        self._clicked = clicked[order]
        self._context = where.codes[order]
        self._contexts = [{name: text} if name else None for text in where.texts]
        self._repeat = _repeats(self._seconds, self._user, self._item)
        # number of each impression's event: one a row before it, and one a click before it
        self._number = np.arange(len(order)) + np.cumsum(self._clicked) - self._clicked

    @property
    def count(self) -> int:
        """Impressions and clicks."""
        return int(self._number[-1]) + 1 + int(self._clicked[-1])

    @property
    def span(self) -> tuple[int, int]:
        """Event times of the first and the last event, in milliseconds."""
        return int(self._seconds[0]) * 1000, int(self._seconds[-1]) * 1000

    def index_at(self, ts: int) -> int:
        """Number of the first event at or after this time; ``count`` if there is none."""
        row = int(np.searchsorted(self._seconds, -(-ts // 1000)))
        return int(self._number[row]) if row < len(self._number) else self.count

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[Event]:
        """The events numbered ``start`` up to, not including, ``stop``."""
        end = self.count if stop is None else min(stop, self.count)
        row = max(0, int(np.searchsorted(self._number, start, side="right")) - 1)
        number = int(self._number[row])
        while number < end:
            for impression, clicked in self._rows(slice(row, row + _BATCH)):
                if start <= number < end:
                    yield impression
                number += 1
                if clicked:
                    if start <= number < end:
                        yield Click(
                            event_id=impression.request_id,
                            user_id=impression.user_id,
                            item_id=impression.item_id,
                            ts=impression.ts,
                            request_id=impression.request_id,
                        )
                    number += 1
                if number >= end:
                    return
            row += _BATCH

    def _rows(self, rows: slice) -> Iterator[tuple[Impression, bool]]:
        for user, item, seconds, clicked, context, repeat in zip(
            self._user[rows].tolist(),
            self._item[rows].tolist(),
            self._seconds[rows].tolist(),
            self._clicked[rows].tolist(),
            self._context[rows].tolist(),
            self._repeat[rows].tolist(),
            strict=True,
        ):
            user_id, item_id = self._user_ids[user], self._item_ids[item]
            again = f".{repeat + 1}" if repeat else ""
            yield (
                Impression(
                    request_id=f"{user_id}-{seconds}-{item_id}{again}",
                    user_id=user_id,
                    item_id=item_id,
                    ts=seconds * 1000,
                    context=self._contexts[context],
                ),
                clicked,
            )


def _repeats(*columns: Int64Array | Int32Array) -> Int32Array:
    """How many rows right before each are equal to it in all columns.

    >>> _repeats(np.array([1, 1, 1, 2]), np.array([5, 5, 6, 6])).tolist()
    [0, 1, 0, 0]
    """
    row = np.arange(len(columns[0]), dtype=np.int32)
    fresh = np.ones(len(row), np.bool_)
    if len(row) > 1:
        fresh[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    first: Int32Array = np.maximum.accumulate(np.where(fresh, row, 0))
    return row - first
