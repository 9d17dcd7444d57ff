"""Assigns users to variants: an experiment, read from a file, maps a user to a channel.

An experiment file is TOML. Shares are shares of the users, have at most four decimals and sum to
1::

    name = "online-against-frozen"
    salt = "2026-11"             # optional, the name by default: another salt is another draw
    start = 2026-11-24T12:00:00Z # optional, event time: before it everyone gets the first variant's
                                 # channel and is not part of the experiment

    [plan]                       # optional: without it the experiment has an open end
    users = 20000                # of all variants, at which it ends
    looks = 10                   # verdicts on the way
    minimum_effect = 0.02        # the smallest relative change of the click rate that matters

    [[variants]]
    name = "online"
    channel = "champion"
    share = 0.9

    [[variants]]
    name = "frozen"
    channel = "frozen"
    share = 0.1

**Assignment.** A keyed hash of the user id picks one of 10,000 buckets; the salt is the key, so
two experiments with different salts are independent draws. Buckets belong to variants.

**Who moves when shares change.** The first variant is the control: it has the buckets that the
others do not take. Each other variant takes buckets from its own starting point, which does
not depend on the other shares. So while a share grows, users only move from the control into that
variant, and a user of another variant moves only when that variant's share shrinks. Neighbouring
variants grow towards each other; a file in which they would overlap is refused (impossible with up
to three variants). Order and number of variants are part of the draw: other variants are a new
experiment.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.experiments.verdict import Plan
from settings.errors import ConfigurationError
from settings.settings import Settings

BUCKETS = 10_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One arm: its share of the users, and the channel that serves them."""

    name: _Name
    channel: _Name
    share: Annotated[float, msgspec.Meta(ge=0, le=1)]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: _Name
    variants: Annotated[tuple[Variant, ...], msgspec.Meta(min_length=1)]
    salt: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    start: dt.datetime | None = None
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """A user's assignment. ``variant`` and ``propensity`` are None outside the experiment."""

    channel: str
    variant: str | None
    propensity: float | None


class Experiment:
    """A fixed map from users to variants.

    Args:
        name: shown in reports.
        variants: the control first; shares sum to 1.
        salt: the key of the draw; None: the name.
        start_ms: event time in ms; see the module.
        plan: when it ends; None: open end.

    Raises:
        ConfigurationError: impossible shares or names; the text says which, and what to do.

    >>> half = Experiment("demo", (Variant("a", "champion", 0.5), Variant("b", "frozen", 0.5)))
    >>> [half.assign(user, ts=0).variant for user in ("1", "2", "3", "4")]
    ['b', 'b', 'b', 'a']
    """

    def __init__(
        self,
        name: str,
        variants: tuple[Variant, ...],
        *,
        salt: str | None = None,
        start_ms: int | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.name = name
        self.variants = variants
        self.salt = salt or name
        self.start_ms = start_ms
        self.plan = plan
        names = [v.name for v in variants]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ConfigurationError(
                f"experiment {name!r}: variants named twice: {', '.join(twice)}; rename one"
            )
        self._variant_of_bucket = _lay_out(name, [v.share for v in variants])
        self._arms = [Assignment(v.channel, v.name, v.share) for v in variants]
        self._outside = Assignment(variants[0].channel, None, None)
        # hash a key of any length to the length that blake2b takes
        key = hashlib.blake2b(self.salt.encode(), digest_size=32).digest()
        self._hash = hashlib.blake2b(key=key, digest_size=8)

    @classmethod
    def everyone(cls, channel: str) -> Self:
        """No experiment: all users get one channel, under a variant of the same name."""
        return cls(channel, (Variant(channel, channel, 1.0),))

    @classmethod
    def read(cls, path: Path, channels: tuple[str, ...]) -> Self:
        """Read an experiment's file, for a server that has ``channels``.

        Raises:
            ConfigurationError: the file is missing, is no experiment, or names a channel that
                the server does not have.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"experiment file {path}: {error.strerror}; correct serving.experiment, or leave it"
                " empty to serve everyone from the first channel"
            ) from error
        try:
            file = msgspec.convert(tomllib.loads(text), _File)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise ConfigurationError(
                f"experiment file {path}: {error}; it needs name and [[variants]] with name,"
                " channel and share"
            ) from error
        for variant in file.variants:
            if variant.channel not in channels:
                raise ConfigurationError(
                    f"experiment file {path}: variant {variant.name!r} asks for channel"
                    f" {variant.channel!r}, the server holds {', '.join(channels)}; add it to"
                    " serving.channels"
                )
        start_ms = None
        if file.start is not None:
            if file.start.tzinfo is None:
                raise ConfigurationError(
                    f"experiment file {path}: start {file.start.isoformat()} has no time zone;"
                    " write an offset, Z for UTC"
                )
            start_ms = (file.start - _EPOCH) // dt.timedelta(milliseconds=1)
        return cls(file.name, file.variants, salt=file.salt, start_ms=start_ms, plan=file.plan)

    @property
    def channels(self) -> tuple[str, ...]:
        """All channels of its variants, the control's first."""
        return tuple(dict.fromkeys(v.channel for v in self.variants))

    def bucket(self, user_id: str) -> int:
        """The user's bucket, 0 to 9,999: uniform, and fixed for a salt."""
        digest = self._hash.copy()
        digest.update(user_id.encode())
        # 2^64 is so much larger than the number of buckets that the remainder is uniform
        return int.from_bytes(digest.digest(), "big") % BUCKETS

    def assign(self, user_id: str, ts: int) -> Assignment:
        """The channel, variant and propensity of a user at event time ``ts`` (ms)."""
        if self.start_ms is not None and ts < self.start_ms:
            return self._outside
        return self._arms[self._variant_of_bucket[self.bucket(user_id)]]


def _lay_out(name: str, shares: list[float]) -> list[int]:
    """The variant of each bucket, as an index; see the module for the rule."""
    sizes = [round(share * BUCKETS) for share in shares]
    exact = all(abs(s * BUCKETS - n) < 1e-6 for s, n in zip(shares, sizes, strict=True))
    if not exact or sum(sizes) != BUCKETS:
        raise ConfigurationError(
            f"experiment {name!r}: shares {', '.join(map(str, shares))} must have at most four"
            f" decimals and sum to 1, they sum to {sum(shares):.6g}"
        )
    owner: NDArray[np.int64] = np.zeros(BUCKETS, dtype=np.int64)
    others = list(enumerate(sizes))[1:]
    edges = np.linspace(0, BUCKETS, (len(others) + 1) // 2 + 1).astype(int)
    for pair, (low, high) in enumerate(itertools.pairwise(edges.tolist())):
        rising, *falling = others[2 * pair : 2 * pair + 2]
        if rising[1] + sum(size for _, size in falling) > high - low:
            raise ConfigurationError(
                f"experiment {name!r}: variants {rising[0] + 1} and {rising[0] + 2} together may"
                f" have a share of {(high - low) / BUCKETS}; put the variant with the largest share"
                " first"
            )
        owner[low : low + rising[1]] = rising[0]
        for index, size in falling:
            owner[high - size : high] = index
    return [int(variant) for variant in owner]


def active_experiment(settings: Settings) -> Experiment:
    """The experiment that ``serving.experiment`` names, or everyone on the first channel.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    channels = settings.serving.channels
    if not settings.serving.experiment:
        return Experiment.everyone(channels[0])
    return Experiment.read(Path(settings.serving.experiment), channels)
