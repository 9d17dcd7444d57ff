"""SQL that matches actions with impressions, in whatever order they arrive.

An action belongs to an impression of the same user and item (and request, if it names one) whose
attribution window holds the action's own time; of several to the latest. It takes effect when it
arrives, or when its impression does, if that comes later. The stages:

1. ``touches``: accepted impressions and actions as one line of text each, so that what must be
   remembered for hours is small.
2. ``touches_known``: with each, all others of that user and item that are known.
3. ``impressions_once``: of equal impressions the first counts.
4. ``meetings``: each action with each impression that fits, when the later of the two arrives.
5. ``actions_once``: of an action's meetings the first counts, and of the actions of a kind on an
   impression the first.
6. ``actions_unmatched``: each action once more at its deadline, when no impression of it can come
   any more, if it met none.

What is remembered is dropped by event time, so that a run gives the same after any crash.
"""

from __future__ import annotations

from features.sql_entrance import computed_once, milliseconds
from settings.log_settings import DEFAULT_ACTION
from settings.settings import Settings

# a text of fixed width for the place of a record
PLACE_DIGITS = (5, 16)
PLACE = (
    f"LPAD(CAST(`partition` AS STRING), {PLACE_DIGITS[0]}, '0')"
    f" || LPAD(CAST(`offset` AS STRING), {PLACE_DIGITS[1]}, '0')"
)
_TIME = 13
# A touch is `s<ts><at><place>:request:` or `a<ts><at><place>;request;kind;amount;record;`, with
# texts in base64, which has none of `:`, `;` and `,`
_TS_FROM, _AT_FROM, _PLACE_FROM = 2, 2 + _TIME, 2 + 2 * _TIME
_PLACE_WIDTH = sum(PLACE_DIGITS)
_HEAD = _PLACE_FROM + _PLACE_WIDTH - 1
# of an action's meetings at one time the latest impression counts, and of copies the first
_NINES = "9" * _TIME


def remembered_ms(settings: Settings) -> int:
    """How long an impression or action is remembered, in event time (ms).

    An action comes at most ``max_late_ms`` after its time, which is at most an attribution window
    after the impression's, which was known at most ``max_ahead_ms`` before.
    """
    flink = settings.flink
    return settings.log.attribution_ms + flink.max_late_ms + flink.max_ahead_ms


def matching(settings: Settings) -> list[str]:
    """The views, behind those of the entrance."""
    return [
        _touches(),
        _touches_known(settings),
        f"""CREATE TEMPORARY VIEW impressions_once AS
SELECT user_id, item_id, et, {_number("entry", _TS_FROM)} AS ts,
  {_number("entry", _AT_FROM)} AS `at`, {_place("entry")} AS place, {_is_first("entry")} AS is_first
FROM touches_known WHERE entry LIKE 's%'""",
        *_meetings(settings),
        f"""CREATE TEMPORARY VIEW actions_once AS
SELECT *, action_key = MIN(action_key) OVER (PARTITION BY impression, kind ORDER BY et
  RANGE BETWEEN {milliseconds(remembered_ms(settings))} PRECEDING AND CURRENT ROW) AS is_first
FROM (SELECT user_id, item_id, et, `at`, action_place, action_ts, kind, amount, record,
    impression, ts, request_id,
    LPAD(CAST(`at` AS STRING), {_TIME}, '0') || LPAD(CAST(action_known AS STRING), {_TIME}, '0')
      || action_place AS action_key
  FROM (SELECT *, MIN(rank_key) OVER (PARTITION BY action_place ORDER BY et
      RANGE BETWEEN {milliseconds(remembered_ms(settings))} PRECEDING AND CURRENT ROW) AS first_key
    FROM meetings)
  WHERE rank_key = first_key)""",
        _unmatched(settings),
    ]


def _is_first(shown: str) -> str:
    """Whether an impression is the first of its equals; the list ``known`` has that one first."""
    return (
        f"SUBSTRING(known, POSITION(SUBSTRING({shown}, {_HEAD + 1}) IN known) - {_PLACE_WIDTH},"
        f" {_PLACE_WIDTH}) = {_place(shown)}"
    )


def _number(entry: str, start: int) -> str:
    return f"CAST(SUBSTRING({entry}, {start}, {_TIME}) AS BIGINT)"


def _place(entry: str) -> str:
    return f"SUBSTRING({entry}, {_PLACE_FROM}, {_PLACE_WIDTH})"


