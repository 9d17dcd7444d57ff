"""From records of the sample topic to samples in the order of learning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from features.samples import Mark, Sample
from settings.errors import EventError
from trainer.arrived import Arrived
from trainer.ordering import FrontierOrder
from trainer.source import SampleRecord, SampleSource

log = logging.getLogger(__name__)

# identities remembered to drop repeated samples: 8 MB of a checkpoint
_REMEMBERED = 1_000_000
# samples that may wait for the slowest partition before the others are held back
_WAITING = 500_000

Decoder = Callable[[bytes], Sample | Mark]
_Entry = tuple[int, int, bytes]


class IntakeFacts(msgspec.Struct, kw_only=True):
    """What a checkpoint's metadata says of the intake."""

    offsets: dict[int, int]
    frontiers: dict[int, int]
    released: int
    seen: int
    repeated: int
    behind: int


class Intake:
    """Reads, decodes and orders samples.

    Args:
        source: of the records.
        decode: of the log's declaration.

    Attributes:
        order: what has arrived and waits for the frontier.
        seen: samples read since the beginning of the topic.
    """

    def __init__(self, source: SampleSource, decode: Decoder) -> None:
        self._source = source
        self._decode = decode
        self.order: FrontierOrder[Arrived] = FrontierOrder(source.offsets, _REMEMBERED)
        self.seen = 0

    def poll(self, timeout_ms: int) -> int:
        """Take in records that have come; gives their number.

        Raises:
            EventError: a record is neither a sample nor a mark of this declaration.
            CheckpointError: the next record has been deleted.
        """
        self._hold_back()
        count = 0
        for record in self._source.poll(timeout_ms):
            count += 1
            message = self._decoded(record)
            if isinstance(message, Mark):
                self.order.advance(record.partition, message.frontier)
            else:
                self.seen += 1
                self.order.add(record.partition, record.offset, Arrived(*record, message))
        return count

    def release(self) -> Iterator[Arrived]:
        """Samples that are complete, in order."""
        return self.order.release()

    def lag(self) -> int:
        """Records on the topic that were not read yet."""
        return self._source.lag()

    @property
    def offsets(self) -> dict[int, int]:
        """Next record of each partition."""
        return dict(self._source.offsets)

    def _decoded(self, record: SampleRecord) -> Sample | Mark:
        try:
            return self._decode(record.value)
        except EventError as error:
            raise EventError(
                f"partition {record.partition}, offset {record.offset}: {error}",
                reason=error.reason,
                field=error.field,
            ) from error

    def _hold_back(self) -> None:
        """With too much waiting, read only those partitions that the rest waits for."""
        if len(self.order) < _WAITING:
            self._source.hold(set())
            return
        slowest = self.order.frontier
        self._source.hold({p for p, f in self.order.frontiers.items() if f > slowest})

    def facts(self) -> IntakeFacts:
        """For the metadata of a checkpoint."""
        return IntakeFacts(
            offsets=self.offsets,
            frontiers=self.order.frontiers,
            released=self.order.released,
            seen=self.seen,
            repeated=self.order.repeated,
            behind=self.order.behind,
        )

    def part(self, open_batch: list[Arrived]) -> dict[str, Any]:
        """For the parts of a checkpoint: what was read and is not learnt.

        Args:
            open_batch: samples that left the order and wait for the rest of their batch.
        """
        return {
            "open": _pack([(a.partition, a.offset, a.value) for a in open_batch]),
            "order": _pack([(p, o, a.value) for p, o, a in self.order.pending()]),
            "recent": self.order.recent.state(),
        }

    def restore(self, facts: IntakeFacts, part: Mapping[str, Any]) -> list[Arrived]:
        """The inverse of :meth:`facts` and :meth:`part`; gives the open batch back."""
        pending = [(a.partition, a.offset, a) for a in self._unpacked(part["order"])]
        self.order.restore(facts.frontiers, facts.released, pending)
        self.order.recent.load_state(np.asarray(part["recent"], np.uint64))
        self.order.repeated, self.order.behind = facts.repeated, facts.behind
        self.seen = facts.seen
        return self._unpacked(part["open"])

    def _unpacked(self, data: bytes) -> list[Arrived]:
        arrived = []
        for entry in msgspec.msgpack.decode(data, type=list[_Entry]):
            message = self._decoded(SampleRecord(*entry))
            if isinstance(message, Sample):
                arrived.append(Arrived(*entry, message))
        return arrived


def _pack(entries: list[_Entry]) -> bytes:
    return msgspec.msgpack.encode(entries)
