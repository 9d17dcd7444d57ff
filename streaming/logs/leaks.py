"""Columns that tell the outcome: refused as features, and suspected by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from settings.errors import ConfigurationError
from streaming.logs.log_file import LogFile
from streaming.logs.rules import columns_of

# how columns are called that are known after the action only
_SUSPECTS = re.compile(
    r"^(is_)?click(ed|s)?$|_clicked$|(^|_)(clk|nonclk|label|next|read_?time|dwell|scroll(_percentage)?|play_?time(_ms)?|"
    r"watch(_ratio|_time|ed)?|played(_ratio)?|finish(ed)?|like[ds]?|follow(ed)?|comment(ed)?|"
    r"forward(ed)?|hate[ds]?|share[ds]?|purchase[ds]?|converted|conversion|revenue|order(ed)?|"
    r"session_size|stay_time|is_positive|long_view|rating|reward)(_|$)",
    re.IGNORECASE,
)


def result_columns(log: LogFile) -> dict[str, str]:
    """Columns that hold the outcome, and the key that says so."""
    found = {}
    for name, action in log.kinds.items():
        if action.when is None:
            continue
        key = "events.click" if log.events.click and name == "click" else f"actions.{name}.when"
        for column in columns_of(action.when, key):
            found[column] = key
        if action.value is not None:
            found[action.value] = f"actions.{name}.value"
    lists = log.events.lists
    if lists is not None and lists.clicked is not None:
        found[lists.clicked] = "events.lists.clicked"
    return found | dict.fromkeys(log.results, "results")


def refuse_results(log: LogFile) -> None:
    """Refuse features that are made of the outcome.

    Raises:
        ConfigurationError: names the feature, and what its column decides.
    """
    results = result_columns(log)
    made_of = {
        name: columns_of(expression, f"events.derive.{name}")
        for name, expression in log.events.derive.items()
    }
    for key, column in _features(log):
        for one in (column, *made_of.get(column, ())):
            if one in results:
                raise ConfigurationError(
                    f"{key}: column {one!r} is a result of the action ({results[one]} reads it):"
                    " it is not known when the item is shown; remove it from the features"
                )


def suspects(log: LogFile) -> list[str]:
    """Features whose column sounds like a result of the action.

    >>> bool(_SUSPECTS.search("next_read_time")), bool(_SUSPECTS.search("device"))
    (True, False)
    """
    return [f"{key} ({column})" for key, column in _features(log) if _SUSPECTS.search(column)]


def sounds_like_result(column: str) -> bool:
    """Whether a column's name sounds like a result of the action."""
    return _SUSPECTS.search(column) is not None


def _features(log: LogFile) -> Iterable[tuple[str, str]]:
    """Keys of features and the columns of [events] that they are made of."""
    for name, field in log.events.fields.items():
        yield f"events.context.{name}", field.column
    if log.events.position:
        yield "events.position", log.events.position
    for side, catalogue in (("users", log.users), ("items", log.items)):
        if catalogue is not None and catalogue.files is None:
            for name, attribute in catalogue.fields.items():
                yield f"{side}.attributes.{name}", attribute.column or name