def _touches() -> str:
    head = (
        f"LPAD(CAST(ts AS STRING), {_TIME}, '0') || LPAD(CAST(`at` AS STRING), {_TIME}, '0')"
        f" || {PLACE}"
    )
    accepted = "WHERE reason IS NULL AND NOT is_mark"
    return f"""CREATE TEMPORARY VIEW touches AS
SELECT user_id, item_id, et, 's' || {head} || ':' || TO_BASE64(request_id) || ':' AS entry
FROM impressions_checked {accepted}
UNION ALL
SELECT user_id, item_id, et, 'a' || {head} || ';' || COALESCE(TO_BASE64(request_id), '') || ';'
  || TO_BASE64(COALESCE(action, '{DEFAULT_ACTION}')) || ';'
  || COALESCE(CAST(`value` AS STRING), '') || ';' || TO_BASE64(DECODE(record, 'UTF-8')) || ';'
  AS entry
FROM clicks_checked {accepted}"""


def _touches_known(settings: Settings) -> str:
    return f"""CREATE TEMPORARY VIEW touches_known AS
SELECT *, LISTAGG(entry) OVER (PARTITION BY user_id, item_id ORDER BY et
  RANGE BETWEEN {milliseconds(remembered_ms(settings))} PRECEDING AND CURRENT ROW) AS known
FROM touches"""


def _meetings(settings: Settings) -> list[str]:
    window = settings.log.attribution_ms
    shown, acted = "shown", "acted"
    fits = (
        f"{_number(acted, _TS_FROM)} BETWEEN {_number(shown, _TS_FROM)}"
        f" AND {_number(shown, _TS_FROM)} + {window}\n"
        f"  AND SPLIT_INDEX({acted}, ';', 1) IN ('', SPLIT_INDEX({shown}, ':', 1))"
    )
    at = f"GREATEST({_number(shown, _AT_FROM)}, {_number(acted, _AT_FROM)})"
    ranked = (
        f"LPAD(CAST({at} AS STRING), {_TIME}, '0')"
        f" || LPAD(CAST({_NINES} - {_number(shown, _TS_FROM)} AS STRING), {_TIME}, '0')"
        f" || SUBSTRING({shown}, {_AT_FROM}, {_TIME}) || {_place(shown)}"
    )
    own = f"""{_place(acted)} AS action_place,
  {_number(acted, _AT_FROM)} AS action_known, {_number(acted, _TS_FROM)} AS action_ts,
  FROM_BASE64(SPLIT_INDEX({acted}, ';', 2)) AS kind,
  TRY_CAST(SPLIT_INDEX({acted}, ';', 3) AS DOUBLE) AS amount,
  {record_of(acted)} AS record"""
    return [
        # whichever of the two came later; an impression meets what came before it, an action also
        # what came with it
        f"""CREATE TEMPORARY VIEW pairs AS
SELECT user_id, item_id, et,
  CASE WHEN entry LIKE 's%' THEN entry ELSE other END AS shown,
  CASE WHEN entry LIKE 's%' THEN other ELSE entry END AS acted
FROM touches_known CROSS JOIN UNNEST(SPLIT(known, ',')) AS o (other)
WHERE entry LIKE 'a%' AND other LIKE 's%' AND {_is_first("other")}
  OR entry LIKE 's%' AND other LIKE 'a%' AND {_is_first("entry")}
    AND {_number("other", _AT_FROM)} < {_number("entry", _AT_FROM)}""",
        f"""CREATE TEMPORARY VIEW meetings AS
SELECT user_id, item_id, window_time AS et, {at} AS `at`,
  {own},
  {_place(shown)} AS impression, {_number(shown, _TS_FROM)} AS ts,
  FROM_BASE64(SPLIT_INDEX({shown}, ':', 1)) AS request_id,
  {ranked} AS rank_key
FROM {computed_once("pairs")} WHERE {fits}""",
    ]


def _unmatched(settings: Settings) -> str:
    step, waits = settings.flink.deadline_step_ms, settings.flink.deadline_ms
    frame = milliseconds(remembered_ms(settings) + waits)
    return f"""CREATE TEMPORARY VIEW actions_unmatched AS
SELECT * FROM (
  SELECT *, COUNT(CASE WHEN acted IS NULL THEN 1 END) OVER (PARTITION BY action_place ORDER BY et
    RANGE BETWEEN {frame} PRECEDING AND CURRENT ROW) AS met
  FROM (
    SELECT action_place, et, CAST(NULL AS STRING) AS acted FROM meetings
    UNION ALL
    SELECT {_place("entry")} AS action_place, window_time AS et, entry AS acted
    FROM TABLE(HOP(TABLE touches, DESCRIPTOR(et), {milliseconds(step)}, {milliseconds(waits)}))
    WHERE entry LIKE 'a%' AND et < window_start + {milliseconds(step)}))
WHERE acted IS NOT NULL AND met = 0"""


def record_of(acted: str) -> str:
    """The bytes of the record of an action, from its line of text."""
    return f"ENCODE(FROM_BASE64(SPLIT_INDEX({acted}, ';', 4)), 'UTF-8')"
