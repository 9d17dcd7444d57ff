"""The streaming job as Flink SQL, rendered from a declaration.

The stages, each a view over those before it:

1. ``impressions_checked``, ``clicks_checked``: see :mod:`features.sql_entrance`.
2. ``impressions_once``: of equal impressions the first.
3. ``clicks_matched``, ``clicks_once``: a click finds the latest impression at or before it,
   an impression keeps its first click.
4. ``events``: every impression twice, at its own ``ts`` to ask and one millisecond later to
   count (a hopping window of two milliseconds is what doubles it); every click once, at
   ``ts + 1``. A RANGE frame up to the current row then holds exactly what was known strictly
   before, whatever the order of arrival.
5. One OVER stage per entity and window: items first, users on top of them.
6. ``outcomes``: impressions that asked, left-joined with their click; with them go the time
   marks, which take the watermark *behind* the join as the frontier of what is complete.
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
    milliseconds,
    source_table,
)
from features.sql_sinks import (
    SAMPLE_COLUMNS,
    dead_letters_table,
    features_table,
    row_type,
    samples_table,
)
from settings.errors import ConfigurationError
from settings.settings import Settings

_SHOWN = tuple(c.name for c in IMPRESSION.kept if c.name not in {"user_id", "item_id"})
_PLACE_DIGITS = (5, 16)


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
    stages = _Stages(declaration)
    script = [source_table(e, settings) for e in (IMPRESSION, CLICK)]
    for entrance in (IMPRESSION, CLICK):
        script += checked_view(entrance, settings).split(";\n\n")
    script += [
        _impressions_once(settings),
        *_clicks_once(settings),
        *_events(),
        *stages.views(),
        *_outcomes(declaration, stages, settings),
        samples_table(declaration, settings),
        *(features_table(declaration, entity, settings) for entity in ("user", "item")),
        dead_letters_table(settings),
        _insert(declaration, stages),
    ]
    return JobSql(tuple(script))


def _place(prefix: str = "") -> str:
    """A fixed-width text that orders events by time, partition and offset."""
    partition, offset = _PLACE_DIGITS
    return (
        f"LPAD(CAST({prefix}ts AS STRING), {STAMP_DIGITS}, '0')"
        f" || LPAD(CAST({prefix}`partition` AS STRING), {partition}, '0')"
        f" || LPAD(CAST({prefix}`offset` AS STRING), {offset}, '0')"
    )


_PLACE_LENGTH = STAMP_DIGITS + sum(_PLACE_DIGITS)


def _impressions_once(settings: Settings) -> str:
    return f"""CREATE TEMPORARY VIEW impressions_once AS
SELECT *, place = MIN(place) OVER (PARTITION BY request_id, user_id, item_id ORDER BY et
  RANGE BETWEEN {milliseconds(settings.flink.duplicate_window_ms)} PRECEDING AND CURRENT ROW)
  AS is_first
FROM (SELECT *, {_place()} AS place FROM impressions_checked
  WHERE reason IS NULL AND NOT is_mark)"""


def _clicks_once(settings: Settings) -> list[str]:
    frame = (
        f"ORDER BY et RANGE BETWEEN {milliseconds(settings.log.attribution_ms)} PRECEDING"
        " AND CURRENT ROW"
    )
    # MD5 gives ids of any text a fixed width, so that a list of entries can be searched
    return [
        f"""CREATE TEMPORARY VIEW touches AS
SELECT user_id, item_id, et, ts, CAST(NULL AS BYTES) AS `value`, `partition`, `offset`,
  CAST(NULL AS STRING) AS request_id, CAST(NULL AS STRING) AS place,
  place || MD5(request_id) AS entry
FROM impressions_once WHERE is_first
UNION ALL
SELECT user_id, item_id, et, ts, `value`, `partition`, `offset`, request_id,
  {_place()} AS place, CAST(NULL AS STRING) AS entry
FROM clicks_checked WHERE reason IS NULL AND NOT is_mark""",
        f"""CREATE TEMPORARY VIEW clicks_matched AS
SELECT *, CASE
    WHEN request_id IS NULL AND CHAR_LENGTH(entries) < {2 * _PLACE_LENGTH}
      THEN SUBSTRING(entries, 1, {_PLACE_LENGTH})
    WHEN request_id IS NULL
      THEN SUBSTRING(ARRAY_MAX(SPLIT(entries, ',')), 1, {_PLACE_LENGTH})
    WHEN POSITION(MD5(request_id) IN entries) > 0
      THEN SUBSTRING(entries, POSITION(MD5(request_id) IN entries) - {_PLACE_LENGTH},
        {_PLACE_LENGTH})
  END AS impression
FROM (SELECT *, LISTAGG(entry) OVER (PARTITION BY user_id, item_id {frame}) AS entries
  FROM touches)
WHERE place IS NOT NULL""",
        f"""CREATE TEMPORARY VIEW clicks_once AS
SELECT *, place = MIN(place) OVER (PARTITION BY impression {frame}) AS is_first
FROM clicks_matched WHERE impression IS NOT NULL""",
    ]


def _events() -> list[str]:
    nothing = {c.name: f"CAST(NULL AS {c.sql_type})" for c in IMPRESSION.kept}
    own = ", ".join(f"`{name}`" for name in _SHOWN)
    none = ", ".join(f"{nothing[name]} AS `{name}`" for name in _SHOWN)
    return [
        f"""CREATE TEMPORARY VIEW arrivals AS
