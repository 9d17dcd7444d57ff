"""SQL of the job's entrance: each record is read as bytes, parsed once, and checked.

The rules and their order are those of :func:`streaming.events.decode_event`, with one exception: a
key that comes twice in an object is ``malformed_json`` here.

The watermark moves by the record timestamps of time marks and by nothing else. Each event gets the
time at which it takes effect: an action that of its arrival (its record timestamp), an impression
its own if it arrived in time, else that of its arrival. So no event comes behind the watermark, and
a wrong clock does not move the watermark.

Nearly every record was written by :func:`streaming.events.encode`, with short ids in ASCII. One
regular expression knows those, and that nothing can be wrong with them but their time; they are
cut at the quotes. All others, however they are written, go through a JSON parser and every check,
which costs several times as much.

Flink copies the text of an expression to every place that uses it, and computes it there again,
but not across a window. So what many expressions need is computed below a window of a millisecond,
whose only effect is that (:func:`computed_once`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from settings.log_settings import DEFAULT_ACTION
from settings.settings import Settings
from streaming.events import MAX_ID_BYTES, MAX_TIME_MS, SECONDS_LIMIT
from streaming.kafka.topics import CLICKS, IMPRESSIONS

Type = Literal["id", "text", "int", "float", "object"]


@dataclass(frozen=True, slots=True)
class Column:
    """A field of an event, as the struct in :mod:`streaming.events` has it."""

    name: str
    type: Type
    required: bool = False
    kept: bool = True

    @property
    def sql_type(self) -> str:
        """The type of its column."""
        return {"int": "BIGINT", "float": "DOUBLE"}.get(self.type, "STRING")


@dataclass(frozen=True, slots=True)
class Entrance:
    """One of the topics of events; the columns in the order in which they are encoded."""

    topic: str
    columns: tuple[Column, ...]

    @property
    def plain(self) -> str:
        """The regular expression of a record that needs no parser."""
        required = [c for c in self.columns if c.required]
        optional = [c for c in self.columns if c.type in _PLAIN and not c.required]
        ids = "".join(f'"{c.name}":{_PLAIN[c.type]},' for c in required)
        rest = "".join(f'(?:,"{c.name}":{_PLAIN[c.type]})?' for c in optional)
        # not $, before which a line may end: the pieces are cut at the last brace
        return rf'^\{{{ids}"ts":[1-9]\d{{11,12}}+{rest}\}}(?![\s\S])'

    @property
    def kept(self) -> tuple[Column, ...]:
        """The columns that the stages behind the entrance see."""
        return tuple(c for c in self.columns if c.kept)


IMPRESSION = Entrance(
    IMPRESSIONS,
    (
        Column("request_id", "id", required=True),
        Column("user_id", "id", required=True),
        Column("item_id", "id", required=True),
        Column("position", "int"),
        Column("score", "float"),
        Column("experiment", "text"),
        Column("variant", "text"),
        Column("model", "text"),
        Column("version", "text"),
        Column("propensity", "float"),
        Column("context", "object"),
    ),
)
CLICK = Entrance(
    CLICKS,
    (
        Column("event_id", "id", required=True, kept=False),
        Column("user_id", "id", required=True),
        Column("item_id", "id", required=True),
        Column("request_id", "id"),
        Column("action", "text"),
        Column("value", "float"),
    ),
)

# an impression's time in an object without objects in it and without escapes, in which a key
# between quotes is a key
_FLAT_TIME = r'"ts"\s*:\s*(\d{12,13})\s*[,}]'
# a mark is written in one way; what looks otherwise is an event
_MARK = r'^\{"time_mark":[1-9]\d{11,12}\}(?![\s\S])'
# the record timestamp in milliseconds
_KNOWN = "(1000 * EXTRACT(EPOCH FROM `timestamp`) + EXTRACT(MILLISECOND FROM `timestamp`))"
_TEXT = r'"(?:[^"\\]|\\.)*+"'
_LARGEST = "1.7976931348623157E308"

# values of a plain record: what they match is right for the column, whatever it is
_PLAIN = {
    "id": r'"[ !#-\[\]-~]{1,64}+"',
    "text": r'"[ !#-\[\]-~]{0,64}+"',
    "int": r"-?(?:0|[1-9]\d{0,14}+)",
    "float": r"-?(?:0|[1-9]\d{0,14}+)(?:\.\d{1,25}+)?(?:e[+-]?\d{1,2})?",
}
# the ids come first, then the time: their places among the pieces between quotes
_PLAIN_IDS, _PLAIN_TS = (4, 8, 12), 15


def milliseconds(ms: int) -> str:
    """An interval literal.

    >>> milliseconds(86_401_500)
    "INTERVAL '1 00:00:01.500' DAY(3) TO SECOND(3)"
    """
    seconds, rest = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours:02d}:{minutes:02d}:{seconds:02d}.{rest:03d}"
    return f"INTERVAL '{days} {clock}' DAY(3) TO SECOND(3)"


def source_table(entrance: Entrance, settings: Settings) -> str:
    """The topic as a table of bytes with the time at which each record takes effect.

    The watermark stays a millisecond behind what may still come: rows at the watermark are late.
    """
    slack = settings.flink.out_of_orderness_ms
    text = "CAST(record AS STRING)"
    if entrance.topic == IMPRESSIONS:
        # REGEXP_EXTRACT would compile its pattern for each record, COALESCE compute all it is given
        stamp = (
            f"TRY_CAST(CASE WHEN {text} NOT LIKE '{{%' OR {text} LIKE '%{{%{{%'"
            f" OR {text} LIKE '%\\%' THEN JSON_VALUE({text}, '$.ts')"
            f" ELSE REGEXP_EXTRACT_ALL({text}, '{_FLAT_TIME}', 1)[1] END AS BIGINT)"
        )
        time = (
            f"CASE WHEN {stamp} BETWEEN {_KNOWN} - {slack} AND {_KNOWN}"
            f"\n    THEN TO_TIMESTAMP_LTZ({stamp}, 3) ELSE `timestamp` END"
        )
    else:
        time = "`timestamp`"
    return f"""CREATE TEMPORARY TABLE {entrance.topic} (
  record BYTES,
  `partition` INT METADATA VIRTUAL,
  `offset` BIGINT METADATA VIRTUAL,
  `timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL,
  text AS {text},
  et AS {time},
  WATERMARK FOR et AS CASE WHEN {_is_mark(text)}
    THEN `timestamp` - {milliseconds(slack + 1)} END
) WITH (
  'connector' = 'kafka',
  'topic' = '{settings.topic(entrance.topic)}',
  'properties.bootstrap.servers' = '{settings.kafka.bootstrap}',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'raw'
)"""


def _is_mark(text: str) -> str:
    return f"{text} LIKE '{{\"time_mark\":%' AND REGEXP({text}, '{_MARK}')"


def checked_view(entrance: Entrance, settings: Settings) -> str:
    """The records with their fields, and ``reason`` why one is refused (null: it is not).

    ``known`` is the record timestamp in milliseconds. The order of the reasons is that of the
    Python decoder.
    """
    fields = [(c.name, c.name) for c in entrance.columns] + [("ts", "ts")]
    plain = _plain_texts(entrance)
    texts = ",\n  ".join(
        f"CASE WHEN pieces IS NOT NULL THEN {plain.get(key, 'CAST(NULL AS STRING)')}"
        f" WHEN {_may_hold(key)} THEN JSON_STRING(v['{key}']) END AS t_{name}"
        for name, key in fields
    )
    # Flink's parser stops behind the first value; where the first brace that closes is not the
    # last character, the record is parsed again as the only element of a list
    whole = (
        "(CHAR_LENGTH(text) = POSITION('}' IN text)"
        " OR TRY_PARSE_JSON('[' || text || ']')[1] IS NOT NULL"
        " AND TRY_PARSE_JSON('[' || text || ']')[2] IS NULL)"
    )
    values = ",\n  ".join(f"{_value(c)} AS `{c.name}`" for c in entrance.kept)
    is_plain = f"REGEXP(text, '{entrance.plain}')"
    return f"""CREATE TEMPORARY VIEW {entrance.topic}_parsed AS
SELECT record, `partition`, `offset`, {_KNOWN} AS known, text, et,
  {_is_mark("text")} AS is_mark,
  CASE WHEN {is_plain} THEN SPLIT(text, '"') END AS pieces,
  TRY_PARSE_JSON(CASE WHEN {is_plain} THEN CAST(NULL AS STRING)
    WHEN text LIKE '{{%' OR REGEXP(text, '^\\s*\\{{') THEN text END) AS v
FROM {entrance.topic};

CREATE TEMPORARY VIEW {entrance.topic}_fields AS
SELECT record, `partition`, `offset`, known, window_time AS et, is_mark,
  pieces IS NOT NULL AS is_plain,
  v IS NOT NULL AND {whole}
    AND ENCODE(DECODE(record, 'UTF-8'), 'UTF-8') = record AS sound,
  {texts}
FROM {computed_once(f"{entrance.topic}_parsed")};

CREATE TEMPORARY VIEW {entrance.topic}_typed AS
SELECT *, TRY_CAST(t_ts AS BIGINT) AS ts,
  1000 * EXTRACT(EPOCH FROM et) + EXTRACT(MILLISECOND FROM et) AS `at`
FROM {entrance.topic}_fields;

CREATE TEMPORARY VIEW {entrance.topic}_checked AS
SELECT record, `partition`, `offset`, known, window_time AS et, ts, `at`, is_mark,
  {values},
  CASE
    WHEN is_mark THEN CAST(NULL AS STRING)
    WHEN {_reasons(entrance, settings)}
    WHEN window_time <= CURRENT_WATERMARK(window_time) THEN 'late'
  END AS reason
FROM {computed_once(f"{entrance.topic}_typed")}"""


def computed_once(view: str, time: str = "et") -> str:
    """The rows of a view whose expressions are not copied into what reads them.

    ``window_time`` is then the time attribute, of the value that ``time`` had.
    """
    return f"TABLE(TUMBLE(TABLE {view}, DESCRIPTOR({time}), INTERVAL '0.001' SECOND))"


def _reasons(entrance: Entrance, settings: Settings) -> str:
    required = [c.name for c in entrance.columns if c.required] + ["ts"]
    missing = " OR ".join(f"COALESCE(t_{name}, 'null') = 'null'" for name in required)
    wrong = " OR ".join(_wrong(c) for c in (*entrance.columns, Column("ts", "int")))
    ids = " OR ".join(_bad_id(c) for c in entrance.columns if c.type == "id")
    flink = settings.flink
    cases = [
        ("NOT is_plain AND NOT COALESCE(sound, FALSE)", "malformed_json"),
        (f"NOT is_plain AND ({missing})", "missing_field"),
        (f"NOT is_plain AND ({wrong})", "wrong_type"),
        (f"NOT is_plain AND ({ids})", "bad_id"),
        ("ts < 0", "time_negative"),
        (f"ts < {SECONDS_LIMIT}", "time_in_seconds"),
        (f"ts > {MAX_TIME_MS} OR ts > known + {flink.max_ahead_ms}", "time_in_future"),
        (f"ts < known - {flink.max_late_ms}", "too_late"),
    ]
    if entrance.topic == CLICKS:
        kinds = ", ".join(literal(kind) for kind in settings.log.actions)
        action = next(c for c in entrance.columns if c.name == "action")
        cases.append(
            (f"COALESCE({_value(action)}, '{DEFAULT_ACTION}') NOT IN ({kinds})", "unknown_action")
        )
    return "\n    WHEN ".join(f"{condition} THEN '{reason}'" for condition, reason in cases)


def literal(text: str) -> str:
    """A text as SQL writes it."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


def _may_hold(key: str) -> str:
    """Whether a key may be in the text; quick, for an underscore would be a wildcard."""
    return f"text LIKE '%\"{key.partition('_')[0]}%'"


def _plain_texts(entrance: Entrance) -> dict[str, str]:
    """Where the text of each column is in a plain record, strings without their quotes."""
    required = [c.name for c in entrance.columns if c.required]
    texts = {name: f"pieces[{place}]" for name, place in zip(required, _PLAIN_IDS, strict=True)}
    # a colon before it and a comma or brace behind
    texts["ts"] = f"SUBSTRING(pieces[{_PLAIN_TS}], 2, CHAR_LENGTH(pieces[{_PLAIN_TS}]) - 2)"
    for column in entrance.kept:
        if column.type in _PLAIN and not column.required:
            # strings hold no quotes, so the key is nowhere else
            key = f'"{column.name}":'
            rest = f"SPLIT_INDEX(text, '{key}', 1)"
            value = (
                f"SPLIT_INDEX({rest}, '\"', 1)"
                if column.sql_type == "STRING"
                else f"TRIM(TRAILING '}}' FROM SPLIT_INDEX({rest}, ',', 0))"
            )
            texts[column.name] = f"CASE WHEN {_may_hold(column.name)} THEN {value} END"
    return texts


def _wrong(column: Column) -> str:
    text = f"t_{column.name}"
    wrong = {
        "id": f"{text} NOT LIKE '\"%'",
        "text": f"{text} NOT LIKE '\"%'",
        # a number beyond a double; outside of texts, which are blanked first
        "object": f"{text} NOT LIKE '{{%' OR {text} LIKE '%Infinity%'"
        f" AND REGEXP_REPLACE({text}, '{_TEXT}', '') LIKE '%Infinity%'",
        "int": f"{text} LIKE '\"%' OR {text} LIKE '%.%' OR TRY_CAST({text} AS BIGINT) IS NULL",
        "float": f"{text} LIKE '\"%' OR TRY_CAST({text} AS DOUBLE) IS NULL"
        f" OR ABS(TRY_CAST({text} AS DOUBLE)) > {_LARGEST}",
    }[column.type]
    return f"({text} IS NOT NULL AND {text} <> 'null' AND ({wrong}))"


def _bad_id(column: Column) -> str:
    text = f"t_{column.name}"
    # the two quotes count; only what is longer than a quarter can be too long in UTF-8
    return (
        f"({text} = '\"\"' OR CHAR_LENGTH({text}) > {MAX_ID_BYTES // 4}"
        f" AND CHAR_LENGTH(HEX({_unquoted(text)})) > {2 * MAX_ID_BYTES})"
    )


def _unquoted(text: str) -> str:
    return (
        f"CASE WHEN POSITION('\\' IN {text}) > 0 THEN JSON_UNQUOTE({text})"
        f" ELSE SUBSTRING({text}, 2, CHAR_LENGTH({text}) - 2) END"
    )


def _value(column: Column) -> str:
    text = f"t_{column.name}"
    if column.type == "object":
        return f"CASE WHEN {text} LIKE '{{%' THEN {text} END"
    if column.sql_type == "STRING":
        return f"CASE WHEN is_plain THEN {text} WHEN {text} <> 'null' THEN {_unquoted(text)} END"
    return f"TRY_CAST({text} AS {column.sql_type})"
