"""The TOML file that declares a log: its keys, checked, and its JSON Schema.

One file says where the rows are, which columns mean what, what counts as a positive, how long an
action may come after its impression, and what is known of users and items. The smallest:

    name = "films"
    [events]
    files = "ratings.csv"
    user = "userId"
    item = "movieId"
    time = {column = "timestamp", unit = "s"}
    click = "rating > 3"

It is one file because it is one table of keys: who writes a TOML reads it from top to bottom.
"""

from __future__ import annotations

import re
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from settings.section import Section

Unit = Literal["s", "ms", "us", "ns"]
AttributeKind = Literal["category", "set", "number", "text", "vector", "info"]
ContextKind = Literal["category", "set", "number"]

# the kind of an action that names none
CLICK = "click"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)")
_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


class TimeColumn(Section):
    """The column of the time and its format."""

    column: str = Field(description="the column")
    unit: Unit | None = Field(None, description="of a number since 1970: s, ms, us or ns")
    format: str | None = Field(
        None, description="strptime pattern of a text, such as %d/%m/%Y %H:%M; none: ISO 8601"
    )
    zone: str = Field("UTC", description="time zone of texts that name none, as Europe/Paris")

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(
                f"no time zone {value!r}: take a name such as Europe/Paris or UTC"
            ) from error
        return value

    @model_validator(mode="after")
    def _one_form(self) -> TimeColumn:
        if self.unit is not None and self.format is not None:
            raise ValueError("give unit (of a number) or format (of a text), not both")
        return self


class TableFiles(Section):
    """Files of one table: CSV, JSON lines or Parquet, gzipped or not."""

    files: str | list[str] = Field(
        description="path or glob, or several; relative to --path, else to the folder of this file"
    )
    format: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="none: by the files' names"
    )
    separator: str | None = Field(None, description="of CSV columns; none: found in the first line")
    quote: str = Field('"', description="CSV quote; empty: quotes mean nothing")
    header: bool | None = Field(
        None, description="whether a CSV's first line names the columns; none: found out"
    )
    columns: list[str] | None = Field(None, description="names of a CSV's columns, in order")
    encoding: str = Field("utf-8", description="of a CSV: utf-8, latin-1 or utf-16")
    null: list[str] = Field([""], description="texts that mean a missing value")
    where: str | None = Field(None, description="a rule: only rows for which it holds are read")
    derive: dict[str, str] = Field(
        {}, description="new columns by name: an expression over the columns, which are texts in it"
    )

    @field_validator("separator")
    @classmethod
    def _separator(cls, value: str | None) -> str | None:
        if value is not None and not 1 <= len(value.encode()) <= 4:
            raise ValueError("a separator has 1 to 4 bytes")
        return value

    @field_validator("quote")
    @classmethod
    def _quote(cls, value: str) -> str:
        if len(value) > 1:
            raise ValueError("a quote is one character, or empty for none")
        return value

    @property
    def patterns(self) -> list[str]:
        """The files as a list."""
        return [self.files] if isinstance(self.files, str) else self.files


class ShownList(Section):
    """A row is a request: the items shown lie in one list."""

    shown: str = Field(description="column of the items: a list, or a text that is split")
    clicked: str | None = Field(
        None, description="column of the clicked items: a list, a text that is split, or one item"
    )
    separator: str = Field(" ", description="between two entries of a text")
    mark: str | None = Field(
        None, description="in a text, what parts an item from its 1 or 0: '-' in N1-1 N2-0"
    )
    position: bool = Field(False, description="the order of the list is the place on the page")
    each: dict[str, str] = Field(
        {}, description="context field by name: column of a list as long as the shown one"
    )

    @model_validator(mode="after")
    def _one_outcome(self) -> ShownList:
        if (self.clicked is None) == (self.mark is None):
            raise ValueError(
                "say which were clicked: 'clicked' (a column) or 'mark' (as '-' in N1-1 N2-0)"
            )
        return self


class ContextColumn(Section):
    """A field of the request's context."""

    column: str = Field(description="its column")
    kind: ContextKind | None = Field(
        None, description="none: a number if it has many different numbers, else a category"
    )
    separator: str = Field("|", description="between the values of a set")


