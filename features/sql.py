"""The streaming job as Flink SQL, rendered from a declaration.

The stages, each a view over those before it:

1. ``impressions_checked``, ``clicks_checked``: see :mod:`features.sql_entrance`.
2. ``impressions_once``, ``actions_once``: see :mod:`features.sql_matching`.
3. ``events``: every impression twice, when it asks and one millisecond later to count (a hopping
   window of two milliseconds is what doubles it); every action once, a millisecond after it takes
   effect. A RANGE frame up to the current row then holds exactly what was known strictly before,
   whatever the order of arrival.
4. One OVER stage per entity and window: items first, users on top of them.
5. ``answered``: the features join what else the impression brought.
6. ``samples_with_watermark``: impressions as shown, actions, and the time marks, which take the
   watermark *behind* all stages: what is complete.
"""

from __future__ import annotations

from dataclasses import dataclass

from features.declaration import (
    RATE_UNIT,
    RECENT_SLOTS,
    Declaration,
    Entity,
    Streaming,
)
from features.samples import STAMP_DIGITS
from features.sql_entrance import (
    CLICK,
    IMPRESSION,
    checked_view,
    computed_once,
    literal,
    milliseconds,
    source_table,
)
from features.sql_matching import PLACE, PLACE_DIGITS, matching, record_of
from features.sql_sinks import (
    SAMPLE_COLUMNS,
    dead_letters_table,
    features_table,
    row_type,
    samples_table,
)
from settings.errors import ConfigurationError
from settings.settings import Settings


@dataclass(frozen=True, slots=True)
class JobSql:
    """The job as a script; the last statement starts it."""

    statements: tuple[str, ...]

    @property
    def text(self) -> str:
        """The script, in the form that Flink's own SQL client reads too."""
        return ";\n\n".join(self.statements) + ";\n"


def render_job(declaration: Declaration, settings: Settings) -> JobSql:
    """The whole job for a log.

    Raises:
        ConfigurationError: more subtasks than partitions: those without a partition would hold
            back the watermark for ever.
    """
    if settings.flink.parallelism > settings.kafka.partitions:
        raise ConfigurationError(
            f"flink.parallelism is {settings.flink.parallelism}, kafka.partitions only"
            f" {settings.kafka.partitions}: a subtask that reads nothing stops time for all;"
            " raise kafka.partitions (before the topics are made) or lower flink.parallelism"
        )
    stages = _Stages(declaration, settings)
    script = [source_table(e, settings) for e in (IMPRESSION, CLICK)]
    for entrance in (IMPRESSION, CLICK):
        script += checked_view(entrance, settings).split(";\n\n")
    script += [
        *matching(settings),
        *_events(),
        *stages.views(),
        *_samples(declaration, stages, settings),
        samples_table(declaration, settings),
        *(features_table(declaration, entity, settings) for entity in ("user", "item")),
        dead_letters_table(settings),
        _insert(declaration, stages),
    ]
    return JobSql(tuple(script))


def _events() -> list[str]:
    return [
        """CREATE TEMPORARY VIEW effects AS
SELECT user_id, item_id, et, `at`, LEAST(ts, `at`) AS ts, CAST(NULL AS STRING) AS kind, place
FROM impressions_once WHERE is_first
UNION ALL
SELECT user_id, item_id, et, `at`, LEAST(action_ts, `at`) AS ts, kind,
  CAST(NULL AS STRING) AS place
FROM actions_once WHERE is_first""",
        """CREATE TEMPORARY VIEW moments AS
SELECT *, window_time AS at_time, window_time = et AS asks
FROM TABLE(HOP(TABLE effects, DESCRIPTOR(et),
  INTERVAL '0.001' SECOND, INTERVAL '0.002' SECOND))""",
        f"""CREATE TEMPORARY VIEW events AS
SELECT user_id, item_id, at_time, `at`, ts, asks, place,
  NOT asks AND kind IS NULL AS shows, CASE WHEN NOT asks THEN kind END AS acts,
  CASE WHEN kind IS NOT NULL THEN SUBSTRING(MD5(item_id), 1, 1) END AS slot,
  CASE WHEN kind IS NOT NULL THEN LPAD(CAST(ts AS STRING), {STAMP_DIGITS}, '0') || item_id END
    AS stamp
FROM moments WHERE NOT asks OR kind IS NULL""",
    ]