SELECT user_id, item_id, et, ts, FALSE AS is_click, `partition`, `offset`, place, {own}
FROM impressions_once WHERE is_first
UNION ALL
SELECT user_id, item_id, et, ts, TRUE AS is_click, `partition`, `offset`, impression AS place,
  {none}
FROM clicks_once WHERE is_first""",
        """CREATE TEMPORARY VIEW moments AS
SELECT *, window_time AS at_time, window_time = et AS asks
FROM TABLE(HOP(TABLE arrivals, DESCRIPTOR(et),
  INTERVAL '0.001' SECOND, INTERVAL '0.002' SECOND))""",
        f"""CREATE TEMPORARY VIEW events AS
SELECT user_id, item_id, at_time, ts, is_click, asks, `partition`, `offset`, place, {own},
  NOT asks AND NOT is_click AS shows, NOT asks AND is_click AS clicks,
  CASE WHEN is_click THEN SUBSTRING(MD5(item_id), 1, 1) END AS slot,
  CASE WHEN is_click THEN LPAD(CAST(ts AS STRING), {STAMP_DIGITS}, '0') || item_id END AS stamp
FROM moments WHERE NOT (asks AND is_click)""",
    ]


class _Stages:
    """The OVER stages: one per entity and window, items before users."""

    def __init__(self, declaration: Declaration) -> None:
        self._frames: list[tuple[Entity, int | None]] = []
        self._declaration = declaration
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
            for name, aggregate in _aggregates(feature)
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


def _aggregates(feature: Streaming) -> list[tuple[str, str]]:
    counts = "shows" if feature.source == "impression" else "clicks"
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


def _outcomes(declaration: Declaration, stages: _Stages, settings: Settings) -> list[str]:
    log = settings.log
    values = ", ".join(_value(f) for f in declaration.streaming)
    sample = {
        "frontier": "CAST(NULL AS BIGINT)",
        "closed_ts": f"COALESCE(c.ts + 1, q.ts + {log.closing_delay_ms})",
        "label": "CASE WHEN c.ts IS NULL THEN 0 ELSE 1 END",
        "weight": "CAST(1 AS DOUBLE)",
        "impression_at": "ARRAY[CAST(q.`partition` AS BIGINT), q.`offset`]",
        "click_at": "CASE WHEN c.ts IS NOT NULL"
        " THEN ARRAY[CAST(c.`partition` AS BIGINT), c.`offset`] END",
    }
    columns = ",\n  ".join(
        f"{sample.get(name, f'q.`{name}`')} AS `{name}`" for name, _ in SAMPLE_COLUMNS
    )
    nothing = ", ".join(f"CAST(NULL AS {kind})" for _, kind in SAMPLE_COLUMNS)
    names = ", ".join(f"`{name}`" for name, _ in SAMPLE_COLUMNS[1:])
    row = row_type(declaration)
    return [
        f"""CREATE TEMPORARY VIEW outcomes AS
SELECT q.at_time AS at_time,
  {columns},
  CAST(ROW({values}) AS {row}) AS features
FROM (SELECT * FROM {stages.last("user")} WHERE asks) AS q
LEFT JOIN (SELECT * FROM clicks_once WHERE is_first) AS c
ON q.place = c.impression
  AND c.et BETWEEN q.at_time AND q.at_time + {milliseconds(log.attribution_ms)}""",
        f"""CREATE TEMPORARY VIEW outcomes_and_marks AS
SELECT * FROM outcomes
UNION ALL
SELECT et, {nothing}, CAST(NULL AS {row})
FROM impressions_checked WHERE reason IS NULL AND is_mark""",
        # the window changes nothing: it keeps the planner from moving CURRENT_WATERMARK to
        # before the union, where it would tell the time of the source. Behind the join it lags
        # by the attribution window, which the join holds it back by.
        f"""CREATE TEMPORARY VIEW samples_and_marks AS
SELECT CASE WHEN request_id IS NULL THEN {log.attribution_ms} + 1000 * UNIX_TIMESTAMP(
    CAST(CURRENT_WATERMARK(window_time) AS STRING)) END AS frontier,
  {names}, features
FROM TABLE(TUMBLE(TABLE outcomes_and_marks, DESCRIPTOR(at_time), INTERVAL '0.001' SECOND))""",
    ]


def _insert(declaration: Declaration, stages: _Stages) -> str:
    rows = "\n".join(
        f"INSERT INTO {entity}_features SELECT {entity}_id, ts,"
        f" {', '.join(_value(f) for f in declaration.of_entity(entity))}"
        f" FROM {stages.last(entity)} WHERE NOT asks;"
        for entity in ("user", "item")
    )
    letters = [
        (IMPRESSION.topic, "reason", "impressions_checked", "reason IS NOT NULL"),
        (IMPRESSION.topic, "'duplicate'", "impressions_once", "NOT is_first"),
        (CLICK.topic, "reason", "clicks_checked", "reason IS NOT NULL"),
        (CLICK.topic, "'unmatched'", "clicks_matched", "impression IS NULL"),
        (CLICK.topic, "'repeated'", "clicks_once", "NOT is_first"),
    ]
    refused = "\nUNION ALL ".join(
        f"SELECT '{topic}', `partition`, `offset`, {reason}, `value` FROM {view} WHERE {condition}"
        for topic, reason, view, condition in letters
    )
    return f"""EXECUTE STATEMENT SET BEGIN
INSERT INTO samples SELECT * FROM samples_and_marks
  WHERE request_id IS NOT NULL OR frontier IS NOT NULL;
{rows}
INSERT INTO dead_letters
{refused};
END"""