class EventFiles(TableFiles):
    """The rows of what was shown (or, with [negatives], of the clicks)."""

    user: str = Field(description="column of the user's id")
    item: str | None = Field(None, description="column of the item's id; not with a list")
    time: str | TimeColumn = Field(description="column of the time, or a table with its unit")
    arrival: str | TimeColumn | None = Field(
        None, description="column of the time at which the event arrived; none: at its own time"
    )
    click: str | None = Field(
        None, description="rule for a click, over the columns: rating > 3, clk = 1"
    )
    request: str | None = Field(None, description="column that says what was shown together")
    position: str | None = Field(None, description="column of the place on the page")
    propensity: str | None = Field(None, description="column of the logged probability")
    context: list[str] | dict[str, str | ContextColumn] = Field(
        [], description="columns that describe the request: device, tab, hour"
    )
    lists: ShownList | None = Field(None, description="a row holds many items")

    @model_validator(mode="after")
    def _item_or_list(self) -> EventFiles:
        if (self.item is None) == (self.lists is None):
            raise ValueError("name 'item' (a row is one item) or [events.lists] (a row is many)")
        return self

    @property
    def fields(self) -> dict[str, ContextColumn]:
        """Context fields by name."""
        if isinstance(self.context, dict):
            return {
                name: ContextColumn(column=one) if isinstance(one, str) else one
                for name, one in self.context.items()
            }
        return {name: ContextColumn(column=name) for name in self.context}


class FeedbackFiles(TableFiles):
    """Actions that lie apart from what was shown."""

    item: str = Field(description="column of the item's id")
    user: str = Field(description="column of the user's id")
    time: str | TimeColumn = Field(description="column of the action's time")
    arrival: str | TimeColumn | None = Field(
        None, description="column of the time at which it arrived; none: at its own time"
    )
    request: str | None = Field(
        None, description="column of the request; none: joined by user, item and time"
    )
    kind: str | None = Field(None, description="column of the kind; none: all are clicks")
    value: str | None = Field(None, description="column of a number that comes with the action")


class ActionRule(Section):
    """One kind of action."""

    when: str | None = Field(None, description="rule over the columns of [events]")
    label: Literal[1, 0, "none"] = Field(
        1, description="1: a positive; 0: a negative (hide); none: for features only"
    )
    weight: float = Field(1.0, gt=0, description="of a sample with this label")
    time: str | TimeColumn | None = Field(
        None, description="column of its time; none: the row's own"
    )
    value: str | None = Field(None, description="column of a number that comes with it")


class SampledNegatives(Section):
    """The log holds clicks only: what was not clicked is drawn from the items seen so far."""

    per_click: int = Field(4, ge=1, le=100, description="negatives a click")
    power: float = Field(
        0.75, ge=0, le=1, description="an item is drawn by clicks ** power; 0: all alike"
    )
    seed: int = 0


class AttributeColumn(Section):
    """One attribute of a user or an item."""

    kind: AttributeKind = Field("category", description="how it is read")
    column: str | None = Field(None, description="its column; none: the attribute's name")
    separator: str = Field("|", description="between the values of a set or a vector in a text")


class CatalogueFiles(Section):
    """What is known of users or items."""

    files: str | list[str] | None = Field(
        None, description="path or glob; none: the first row of [events] that names it"
    )
    id: str | None = Field(None, description="column of the id; none: that of [events]")
    optional: bool = Field(False, description="go without, with a warning, if no file is there")
    format: Literal["csv", "jsonl", "parquet"] | None = None
    separator: str | None = None
    quote: str = '"'
    header: bool | None = None
    columns: list[str] | None = None
    encoding: str = "utf-8"
    null: list[str] = Field([""])
    where: str | None = None
    derive: dict[str, str] = Field({})
    attributes: dict[str, AttributeKind | AttributeColumn] = Field(
        description="attribute by name: category, set, number, text, vector, info (for people,"
        " never a feature), or a table"
    )

    @property
    def table(self) -> TableFiles | None:
        """Its files, if it has any of its own."""
        if self.files is None:
            return None
        own = self.model_dump(exclude={"id", "optional", "attributes"})
        return TableFiles(**own)

    @property
    def fields(self) -> dict[str, AttributeColumn]:
        """Attributes by name, each with its column."""
        found = {}
        for name, one in self.attributes.items():
            field = AttributeColumn(kind=one) if isinstance(one, str) else one
            found[name] = field.model_copy(update={"column": field.column or name})
        return found


class FeatureLine(Section):
    """One more streaming feature, and the number that a tower reads of it."""

    of: Literal["user", "item"] = Field(description="whose it is")
    events: Literal["impression", "click"] = Field("impression", description="which events count")
    what: Literal["count", "first", "last", "rate"] = Field(
        "count", description="count of events; time of the first or last; clicks an impression"
    )
    window: str | None = Field(None, description="only events of the last 10min, 1h, 7d; of users")

    @model_validator(mode="after")
    def _computable(self) -> FeatureLine:
        if self.window is not None:
            duration_ms(self.window)
            if self.of == "item":
                raise ValueError(
                    "a window of an item: a published item vector cannot know when it has passed;"
                    " take the window off, or count by user"
                )
        if self.of == "item" and self.what in {"first", "last"}:
            raise ValueError(
                "a time of an item: a published item vector cannot know the time of the request"
            )
        return self


