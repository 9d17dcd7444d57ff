"""How often each item is clicked, which is what a server ranks by until a model has a version.

The rates come from the rows of ``features.item``, which the job writes from the first event on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import OffsetOutOfRangeError
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.declaration import Declaration
from features.model_inputs import STRENGTH
from features.samples import feature_row_decoder
from settings.errors import EventError
from settings.settings import Settings
from streaming.kafka.client import consumer
from streaming.kafka.span import read_until, span
from streaming.kafka.topics import ITEM_FEATURES


class Popularity:
    """The click rate of every item, smoothed: (clicks + s · base rate) / (impressions + s).

    Args:
        declaration: says which features count an item's impressions and clicks over all time, if
            any does. Without one, all items are equal.
        catalogue: knows items without any event.
    """

    def __init__(self, declaration: Declaration, catalogue: Catalogue) -> None:
        counts = [
            f
            for f in declaration.of_entity("item")
            if f.aggregate == "count" and f.window_ms is None
        ]
        self._clicks = next((f.name for f in counts if f.source == "click"), None)
        self._impressions = next((f.name for f in counts if f.source == "impression"), None)
        self._decode = feature_row_decoder(declaration, "item")
        self._base_rate = declaration.base_rate
        self._catalogue = catalogue
        self._rates: dict[str, float] = {}

    def apply(self, value: bytes) -> None:
        """Take in a record of ``features.item``.

        Raises:
            EventError: it is no row of this declaration.
        """
        row = self._decode(value)
        clicks = getattr(row, self._clicks) if self._clicks else 0
        shown = max(clicks, getattr(row, self._impressions) if self._impressions else 0)
        self._rates[row.id] = (clicks + STRENGTH * self._base_rate) / (shown + STRENGTH)

    def items(self) -> list[str]:
        """Every item that has a record in the catalogue or an event."""
        return list(dict.fromkeys([*self._catalogue.ids("item"), *self._rates.copy()]))

    def rates(self, items: Sequence[str]) -> NDArray[np.float32]:
        """The rate of each item [n]; of one without events the base rate."""
        rates, base = self._rates, self._base_rate
        return np.array([rates.get(name, base) for name in items], np.float32)


class PopularityReader:
    """Fills it from Kafka while it is needed: at once with all that is there. For one thread.

    Args:
        settings: where the broker is.
        popularity: what to fill.

    Raises:
        BrokerError: the broker does not answer.
    """

    def __init__(self, settings: Settings, popularity: Popularity) -> None:
        self._popularity = popularity
        start, ends = span(settings, [ITEM_FEATURES])
        self._consumer = consumer(settings, start)
        for record in read_until(self._consumer, ends):
            self._take(record)

    def poll(self) -> None:
        """Take in what has come."""
        try:
            polled = self._consumer.poll(timeout_ms=0)
        except OffsetOutOfRangeError:  # compacted away meanwhile
            self._consumer.seek_to_beginning()
            return
        for records in polled.values():
            for record in records:
                self._take(record)

    def _take(self, record: ConsumerRecord) -> None:
        if record.value is None:
            return
        try:
            self._popularity.apply(record.value)
        except EventError:
            return  # the writer of features counts and logs it

    def close(self) -> None:
        """End the connection."""
        self._consumer.close()
