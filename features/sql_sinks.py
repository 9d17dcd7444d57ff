"""SQL of what the job writes: the samples, the feature rows and the dead letters."""

from __future__ import annotations

from features.declaration import Declaration, Entity, Streaming
from settings.settings import Settings
from streaming.kafka.topics import DEAD_LETTERS, ITEM_FEATURES, SAMPLES, USER_FEATURES

# prepared transactions must outlive any downtime: what times out is lost without an error
_TRANSACTION_TIMEOUT_MS = 12 * 3_600_000

SAMPLE_COLUMNS: tuple[tuple[str, str], ...] = (
    # one of the first three is set: a reader knows the kind of a record by it
    ("watermark", "BIGINT"),
    ("shown_at", "BIGINT"),
    ("action_at", "BIGINT"),
    ("request_id", "STRING"),
    ("user_id", "STRING"),
    ("item_id", "STRING"),
    ("ts", "BIGINT"),
    ("action", "STRING"),
    ("action_ts", "BIGINT"),
    ("label", "INT"),
    ("weight", "DOUBLE"),
    ("value", "DOUBLE"),
    ("impression_at", "ARRAY<BIGINT>"),
    ("click_at", "ARRAY<BIGINT>"),
    ("position", "BIGINT"),
    ("experiment", "STRING"),
    ("variant", "STRING"),
    ("model", "STRING"),
    ("version", "STRING"),
    ("score", "DOUBLE"),
    ("propensity", "DOUBLE"),
    ("context", "STRING"),
)


def _type(feature: Streaming) -> str:
    return {"sum_rate": "DOUBLE", "recent_items": "ARRAY<STRING>"}.get(feature.aggregate, "BIGINT")


def _feature_columns(features: tuple[Streaming, ...]) -> str:
    return ", ".join(f"{f.name} {_type(f)}" for f in features)


def row_type(declaration: Declaration) -> str:
    """The SQL type of a sample's ``features``."""
    return f"ROW<{_feature_columns(declaration.streaming)}>"


def _kafka(topic: str, settings: Settings) -> str:
    return (
        f"'topic' = '{settings.topic(topic)}',\n"
        f"  'properties.bootstrap.servers' = '{settings.kafka.bootstrap}'"
    )


def _exactly_once(topic: str, settings: Settings) -> str:
    return f"""'sink.delivery-guarantee' = 'exactly-once',
  'sink.transaction-naming-strategy' = 'POOLING',
  'sink.transactional-id-prefix' = 'headrace-{settings.topic(topic)}',
  'properties.transaction.timeout.ms' = '{_TRANSACTION_TIMEOUT_MS}'"""


def samples_table(declaration: Declaration, settings: Settings) -> str:
    """The table behind ``training.samples``, written exactly once."""
    columns = ",\n  ".join(f"`{name}` {kind}" for name, kind in SAMPLE_COLUMNS)
    return f"""CREATE TEMPORARY TABLE samples (
  {columns},
  features {row_type(declaration)}
) WITH (
  'connector' = 'kafka',
  {_kafka(SAMPLES, settings)},
  'key.format' = 'raw',
  'key.fields' = 'user_id',
  'value.format' = 'json',
  'value.json.encode.ignore-null-fields' = 'true',
  'sink.partitioner' = 'fixed',
  {_exactly_once(SAMPLES, settings)}
)"""


def features_table(declaration: Declaration, entity: Entity, settings: Settings) -> str:
    """The table behind ``features.user`` or ``features.item``, upserts by id."""
    topic = {"user": USER_FEATURES, "item": ITEM_FEATURES}[entity]
    return f"""CREATE TEMPORARY TABLE {entity}_features (
  {entity}_id STRING,
  ts BIGINT,
  {_feature_columns(declaration.of_entity(entity))},
  PRIMARY KEY ({entity}_id) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  {_kafka(topic, settings)},
  'key.format' = 'raw',
  'value.format' = 'json',
  'sink.buffer-flush.max-rows' = '20000',
  'sink.buffer-flush.interval' = '100 ms'
)"""


def dead_letters_table(settings: Settings) -> str:
    """The table behind ``dead_letters``."""
    return f"""CREATE TEMPORARY TABLE dead_letters (
  topic STRING,
  `partition` INT,
  `offset` BIGINT,
  reason STRING,
  `value` BYTES
) WITH (
  'connector' = 'kafka',
  {_kafka(DEAD_LETTERS, settings)},
  'format' = 'json',
  {_exactly_once(DEAD_LETTERS, settings)}
)"""
