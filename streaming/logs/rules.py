"""Rules and expressions over the columns of a file: a safe part of SQL.

DuckDB parses and runs them. Comparisons, AND/OR/NOT, IN, BETWEEN, LIKE, CASE, CAST, arithmetic and
a list of plain functions are allowed; queries, windows, aggregates and functions that are not
deterministic are not.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from settings.errors import ConfigurationError

# fmt: off
_FUNCTIONS = frozenset({
    "+", "-", "*", "/", "//", "%", "**", "^", "||", "~~", "!~~", "~~*", "!~~*", "abs", "ceil",
    "ceiling", "floor", "round", "sign", "sqrt", "ln", "log", "log10", "log2", "exp", "pow",
    "power", "greatest", "least", "coalesce", "ifnull", "nullif", "lower", "upper", "trim", "ltrim",
    "rtrim", "length", "len", "substr", "substring", "left", "right", "replace", "concat",
    "concat_ws", "contains", "starts_with", "ends_with", "prefix", "suffix", "split_part",
    "string_split", "str_split", "regexp_matches", "regexp_extract", "regexp_extract_all",
    "regexp_replace", "lpad", "rpad", "reverse", "strpos", "list_contains", "list_has",
    "array_contains", "list_extract", "array_extract", "list_value", "list_filter", "strptime",
    "try_strptime", "strftime", "epoch", "epoch_ms", "date_part", "date_trunc", "year", "month",
    "day", "hour", "minute", "second", "dayofweek", "isodow", "to_timestamp", "make_timestamp",
    "md5", "isnan", "isfinite", "if", "struct_extract", "json_extract_string", "flatten",
    "list_distinct",
})
_CLASSES = frozenset({
    "COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "FUNCTION", "CASE", "CAST",
    "BETWEEN", "TYPE",
})
# fmt: on


def columns_of(rule: str, place: str) -> list[str]:
    """The columns that a rule reads, in order.

    Args:
        rule: the expression.
        place: its key in the TOML, for errors.

    Raises:
        ConfigurationError: it is not an expression, or does more than read columns.

    >>> columns_of("rating > 3 AND kind IN ('a', 'b')", "events.click")
    ['rating', 'kind']
    """
    connection = duckdb.connect()
    try:
        (text,) = connection.execute(
            "SELECT json_serialize_sql(?)", [f"SELECT ({rule}\n)"]
        ).fetchone() or ("{}",)
    except duckdb.Error as error:
        raise ConfigurationError(f"{place}: {rule!r} cannot be parsed: {error}") from error
    finally:
        connection.close()
    parsed = json.loads(text)
    if parsed.get("error"):
        raise ConfigurationError(
            f"{place}: {rule!r} is not a rule over columns ({parsed.get('error_message')}); write"
            " for instance rating > 3 or action = 'buy'"
        )
    statements = parsed["statements"]
    node = statements[0]["node"]
    plain = (
        len(statements) == 1
        and node["type"] == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not node["where_clause"]
        and not node["modifiers"]
    )
    if not plain:
        raise ConfigurationError(f"{place}: {rule!r} must be one expression over columns")
    found: dict[str, None] = {}
    for one in _expressions(node["select_list"][0]):
        kind = one["class"]
        if kind not in _CLASSES:
            raise ConfigurationError(
                f"{place}: {rule!r} holds a {kind.lower()}: a rule reads the columns of its row"
            )
        if kind == "FUNCTION" and one["function_name"].lower() not in _FUNCTIONS:
            raise ConfigurationError(
                f"{place}: {rule!r} calls {one['function_name']}, which is not one of the functions"
                f" for rules: {', '.join(sorted(f for f in _FUNCTIONS if f[0].isalpha()))}"
            )
        if kind == "COLUMN_REF":
            found[".".join(one["column_names"])] = None
    return list(found)


def check_columns(wanted: Collection[str], there: Collection[str], place: str, file: str) -> None:
    """Check that a file has these columns.

    Raises:
        ConfigurationError: a column is missing; names the nearest.
    """
    for column in wanted:
        if column in there:
            continue
        near = difflib.get_close_matches(column, there, 1)
        cure = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(there)[:600]}"
        raise ConfigurationError(f"{place}: {file} has no column {column!r}; {cure}")


def quoted(name: str) -> str:
    """A column's name in SQL.

    >>> quoted("my column")
    '"my column"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def _expressions(node: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - parsed JSON
    if isinstance(node, dict):
        if "class" in node and "type" in node:
            yield node
        for child in node.values():
            yield from _expressions(child)
    elif isinstance(node, list):
        for child in node:
            yield from _expressions(child)
