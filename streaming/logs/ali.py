"""Alibaba's display advertising log: "Ali Display Ad Click", published on Tianchi.

``raw_sample.csv`` holds 26 million impressions of eight days in May 2017 and whether each was
clicked; ``ad_feature.csv`` and ``user_profile.csv`` say what the ads and users are, as of the end.

What is odd about the files:

- ``raw_sample.csv`` is not sorted by time. It has the same fact twice, ``nonclk`` and ``clk``.
- A click has the time of its impression: when it really came is not known.
- ``pid`` is the place on the page, a fact of the impression and not of the ad: it travels in the
  impression's ``context``.
- Brands may be ``NULL``, cells of a profile empty: such an attribute is not there. Some prices are
  absurd (99999999): see :mod:`streaming.logs.prices`.
- The header of ``user_profile.csv`` ends with a blank.
- ``behavior_log.csv``, 700 million rows of what the users did in the shop, has times that cannot
  be. It yields no events: its rows name a category and a brand, never an ad, so that they are
  neither impressions nor clicks; and counts of them as a profile would tell an impression what came
  after it. :func:`behaviours` reads it, for whoever wants to build more on it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streaming.events import Entity
from streaming.logs.chunks import expect_header, matching, read_chunks, read_whole, seconds, whole
from streaming.logs.outcomes import Coded, OutcomeLog
from streaming.logs.prices import parse_price
from streaming.logs.text_tables import Int64Array

log = logging.getLogger(__name__)

_SAMPLE = ("user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk")
_AD = ("adgroup_id", "cate_id", "campaign_id", "customer", "brand", "price")
# fmt: off
_PROFILE = (
    "userid", "cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level",
    "shopping_level", "occupation", "new_user_class_level",
)
# fmt: on
_BEHAVIOUR = ("user", "time_stamp", "btag", "cate", "brand")
# the days that the behaviours are said to be of, 2017-04-22 to 2017-05-13 in China
_PERIOD = (1_492_790_400, 1_494_691_200)

_id = matching(r"[0-9]{1,20}", "a number of at most 20 digits")
_known = matching(r"[0-9]{0,20}|NULL", "a number of at most 20 digits, NULL or empty")
_place = matching(r"[0-9_]{1,40}", "a place such as 430548_1007")
# the documentation says ipv, the file pv
_kind = matching("pv|ipv|cart|fav|buy", "one of pv, cart, fav, buy")
_flag = whole(0, 1)
# the file has negative times too
_any_seconds = whole(-(2**62), 2**62)


class AliDisplayAds(OutcomeLog):
    """The impressions in memory; see :class:`streaming.logs.EventLog`.

    Args:
        folder: of ``raw_sample.csv``. ``ad_feature.csv`` and ``user_profile.csv`` may lie beside
            it; without them ads and users have no attributes.

    Raises:
        LogFileError: ``raw_sample.csv`` is missing or broken, or another file's header is wrong.
    """

    name = "ali-display-ads"
    declaration = "ali"

    def __init__(self, folder: Path) -> None:
        self._ads = _optional(folder / "ad_feature.csv", _AD)
        self._profiles = _optional(folder / "user_profile.csv", _PROFILE)
        path = folder / "raw_sample.csv"
        expect_header(path, _SAMPLE)
        rows = read_whole(path, _SAMPLE, header=1)
        clicked, not_clicked = (rows.integers(name, _flag) for name in ("clk", "nonclk"))
        if (odd := clicked == not_clicked).any():
            row = int(np.argmax(odd))
            what = f"is not the opposite of clk, which is {clicked[row]}"
            raise rows.fault(row, "nonclk", str(not_clicked[row]), what)
        super().__init__(
            rows.texts("user", _id),
            rows.texts("adgroup_id", _id),
            rows.integers("time_stamp", seconds),
            clicked == 1,
            ("pid", rows.texts("pid", _place)),
        )

    def items(self) -> Iterator[Entity]:
        """The ads: category, campaign, customer, brand, class of price; read at each call.

        Raises:
            LogFileError: ``ad_feature.csv`` is broken.
        """
        return _entities(self._ads, _AD)

    def users(self) -> Iterator[Entity]:
        """The users' profiles, in the codes of the file; read at each call.

        Raises:
            LogFileError: ``user_profile.csv`` is broken.
        """
        return _entities(self._profiles, _PROFILE)


@dataclass(frozen=True, slots=True)
class Behaviours:
    """Some rows of ``behavior_log.csv``, in its order, coded for these rows alone.

    Attributes:
        users: who.
        ts: when, ms, int64 [n].
        kinds: ``pv`` (saw its page), ``cart``, ``fav`` or ``buy``.
        categories: of what.
        brands: of what.
        left_out: rows among these that had a time outside the 22 days of the log.
    """

    users: Coded
    ts: Int64Array
    kinds: Coded
    categories: Coded
    brands: Coded
    left_out: int


def behaviours(path: Path) -> Iterator[Behaviours]:
    """Read ``behavior_log.csv`` in chunks of some hundred thousand rows.

    Raises:
        LogFileError: it is missing or broken.
    """
    expect_header(path, _BEHAVIOUR)
    for chunk in read_chunks(path, _BEHAVIOUR, header=1):
        times = chunk.integers("time_stamp", _any_seconds)
        sound = (times >= _PERIOD[0]) & (times < _PERIOD[1])
        users, kinds, categories, brands = (
            Coded(column.codes[sound], column.texts)
            for column in (
                chunk.texts("user", _id),
                chunk.texts("btag", _kind),
                chunk.texts("cate", _known),
                chunk.texts("brand", _known),
            )
        )
        yield Behaviours(
            users, times[sound] * 1000, kinds, categories, brands, len(chunk) - int(sound.sum())
        )


def _optional(path: Path, columns: tuple[str, ...]) -> Path | None:
    """The file, if it is there."""
    if not path.exists():
        log.warning("%s is missing: the log goes without %s", path, ", ".join(columns[1:]))
        return None
    expect_header(path, columns)
    return path


def _entities(path: Path | None, columns: tuple[str, ...]) -> Iterator[Entity]:
    """Rows as entities: the first column is the id, what is not known is left out."""
    if path is None:
        return
    names = columns[1:]
    for chunk in read_chunks(path, columns, header=1):
        ids = chunk.texts(columns[0], _id)
        fields = [chunk.texts(name, _price if name == "price" else _known) for name in names]
        for row, code in enumerate(ids.codes.tolist()):
            cells = (field.texts[field.codes[row]] for field in fields)
            attributes: dict[str, str | list[str]] = {
                name: cell
                for name, cell in zip(names, cells, strict=True)
                if cell not in {"", "NULL"}
            }
            yield Entity(id=ids.texts[code], attributes=attributes)


def _price(text: str) -> str:
    return parse_price(text) if text not in {"", "NULL"} else ""