class FeatureChanges(Section):
    """Changes to the features that are generated from what the log has."""

    remove: list[str] = Field([], description="names of generated features that are left out")
    add: dict[str, FeatureLine] = Field({}, description="further features by name")


class LogFile(Section):
    """A whole log. ``folder`` is what relative paths start from; it is no key of the file."""

    name: str = Field(description="what the log is called: letters, digits, dot and dash")
    attribution: str | None = Field(
        None,
        description="how long after its impression an action counts: 30min, 1d; none: half a second"
        " where actions have their row's own time, else an hour",
    )
    wait: str | None = Field(
        None,
        description="how long after its impression a sample is learnt, at most the attribution"
        " window; a later action corrects it; none: the attribution window, a minute at most",
    )
    max_bad_share: float = Field(
        0.01, ge=0, le=1, description="share of the rows that may be unreadable"
    )
    results: list[str] = Field(
        [], description="columns that are known after the action only: never a feature"
    )
    events: EventFiles
    feedback: FeedbackFiles | None = None
    actions: dict[str, ActionRule] = Field({}, description="kinds of action by name")
    negatives: SampledNegatives | None = None
    items: CatalogueFiles | None = None
    users: CatalogueFiles | None = None
    features: FeatureChanges = FeatureChanges()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("a name has lower-case letters, digits, dots, dashes and underscores")
        return value

    @field_validator("attribution", "wait")
    @classmethod
    def _some_time(cls, value: str | None) -> str | None:
        if value is not None:
            duration_ms(value)
        return value

    @model_validator(mode="after")
    def _wait_within_attribution(self) -> LogFile:
        if self.wait_ms is not None and self.wait_ms > self.attribution_ms:
            raise ValueError(
                f"wait = {self.wait!r} is longer than the attribution window"
                f" ({self.attribution or f'{self.attribution_ms}ms'}), when every label is known:"
                " shorten it, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _some_outcome(self) -> LogFile:
        said = self.events.click or self.events.lists or self.feedback or self.negatives
        if not said and not any(rule.when for rule in self.actions.values()):
            raise ValueError(
                "nothing says what a click is: give events.click (a rule such as 'rating > 3'),"
                " [events.lists], [feedback], or [negatives] if each row is a click"
            )
        if self.events.click and self.actions.get(CLICK, ActionRule()).when:
            raise ValueError("events.click and actions.click.when say the same: keep one")
        if self.negatives and self.events.arrival:
            raise ValueError(
                "events.arrival does not go with [negatives], which are drawn at the click's own"
                " time: take one of them away"
            )
        if self.negatives and (self.events.lists or self.events.click or self.feedback):
            raise ValueError(
                "[negatives] is for logs of clicks only: take events.click, [events.lists] or"
                " [feedback] away, or [negatives]"
            )
        return self

    @property
    def kinds(self) -> dict[str, ActionRule]:
        """All kinds of action, with the click that the shape implies."""
        found = dict(self.actions)
        if self.events.click:
            found[CLICK] = found.get(CLICK, ActionRule()).model_copy(
                update={"when": self.events.click}
            )
        elif self.events.lists or self.negatives or (self.feedback and not found):
            found.setdefault(CLICK, ActionRule())
        return found

    @property
    def attribution_ms(self) -> int:
        """How long after its impression an action counts."""
        if self.attribution is not None:
            return duration_ms(self.attribution)
        later = self.feedback or any(rule.time for rule in self.kinds.values())
        # an action with its row's own time comes at once: half a second keeps seconds apart
        return 3_600_000 if later else 500

    @property
    def wait_ms(self) -> int | None:
        """How long after its impression a sample is learnt; None: the settings' default."""
        return None if self.wait is None else duration_ms(self.wait)


def duration_ms(text: str) -> int:
    """A length of time in milliseconds.

    Raises:
        ValueError: it is none.

    >>> duration_ms("1.5h"), duration_ms("500ms")
    (5400000, 500)
    """
    found = _DURATION.fullmatch(text.strip())
    if not found or not (length := round(float(found[1]) * _MS[found[2]])):
        raise ValueError(f"{text!r} is no length of time: write 500ms, 30min, 1h or 1d")
    return length


def time_column(time: str | TimeColumn) -> TimeColumn:
    """A column's bare name as the whole declaration."""
    return TimeColumn(column=time) if isinstance(time, str) else time
