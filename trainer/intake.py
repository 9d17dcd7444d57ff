"""The intake: decodes records of the sample topic and yields them in the order of processing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from features.samples import Action, Mark, Shown
from settings.errors import EventError
from trainer.arrived import Arrived
from trainer.source import SampleRecord, SampleSource
from trainer.watermark_order import WatermarkOrder

log = logging.getLogger(__name__)

# identities remembered to drop repeated records: 8 MB of a checkpoint
_REMEMBERED = 1_000_000
# records that may wait for the slowest partition before the others are held back
_WAITING = 500_000
# counts, sums and times in ms stay far below; larger values are not learnt from
_LARGEST = 1e15
_LARGEST_WEIGHT = 1e6
_WANTED = f"a number of at most {_LARGEST:.0e}"

Decoder = Callable[[bytes], Shown | Action | Mark]
_Entry = tuple[int, int, bytes]


class IntakeFacts(msgspec.Struct, kw_only=True):
    """What a checkpoint's metadata says of the intake."""

    offsets: dict[int, int]
    watermarks: dict[int, int]
    released: int
    seen: int
    actions: int
    refused: int
    repeated: int
    behind: int


class Intake:
    """Reads, decodes and orders records.

    A record that cannot be decoded, or holds a number that no model can learn from, is set aside:
    counted, logged with its place and reason, and passed over.

    Args:
        source: of the records.
        decode: of the log's declaration.

    Attributes:
        order: what has arrived and waits for the watermark.
        seen: impressions read since the beginning of the topic.
        actions: actions read since then.
        refused: records set aside since then.
    """

    def __init__(self, source: SampleSource, decode: Decoder) -> None:
        self._source = source
        self._decode = decode
        self.order = WatermarkOrder(source.offsets, _REMEMBERED)
        self.seen = 0
        self.actions = 0
        self.refused = 0

    def poll(self, timeout_ms: int) -> int:
        """Take in records that have come; gives their number.

        Raises:
            CheckpointError: the next record has been deleted.
        """
        self._hold_back()
        count = 0
        for record in self._source.poll(timeout_ms):
            count += 1
            try:
                message = self._decode(record.value)
                check(message)
            except EventError as error:
                self._refuse(record, error)
                continue
            if isinstance(message, Mark):
                self.order.advance(record.partition, message.watermark)
                continue
            if isinstance(message, Shown):
                self.seen += 1
            else:
                self.actions += 1
            self.order.add(Arrived(*record, message))
        return count

    def _refuse(self, record: SampleRecord, error: EventError) -> None:
        self.refused += 1
        # all records of a topic may be refused: log the 1st, 2nd, 4th, 8th …
        if self.refused & (self.refused - 1) == 0:
            log.error(
                "set aside, %d so far: partition %d, offset %d: %s",
                self.refused,
                record.partition,
                record.offset,
                error,
            )

    def release(self) -> Iterator[Arrived]:
        """Records that are complete, in order."""
        return self.order.release()

    def lag(self) -> int:
        """Records on the topic that were not read yet."""
        return self._source.lag()

    @property
    def offsets(self) -> dict[int, int]:
        """Next record of each partition."""
        return dict(self._source.offsets)

    def _hold_back(self) -> None:
        """With too much waiting, read only those partitions that the rest waits for."""
        if len(self.order) < _WAITING:
            self._source.hold(set())
            return
        slowest = self.order.watermark
        self._source.hold({p for p, at in self.order.watermarks.items() if at > slowest})

    def facts(self) -> IntakeFacts:
        """For the metadata of a checkpoint."""
        return IntakeFacts(
            offsets=self.offsets,
            watermarks=self.order.watermarks,
            released=self.order.released,
            seen=self.seen,
            actions=self.actions,
            refused=self.refused,
            repeated=self.order.repeated,
            behind=self.order.behind,
        )

    def part(self) -> dict[str, Any]:
        """For the parts of a checkpoint: what was read and not released."""
        pending = [(a.partition, a.offset, a.value) for a in self.order.pending()]
        return {
            "order": msgspec.msgpack.encode(pending),
            "recent": self.order.recent.state(),
        }

    def restore(self, facts: IntakeFacts, part: Mapping[str, Any]) -> None:
        """The inverse of :meth:`facts` and :meth:`part`."""
        pending = msgspec.msgpack.decode(part["order"], type=list[_Entry])
        self.order.restore(facts.watermarks, facts.released, map(self.decoded, pending))
        self.order.recent.load_state(np.asarray(part["recent"], np.uint64))
        self.order.repeated, self.order.behind = facts.repeated, facts.behind
        self.seen, self.actions, self.refused = facts.seen, facts.actions, facts.refused

    def decoded(self, entry: _Entry) -> Arrived:
        """A record that a checkpoint kept, which was decoded once.

        Raises:
            EventError: it cannot be decoded any more.
        """
        message = self._decode(entry[2])
        if isinstance(message, Mark):
            raise EventError("a checkpoint keeps no marks", reason="schema")
        return Arrived(*entry, message)


def check(message: Shown | Action | Mark) -> None:
    """Refuse what would spoil a model.

    Raises:
        EventError: a number is not finite or absurdly large, or a label is not 0 or 1.
    """
    if isinstance(message, Shown):
        _check_number("shown_at", message.shown_at)
        for place, value in enumerate(msgspec.structs.astuple(message.features)):
            # NaN is not in the range either
            if isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST:
                raise _refusal(message.features.__struct_fields__[place], value, _WANTED)
    elif isinstance(message, Action):
        _check_number("action_at", message.action_at)
        if message.label not in (0, 1):
            raise _refusal("label", message.label, "0 or 1")
        if not 0 < message.weight <= _LARGEST_WEIGHT:
            raise _refusal("weight", message.weight, f"above 0 and at most {_LARGEST_WEIGHT:.0e}")
    else:
        _check_number("watermark", message.watermark)


def _check_number(name: str, value: float) -> None:
    if not 0 <= value <= _LARGEST:
        raise _refusal(name, value, _WANTED)


def _refusal(name: str, value: float, wanted: str) -> EventError:
    return EventError(
        f"{name} is {value}, not {wanted}; look for the event in its topic (impression_at), and for"
        " the fault in who sent it",
        reason="impossible_number",
        field=name,
    )
