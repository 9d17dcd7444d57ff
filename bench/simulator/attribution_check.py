"""Checks which accepted events became samples, and with the right actions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from bench.simulator.traffic import SentEvent
from settings.settings import Settings
from streaming.kafka.span import read_span, span
from streaming.kafka.topics import SAMPLES

Identity = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class AttributionFigures:
    """What became of impressions and labelling actions.

    Attributes:
        impressions: different ones that the system took.
        lost_impressions: of these, those without a sample.
        extra_impressions: samples of nothing that was sent, or a second one of the same.
        actions: different labelling actions that came within the window of a sent impression.
        lost_actions: of these, those that labelled nothing.
        wrong_actions: labels that should not be: of no action, of one outside its window, of
            another impression's time, or twice.
    """

    impressions: int
    lost_impressions: int
    extra_impressions: int
    actions: int
    lost_actions: int
    wrong_actions: int

    def to_json(self) -> dict[str, int]:
        """A form that JSON can hold."""
        return asdict(self)


def check_attribution(
    sent: Sequence[SentEvent],
    records: Iterable[Mapping[str, Any]],
    *,
    labelling: frozenset[str],
    attribution_ms: int,
) -> AttributionFigures:
    """Compare what was sent with the records of ``training.samples``.

    Args:
        sent: every event that the system took, repeated ones too.
        records: shown and actions, decoded; marks are left out.
        labelling: kinds of action that carry a label.
        attribution_ms: an action counts so long after its impression.
    """
    impressions = {_identity(e, ""): e.ts for e in reversed(sent) if not e.action}
    wanted: dict[Identity, int] = {}
    for event in sent:
        shown_at = impressions.get(_identity(event, ""))
        if event.action not in labelling or shown_at is None:
            continue
        if shown_at <= event.ts <= shown_at + attribution_ms:
            wanted[_identity(event, event.action)] = shown_at
    shown: Counter[Identity] = Counter()
    acted: Counter[Identity] = Counter()
    misplaced = 0
    for record in records:
        action = record.get("action", "") if "action_at" in record else ""
        name = (record["request_id"], record["user_id"], record["item_id"], action)
        if action:
            acted[name] += 1
            misplaced += name in wanted and record["ts"] != wanted[name]
        else:
            shown[name] += 1
    return AttributionFigures(
        impressions=len(impressions),
        lost_impressions=len(impressions.keys() - shown.keys()),
        extra_impressions=_beyond(shown, impressions),
        actions=len(wanted),
        lost_actions=len(wanted.keys() - acted.keys()),
        wrong_actions=_beyond(acted, wanted) + misplaced,
    )


def sample_records(settings: Settings) -> Iterator[dict[str, Any]]:
    """Shown and actions on ``training.samples``, decoded as they travel."""
    for record in read_span(settings, *span(settings, [SAMPLES])):
        found = msgspec.json.decode(record.value)
        if "watermark" not in found:
            yield found


def _identity(event: SentEvent, action: str) -> Identity:
    return event.request_id, event.user_id, event.item_id, action


def _beyond(found: Counter[Identity], wanted: Mapping[Identity, int]) -> int:
    """How many were found more often than wanted."""
    return sum(count - (name in wanted) for name, count in found.items())
