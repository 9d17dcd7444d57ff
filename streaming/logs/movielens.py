"""MovieLens 100K and 1M.

A rating is an impression, and a click too if it is over 3; ratings of 3 are left out, as in the
IntTower paper. The files come in three forms: those of GroupLens for 100K (``u.data``, tabs) and 1M
(``ratings.dat``, double colons), and RecBole's form of 100K (``ml-100k.inter``, tabs and a header).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from settings.errors import LogFileError
from streaming.events import Entity
from streaming.logs.outcomes import Coded, OutcomeLog
from streaming.logs.text_tables import Int64Array, IntegerColumn, read_integers, read_rows

_NEUTRAL = 3
_BIGGEST_ID = 10_000_000
# MovieLens began in 1995; a time cut short by a digit lies far below
_TIMES = (788_918_400, 4_102_444_800)
_COLUMNS = (
    IntegerColumn("user id", 1, _BIGGEST_ID),
    IntegerColumn("movie id", 1, _BIGGEST_ID),
    IntegerColumn("rating", 1, 5),
    IntegerColumn("timestamp", *_TIMES),
)
# 1M knows ages as these classes only, each named by its lower end
_AGE_CLASSES = (1, 18, 25, 35, 45, 50, 56)
# fmt: off
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)
# fmt: on
_TITLE_YEAR = re.compile(r"\((\d{4})\)")


class MovieLens(OutcomeLog):
    """A MovieLens log in memory; see :class:`streaming.logs.EventLog`.

    Args:
        name: what the log is called.
        ratings: [n, 4] user id, movie id, rating, seconds; any order.
        items: the films.
        users: the raters.
    """

    declaration = "movielens"

    def __init__(
        self, name: str, ratings: Int64Array, items: list[Entity], users: list[Entity]
    ) -> None:
        self.name = name
        self._items = items
        self._users = users
        opinions = ratings[ratings[:, 2] != _NEUTRAL]
        if not len(opinions):
            raise LogFileError(f"{name} holds no ratings other than {_NEUTRAL}")
        user, item, rating, seconds = opinions.T
        super().__init__(_coded(user), _coded(item), seconds, rating > _NEUTRAL)

    @classmethod
    def ml_100k(cls, folder: Path) -> MovieLens:
        """Read 100K from a folder, in GroupLens's form or RecBole's, whichever is there.

        Raises:
            LogFileError: a file is missing or broken.
        """
        if (folder / "ml-100k.inter").exists():
            return cls._recbole(folder)
        ratings = read_integers(folder / "u.data", _COLUMNS, separator="\t")
        return cls(
            "ml-100k",
            ratings,
            list(_items_100k(folder / "u.item")),
            list(_users_100k(folder / "u.user")),
        )

    @classmethod
    def _recbole(cls, folder: Path) -> MovieLens:
        ratings = read_integers(folder / "ml-100k.inter", _COLUMNS, separator="\t", header=1)
        return cls(
            "ml-100k",
            ratings,
            list(_items_recbole(folder / "ml-100k.item")),
            list(_users_recbole(folder / "ml-100k.user")),
        )

    @classmethod
    def ml_1m(cls, folder: Path) -> MovieLens:
        """Read 1M from a folder.

        Raises:
            LogFileError: a file is missing or broken.
        """
        ratings = read_integers(folder / "ratings.dat", _COLUMNS, separator="::")
        return cls(
            "ml-1m",
            ratings,
            list(_items_1m(folder / "movies.dat")),
            list(_users_1m(folder / "users.dat")),
        )

    def items(self) -> Iterator[Entity]:
        """The films: title, genres, year and decade of release."""
        return iter(self._items)

    def users(self) -> Iterator[Entity]:
        """The raters: gender, age class, occupation."""
        return iter(self._users)


def age_class(years: int) -> str:
    """The class of 1M that an age falls in, so that both logs say it alike.

    >>> age_class(17), age_class(24), age_class(73)
    ('1', '18', '56')
    """
    return str(_AGE_CLASSES[max(0, bisect_right(_AGE_CLASSES, years) - 1)])


def _coded(ids: Int64Array) -> Coded:
    """Coded in the order of the numbers, not of their texts."""
    known, codes = np.unique(ids, return_inverse=True)
    return Coded(codes.astype(np.int32), [str(i) for i in known.tolist()])


def _film(item_id: str, title: str, genres: list[str], year: str | None) -> Entity:
    attributes: dict[str, str | list[str]] = {"title": title, "genres": genres}
    if year is not None:
        attributes["year"] = year
        attributes["decade"] = f"{year[:3]}0s"
    return Entity(id=item_id, attributes=attributes)


def _year_of(title: str) -> str | None:
    found = _TITLE_YEAR.findall(title)
    return str(found[-1]) if found else None


_ID = re.compile(r"[1-9][0-9]*")
_NUMBER = re.compile(r"[0-9]+")
_FLAG = re.compile(r"[01]")
_GENDER = re.compile(r"[FM]")
_DATE = re.compile(r"([0-9]{1,2}-[A-Z][a-z]{2}-[0-9]{4})?")


@dataclass(frozen=True, slots=True)
class _Line:
    """Where a cell is, for the message if it is not what its column holds."""

    path: Path
    number: int

    def checked(self, column: str, cell: str, form: re.Pattern[str], what: str) -> str:
        """The cell, if it has this form."""
        if form.fullmatch(cell) is None:
            raise LogFileError(
                f"{self.path}, line {self.number}, column {column}: {cell[:40]!r} is not {what}"
            )
        return cell

    def id(self, column: str, cell: str) -> str:
        return self.checked(column, cell, _ID, "an id (a whole number)")


def _items_100k(path: Path) -> Iterator[Entity]:
    before_genres = 5
    rows = read_rows(path, before_genres + len(_GENRES_100K), separator="|", encoding="latin-1")
    for number, cells in rows:
        line = _Line(path, number)
        flags = zip(_GENRES_100K, cells[before_genres:], strict=True)
        genres = [name for name, f in flags if line.checked(name, f, _FLAG, "0 or 1") == "1"]
        date = line.checked("release date", cells[2], _DATE, "a date such as 01-Jan-1995")
        # the release date is at times that of the video, so the title's year comes first
        year = _year_of(cells[1]) or date[-4:] or None
        yield _film(line.id("movie id", cells[0]), cells[1], genres, year)


def _items_1m(path: Path) -> Iterator[Entity]:
    rows = read_rows(path, 3, separator="::", encoding="latin-1")
    for number, (item_id, title, genres) in rows:
        _Line(path, number).id("movie id", item_id)
        yield _film(item_id, title, genres.split("|"), _year_of(title))


def _items_recbole(path: Path) -> Iterator[Entity]:
    rows = read_rows(path, 4, separator="\t", encoding="utf-8", header=1)
    for number, (item_id, title, year, genres) in rows:
        _Line(path, number).id("item_id", item_id)
        yield _film(item_id, title, genres.split(), year if year.isdecimal() else None)


def _users_100k(path: Path) -> Iterator[Entity]:
    return _users_with_years(path, read_rows(path, 5, separator="|", encoding="latin-1"))


def _users_recbole(path: Path) -> Iterator[Entity]:
    rows = read_rows(path, 5, separator="\t", encoding="utf-8", header=1)
    return _users_with_years(path, rows)


def _users_with_years(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Entity]:
    for number, (user_id, age, gender, occupation, _) in rows:
        line = _Line(path, number)
        years = line.checked("age", age, _NUMBER, "a number of years")
        yield _rater(line, user_id, gender, age_class(int(years)), occupation)


def _users_1m(path: Path) -> Iterator[Entity]:
    rows = read_rows(path, 5, separator="::", encoding="latin-1")
    for number, (user_id, gender, age, occupation, _) in rows:
        line = _Line(path, number)
        line.checked("age", age, _NUMBER, "the first year of an age class")
        line.checked("occupation", occupation, _NUMBER, "the number of an occupation")
        yield _rater(line, user_id, gender, age, occupation)


def _rater(line: _Line, user_id: str, gender: str, age: str, occupation: str) -> Entity:
    attributes: dict[str, str | list[str]] = {
        "gender": line.checked("gender", gender, _GENDER, "F or M"),
        "age": age,
        "occupation": occupation,
    }
    return Entity(id=line.id("user id", user_id), attributes=attributes)
