"""The topics: names, partitions, retention."""

from __future__ import annotations

from dataclasses import dataclass, field

from settings.settings import Settings

IMPRESSIONS = "impressions"
CLICKS = "clicks"
RANKINGS = "rankings"
ITEMS = "items"
USERS = "users"
SAMPLES = "training.samples"
USER_FEATURES = "features.user"
ITEM_FEATURES = "features.item"
MODEL_UPDATES = "model.updates"
DEAD_LETTERS = "dead_letters"

# a replayed log has old times: retention by time would delete it at once
_FOREVER = {"retention.ms": "-1"}
# whose clock stamps the records; by default a broker refuses what is an hour ahead of its own
_TIMESTAMPS = {
    "broker": {"message.timestamp.type": "LogAppendTime"},
    "producer": {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": str(2**63 - 1),
    },
}
_COMPACTED = {"cleanup.policy": "compact"}
# what was deleted must stay so for a server that starts years later; more would overflow in Kafka
_ENTITIES = {**_COMPACTED, "delete.retention.ms": str(100 * 365 * 86_400_000)}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its name, partitions and configuration."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def all_topics(settings: Settings) -> tuple[Topic, ...]:
    """All topics, with ``kafka.topic_prefix`` before their names."""
    events = settings.kafka.partitions
    timed = {**_FOREVER, **_TIMESTAMPS[settings.kafka.timestamps]}
    layout = (
        Topic(IMPRESSIONS, events, timed),
        Topic(CLICKS, events, timed),
        Topic(RANKINGS, events, _FOREVER),
        Topic(ITEMS, 1, _ENTITIES),
        Topic(USERS, 1, _ENTITIES),
        Topic(SAMPLES, settings.flink.parallelism, _FOREVER),
        Topic(USER_FEATURES, 1, _COMPACTED),
        Topic(ITEM_FEATURES, 1, _COMPACTED),
        # one partition: its offsets number the deltas
        Topic(MODEL_UPDATES, 1, {"retention.ms": str(7 * 86_400_000)}),
        Topic(DEAD_LETTERS, 1, _FOREVER),
    )
    return tuple(Topic(settings.topic(t.name), t.partitions, t.config) for t in layout)
