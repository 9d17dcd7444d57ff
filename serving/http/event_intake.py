"""Checks the events of a post, all of them before any is sent to Kafka.

An impression of an item that this server ranked is filled in from the ranking: the application need
not carry variant, version, score and propensity through its own systems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from serving.http.messages import EventBatch, PostedImpression
from serving.http.outbox import OutboxRecord
from serving.http.problems import RequestError, cure_for, decode
from serving.model.channels import now_ms
from serving.model.recent_rankings import RecentRankings
from settings.errors import EventError
from settings.settings import Settings
from streaming.events import MAX_EVENT_BYTES, Click, Impression, Ranking, check_event, encode
from streaming.kafka.topics import CLICKS, IMPRESSIONS

_Event = TypeVar("_Event", Impression, Click)

_keys = msgspec.json.Decoder(dict[str, msgspec.Raw])
_batch = msgspec.json.Decoder(EventBatch)
_impression = msgspec.json.Decoder(PostedImpression)
_click = msgspec.json.Decoder(Click)


@dataclass(frozen=True, slots=True)
class Posted:
    """Checked events, ready for Kafka."""

    records: list[OutboxRecord]
    impressions: int
    clicks: int


def read_events(body: bytes, settings: Settings, recent: RecentRankings) -> Posted:
    """Read a batch ``{"impressions": […], "clicks": […]}`` or one bare event.

    A bare event with an ``event_id`` is a click.

    Args:
        body: of the request.
        settings: limits and topics.
        recent: rankings to fill impressions in from.

    Raises:
        RequestError: 400 or 422; names the field, such as ``clicks[2].ts``.
    """
    keys = decode(_keys, body)
    if "impressions" in keys or "clicks" in keys:
        batch = decode(_batch, body)
        impressions, clicks, bare = batch.impressions, batch.clicks, False
    elif "event_id" in keys:
        impressions, clicks, bare = [], [decode(_click, body)], True
    else:
        impressions, clicks, bare = [decode(_impression, body)], [], True
    if not impressions and not clicks:
        raise RequestError(
            422, "no event", "send at least one impression or click", field="impressions"
        )
    whole = [
        _filled(_named("" if bare else "impressions", at), posted, recent.find(posted.request_id))
        for at, posted in enumerate(impressions)
    ]
    return Posted(
        _records("" if bare else "impressions", whole, settings.topic(IMPRESSIONS), settings)
        + _records("" if bare else "clicks", clicks, settings.topic(CLICKS), settings),
        len(impressions),
        len(clicks),
    )


def _named(name: str, at: int) -> str:
    """The path before a field's name in an error."""
    return f"{name}[{at}]." if name else ""


def _filled(before: str, posted: PostedImpression, ranking: Ranking | None) -> Impression:
    """The impression; fields that the application left out come from its ranking."""
    fields = msgspec.structs.asdict(posted)
    fields["ts"] = now_ms() if posted.ts is None else posted.ts
    if ranking is None:
        if posted.user_id is None:
            raise RequestError(
                422,
                f"this server knows no ranking {posted.request_id!r:.80} (any more)",
                "send the user_id with the impression",
                field=f"{before}user_id",
            )
        return Impression(**fields)
    if posted.user_id not in {None, ranking.user_id}:
        raise RequestError(
            422,
            f"request {posted.request_id!r:.80} was ranked for {ranking.user_id!r:.80}",
            "send the user that was ranked for, or another request_id",
            field=f"{before}user_id",
        )
    known = {
        "user_id": ranking.user_id,
        "score": next((i.score for i in ranking.items if i.item_id == posted.item_id), None),
        "experiment": ranking.experiment,
        "variant": ranking.variant,
        "model": ranking.model,
        "version": ranking.version,
        "propensity": ranking.propensity,
        "context": ranking.context,
    }
    for name, value in known.items():
        if fields[name] is None:
            fields[name] = value
    return Impression(**fields)


def _records(name: str, events: list[_Event], topic: str, settings: Settings) -> list[OutboxRecord]:
    now, ahead = now_ms(), settings.flink.max_ahead_ms
    records = []
    for at, event in enumerate(events):
        try:
            check_event(event, record_ms=now, max_ahead_ms=ahead, actions=settings.log.actions)
        except EventError as error:
            field = f"{_named(name, at)}{error.field}"
            raise RequestError(422, str(error), cure_for(field), field=field) from error
        value = encode(event)
        if len(value) > MAX_EVENT_BYTES:
            raise RequestError(
                422,
                f"the event has {len(value)} bytes, Kafka takes {MAX_EVENT_BYTES} of us",
                "keep large data elsewhere and send its id",
                field=_named(name, at)[:-1] or None,
            )
        records.append(OutboxRecord(topic, event.user_id.encode(), value))
    return records