class _Stages:
    """The OVER stages: one per entity and window, items before users."""

    def __init__(self, declaration: Declaration, settings: Settings) -> None:
        self._frames: list[tuple[Entity, int | None]] = []
        self._declaration = declaration
        # what a feature of clicks counts: positive actions, the first of each kind
        kinds = ", ".join(literal(kind) for kind in sorted(settings.log.positives))
        self._clicks = f"acts IN ({kinds})" if kinds else "FALSE"
        for entity in ("item", "user"):
            windows = {feature.window_ms for feature in declaration.of_entity(entity)}
            # a window's stage keeps its rows: before the others they are narrow
            bounded = sorted(w for w in windows if w is not None)
            self._frames += [(entity, window) for window in bounded]
            if None in windows:
                self._frames.append((entity, None))

    def last(self, entity: Entity) -> str:
        """The view behind the entity's last stage."""
        count = 1 + max(k for k, (of, _) in enumerate(self._frames) if of == entity)
        return f"stage_{count}"

    def views(self) -> list[str]:
        """The stages in order."""
        return [self._view(k) for k in range(len(self._frames))]

    def _view(self, index: int) -> str:
        entity, window_ms = self._frames[index]
        start = "UNBOUNDED" if window_ms is None else milliseconds(window_ms)
        columns = [
            f"{aggregate} OVER w AS {name}"
            for feature in self._declaration.of_entity(entity)
            if feature.window_ms == window_ms
            for name, aggregate in _aggregates(feature, self._clicks)
        ]
        return (
            f"CREATE TEMPORARY VIEW stage_{index + 1} AS\nSELECT *,\n  "
            + ",\n  ".join(columns)
            + f"\nFROM {f'stage_{index}' if index else 'events'}\n"
            + f"WINDOW w AS (PARTITION BY {entity}_id ORDER BY at_time RANGE BETWEEN {start}"
            " PRECEDING AND CURRENT ROW)"
        )


def _slots(feature: Streaming) -> list[str]:
    return [f"{feature.name}_{digit:x}" for digit in range(RECENT_SLOTS)]


def _aggregates(feature: Streaming, clicks: str) -> list[tuple[str, str]]:
    counts = "shows" if feature.source == "impression" else clicks
    match feature.aggregate:
        case "count":
            return [(feature.name, f"COUNT(CASE WHEN {counts} THEN 1 END)")]
        case "first_ts":
            return [(feature.name, f"MIN(CASE WHEN {counts} THEN ts END)")]
        case "last_ts":
            return [(feature.name, f"MAX(CASE WHEN {counts} THEN ts END)")]
        case "recent_items":
            return [
                (name, f"MAX(CASE WHEN slot = '{digit:x}' AND {counts} THEN stamp END)")
                for digit, name in enumerate(_slots(feature))
            ]
        case "sum_rate":
            rate = feature.rate
            if rate is None:
                raise ConfigurationError(f"feature {feature.name!r} needs a rate")
            units = (
                f"({rate.clicks} * {RATE_UNIT} + {rate.prior_units})"
                f" / ({rate.impressions} + {rate.strength})"
            )
            return [(feature.name, f"SUM(CASE WHEN {counts} THEN {units} END)")]


def _value(feature: Streaming) -> str:
    match feature.aggregate:
        case "count":
            return feature.name
        case "first_ts" | "last_ts":
            return f"COALESCE({feature.name}, 0)"
        case "sum_rate":
            return f"CAST(COALESCE({feature.name}, 0) AS DOUBLE) / {RATE_UNIT}"
        case "recent_items":
            return f"ARRAY[{', '.join(_slots(feature))}]"


