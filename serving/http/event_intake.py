"""Events that an application posts: all of them are checked before any is sent on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from serving.http.messages import EventBatch
from serving.http.outbox import OutboxRecord
from serving.http.problems import RequestError, cure_for, decode
from serving.model.channels import now_ms
from settings.errors import EventError
from settings.settings import Settings
from streaming.events import Click, Impression, check_event, encode
from streaming.kafka.topics import CLICKS, IMPRESSIONS

# Kafka's own limit less what a record adds; what Kafka refuses is known too late: the other events
# of the post are in
MAX_EVENT_BYTES = 1_000_000

_Event = TypeVar("_Event", Impression, Click)

_keys = msgspec.json.Decoder(dict[str, msgspec.Raw])
_batch = msgspec.json.Decoder(EventBatch)
_impression = msgspec.json.Decoder(Impression)
_click = msgspec.json.Decoder(Click)


@dataclass(frozen=True, slots=True)
class Posted:
    """Checked events, ready for Kafka."""

    records: list[OutboxRecord]
    impressions: int
    clicks: int


def read_events(body: bytes, settings: Settings) -> Posted:
    """Read a batch ``{"impressions": […], "clicks": […]}`` or one bare event.

    A bare event with an ``event_id`` is a click.

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
    return Posted(
        _records("" if bare else "impressions", impressions, settings.topic(IMPRESSIONS), settings)
        + _records("" if bare else "clicks", clicks, settings.topic(CLICKS), settings),
        len(impressions),
        len(clicks),
    )


def _records(name: str, events: list[_Event], topic: str, settings: Settings) -> list[OutboxRecord]:
    now, ahead = now_ms(), settings.flink.max_ahead_ms
    records = []
    for at, event in enumerate(events):
        try:
            check_event(event, record_ms=now, max_ahead_ms=ahead)
        except EventError as error:
            field = f"{name}[{at}].{error.field}" if name else error.field
            raise RequestError(422, str(error), cure_for(field), field=field) from error
        value = encode(event)
        if len(value) > MAX_EVENT_BYTES:
            raise RequestError(
                422,
                f"the event has {len(value)} bytes, Kafka takes {MAX_EVENT_BYTES} of us",
                "keep large data elsewhere and send its id",
                field=f"{name}[{at}]" if name else None,
            )
        records.append(OutboxRecord(topic, event.user_id.encode(), value))
    return records