def _samples(declaration: Declaration, stages: _Stages, settings: Settings) -> list[str]:
    values = ", ".join(_value(f) for f in declaration.streaming)
    row = row_type(declaration)
    own = ("request_id", *(c.name for c in IMPRESSION.kept if not c.required))
    return [
        # ids and features alone go through the stages; all else that an impression brings waits
        # here for them. A duplicate waits in vain, as long as the watermark takes.
        f"""CREATE TEMPORARY VIEW answered AS
SELECT i.et AS at_time, i.`at` AS `at`, q.features AS features, i.record AS record,
  i.`partition` AS `partition`, i.`offset` AS `offset`, i.user_id AS user_id,
  i.item_id AS item_id, i.ts AS ts,
  {", ".join(f"i.`{name}` AS `{name}`" for name in own)}
FROM (SELECT *, {PLACE} AS place FROM impressions_checked
  WHERE reason IS NULL AND NOT is_mark) AS i
LEFT JOIN (SELECT place, at_time, CAST(ROW({values}) AS {row}) AS features
  FROM {stages.last("user")} WHERE asks) AS q
ON i.place = q.place AND i.et BETWEEN q.at_time AND q.at_time""",
        f"""CREATE TEMPORARY VIEW samples_and_marks AS
SELECT at_time, FALSE AS is_mark,
  {
            _columns(
                {
                    "shown_at": "`at`",
                    "impression_at": _AT,
                    **{n: f"`{n}`" for n in ("user_id", "item_id", "ts", *own)},
                }
            )
        }, features
FROM answered WHERE features IS NOT NULL
UNION ALL
SELECT et AS at_time, FALSE AS is_mark,
  {
            _columns(
                {
                    "action_at": "`at` + 1",
                    "action": "kind",
                    "label": _label(settings),
                    "weight": _weight(settings),
                    "value": "amount",
                    "impression_at": _at_of("impression"),
                    "click_at": _at_of("action_place"),
                    **{
                        n: f"`{n}`" for n in ("request_id", "user_id", "item_id", "ts", "action_ts")
                    },
                }
            )
        },
  CAST(NULL AS {row}) AS features
FROM actions_once WHERE is_first AND {_label(settings)} IS NOT NULL
UNION ALL
SELECT et AS at_time, TRUE AS is_mark,
  {_columns({})}, CAST(NULL AS {row}) AS features
FROM impressions_checked WHERE is_mark""",
        # the window changes nothing: it keeps the planner from moving CURRENT_WATERMARK to
        # before the union, where it would be the time of the source
        f"""CREATE TEMPORARY VIEW samples_with_watermark AS
SELECT is_mark, CASE WHEN is_mark THEN 1000 * EXTRACT(EPOCH FROM CURRENT_WATERMARK(window_time))
    + EXTRACT(MILLISECOND FROM CURRENT_WATERMARK(window_time)) END AS `watermark`,
  {", ".join(f"`{name}`" for name, _ in SAMPLE_COLUMNS[1:])}, features
FROM {computed_once("samples_and_marks", "at_time")}""",
    ]


_AT = "ARRAY[CAST(`partition` AS BIGINT), `offset`]"


def _at_of(place: str) -> str:
    partition, offset = PLACE_DIGITS
    return (
        f"ARRAY[CAST(SUBSTRING({place}, 1, {partition}) AS BIGINT),"
        f" CAST(SUBSTRING({place}, {partition + 1}, {offset}) AS BIGINT)]"
    )


def _columns(values: dict[str, str]) -> str:
    return ",\n  ".join(
        f"{values.get(name, f'CAST(NULL AS {kind})')} AS `{name}`" for name, kind in SAMPLE_COLUMNS
    )


def _label(settings: Settings) -> str:
    cases = " ".join(
        f"WHEN {literal(name)} THEN {kind.label}"
        for name, kind in settings.log.actions.items()
        if kind.label is not None
    )
    return f"CASE kind {cases} END" if cases else "CAST(NULL AS INT)"


def _weight(settings: Settings) -> str:
    cases = " ".join(
        f"WHEN {literal(name)} THEN CAST({kind.weight!r} AS DOUBLE)"
        for name, kind in settings.log.actions.items()
    )
    return f"CASE kind {cases} END"


def _insert(declaration: Declaration, stages: _Stages) -> str:
    rows = "\n".join(
        f"INSERT INTO {entity}_features SELECT {entity}_id, `at`,"
        f" {', '.join(_value(f) for f in declaration.of_entity(entity))}"
        f" FROM {stages.last(entity)} WHERE NOT asks;"
        for entity in ("user", "item")
    )
    partition, offset = (f"{_at_of('action_place')}[{k}]" for k in (1, 2))
    own = ("`partition`", "`offset`", "record")
    of_action = (f"CAST({partition} AS INT)", offset)
    repeated, unmatched = (*of_action, "record"), (*of_action, record_of("acted"))
    letters = [
        (IMPRESSION.topic, own, "reason", "impressions_checked", "reason IS NOT NULL"),
        (IMPRESSION.topic, own, "'duplicate'", "answered", "features IS NULL"),
        (CLICK.topic, own, "reason", "clicks_checked", "reason IS NOT NULL"),
        (CLICK.topic, repeated, "'repeated'", "actions_once", "NOT is_first"),
        (CLICK.topic, unmatched, "'unmatched'", "actions_unmatched", "TRUE"),
    ]
    refused = "\nUNION ALL ".join(
        f"SELECT '{topic}', {partition}, {offset}, {reason}, {record} FROM {view} WHERE {condition}"
        for topic, (partition, offset, record), reason, view, condition in letters
    )
    names = ", ".join(f"`{name}`" for name, _ in SAMPLE_COLUMNS)
    return f"""EXECUTE STATEMENT SET BEGIN
INSERT INTO samples SELECT {names}, features FROM samples_with_watermark
  WHERE NOT is_mark OR `watermark` IS NOT NULL;
{rows}
INSERT INTO dead_letters
{refused};
END"""
