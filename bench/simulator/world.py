"""The simulated world: users, sessions, items, and the true probability of each click.

Everything is a function of the settings and the seed. The logit of a click, if the item is looked
at, is a sum::

    intercept + user + taste(user, t)·item + quality + mood + context - ln 2 · age / half life

A taste is a stationary Gaussian process in ``factors`` dimensions: a constant part, which a user
shares in part with the segment, and a changing one whose correlation falls as exp(-|t|/drift_h).
The latter is a sum of waves with frequencies drawn from the Cauchy distribution, whose
characteristic function that is; so a taste can be had at any time without the times before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from bench.simulator.draws import Floats, Ints, Purpose, uniform
from bench.simulator.world_settings import WorldSettings
from settings.errors import ConfigurationError

FACTORS = 8
_WAVES = 6
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
DEVICES = ("phone", "desktop", "tablet")
_DEVICE_SHARES = (0.65, 0.28, 0.07)
PAGES = ("home", "category", "search")
_PAGE_SHARES = (0.6, 0.25, 0.15)
# who searches wants something
_PAGE_PULL = np.array([-0.5, 0.3, 1.5])
_OLDEST_HALF_LIVES = 6.0
_CALIBRATION_ROWS = 40_000


@dataclass(frozen=True, slots=True)
class SimulatedItems:
    """The catalogue, oldest first.

    Attributes:
        born: int64 [n], ms of the world; before 0: there from the start.
        category: int64 [n].
        tags: list of int64 [1..3] a row.
        price: float64 [n].
        quality: float64 [n], standard normal.
        vectors: float64 [n, FACTORS], length 1.
    """

    born: Ints
    category: Ints
    tags: list[Ints]
    price: Floats
    quality: Floats
    vectors: Floats

    def __len__(self) -> int:
        return len(self.born)


@dataclass(frozen=True, slots=True)
class SimulatedUsers:
    """The people.

    Attributes:
        joined: int64 [n], ms of the world; 0: there from the start.
        segment: int64 [n].
        device: int64 [n], the one that a user mostly has.
        bias: float64 [n], standard normal.
        steady: float64 [n, FACTORS], the constant part of a taste.
        waves: float64 [n, _WAVES, 2, FACTORS], amplitudes of the changing part.
        speeds: float64 [n, _WAVES], radians a ms.
    """

    joined: Ints
    segment: Ints
    device: Ints
    bias: Floats
    steady: Floats
    waves: Floats
    speeds: Floats

    def __len__(self) -> int:
        return len(self.joined)


@dataclass(frozen=True, slots=True)
class SimulatedRequests:
    """Requests in time order, one a row of each array.

    Attributes:
        number: int64 [n], names the request in every draw.
        ts: int64 [n], ms of the world.
        user: int64 [n], rows of the users.
        mood: int64 [n], the category that the session is after.
        device: int64 [n].
        page: int64 [n].
    """

    number: Ints
    ts: Ints
    user: Ints
    mood: Ints
    device: Ints
    page: Ints

    def __len__(self) -> int:
        return len(self.ts)

    def part(self, start: int, stop: int) -> SimulatedRequests:
        """Some of them, in a row."""
        return self.rows(np.arange(start, min(stop, len(self))))

    def rows(self, which: Ints) -> SimulatedRequests:
        """Those of these row numbers."""
        return SimulatedRequests(
            *(getattr(self, name)[which] for name in self.__dataclass_fields__)
        )


class SimulatedWorld:
    """A world of a length.

    Args:
        settings: what it is like.
        seed: another seed, another world of the kind.
        requests: how many there are.
        span_ms: over which time.

    Raises:
        ConfigurationError: the click rate cannot be had with this position bias.
    """

    def __init__(self, settings: WorldSettings, *, seed: int, requests: int, span_ms: int) -> None:
        self.settings = settings
        self.seed = seed
        self.span_ms = span_ms
        self._centroids = _directions(self._rng(Purpose.ITEMS, 1), settings.items.categories)
        self.items = self._make_items()
        self.users = self._make_users()
        self.requests = self._make_requests(requests)
        effects = self._rng(Purpose.ITEMS, 2)
        self._device_category = effects.normal(size=(len(DEVICES), settings.items.categories))
        self._intercept = 0.0
        self._intercept = self._calibrate()

    def __len__(self) -> int:
        return len(self.requests)

    def examination(self, positions: Ints) -> Floats:
        """The probability that a position, from 0, is looked at."""
        seen: Floats = (1.0 + positions) ** -self.settings.clicks.position_bias
        return seen

    def logits(self, requests: SimulatedRequests, items: Ints) -> Floats:
        """The true logit of a click on an item that is looked at.

        Args:
            requests: n of them.
            items: int64 [n, m], rows of the catalogue.

        Returns:
            float64 [n, m].
        """
        weights, some = self.settings.clicks, self.items
        taste = self.tastes(requests.user, requests.ts)
        category = some.category[items]
        hour = requests.ts / HOUR_MS * (2 * np.pi / 24)
        context = (
            self._device_category[requests.device[:, None], category]
            + _PAGE_PULL[requests.page][:, None]
            + np.sin(hour + self.users.segment[requests.user])[:, None]
        ) / np.sqrt(2.0)
        found: Floats = (
            self._intercept
            + weights.user * self.users.bias[requests.user][:, None]
            + weights.taste * np.einsum("nd,nmd->nm", taste, some.vectors[items])
            + weights.quality * some.quality[items]
            + weights.mood * (category == requests.mood[:, None])
            + weights.context * context
            - self._ageing(requests.ts[:, None] - some.born[items])
        )
        return found

    def tastes(self, users: Ints, ts: Ints) -> Floats:
        """Tastes [n, FACTORS] of users [n] at times [n]: standard normal in each dimension."""
        share, people = self.settings.users.drift, self.users
        angle = people.speeds[users] * ts[:, None]
        waves = people.waves[users]
        moving = np.einsum("nk,nkd->nd", np.cos(angle), waves[:, :, 0])
        moving += np.einsum("nk,nkd->nd", np.sin(angle), waves[:, :, 1])
        steady = np.sqrt(1 - share) * people.steady[users]
        taste: Floats = steady + np.sqrt(share / _WAVES) * moving
        return taste

    def offered(self, ts: Ints) -> tuple[Ints, Ints]:
        """The items that exist at times [n]: rows from start to stop - 1."""
        born, life = self.items.born, self.settings.items.life_h
        stop = np.searchsorted(born, ts, side="right")
        start = np.searchsorted(born, ts - int(life * HOUR_MS)) if life else np.zeros_like(stop)
        # never fewer than a request asks for
        return np.maximum(0, np.minimum(start, stop - self.settings.slate.candidates)), stop

    def candidates(self, requests: SimulatedRequests) -> Ints:
        """What the application asks to be ranked: int64 [n, candidates], all different in a row.

        One item of each of as many equal parts of those that exist; where the parts begin is drawn
        too, so that each item is equally likely.
        """
        start, stop = self.offered(requests.ts)
        there = (stop - start)[:, None]
        count = self.settings.slate.candidates
        edges = np.arange(count + 1) * there // count
        number = requests.number[:, None]
        drawn = uniform(self.seed, Purpose.CANDIDATES, number, np.arange(count))
        within = edges[:, :-1] + (drawn * np.diff(edges, axis=1)).astype(np.int64)
        turn = uniform(self.seed, Purpose.CANDIDATES, number, -1) * there
        rows: Ints = start[:, None] + (within + turn.astype(np.int64)) % there
        return rows

    def _ageing(self, age: Ints) -> Floats:
        half_life = self.settings.items.half_life_h
        if not half_life:
            return np.zeros(age.shape)
        halvings = np.clip(age / (half_life * HOUR_MS), 0.0, _OLDEST_HALF_LIVES)
        return np.asarray(np.log(2) * halvings)

    def _make_items(self) -> SimulatedItems:
        settings = self.settings.items
        rng = self._rng(Purpose.ITEMS, 0)
        added = rng.poisson(settings.new_a_day * self.span_ms / DAY_MS)
        count = settings.count + int(added)
        # what is there at the start has been added at the same pace, within its life
        past = settings.count / settings.new_a_day * DAY_MS if settings.new_a_day else 365 * DAY_MS
        if settings.life_h:
            past = min(past, settings.life_h * HOUR_MS)
        born = np.sort(
            np.r_[
                -rng.uniform(0, past, settings.count),
                rng.uniform(0, self.span_ms, added),
            ].astype(np.int64)
        )
        sizes = 1.0 / np.arange(1, settings.categories + 1)
        category = rng.choice(settings.categories, size=count, p=sizes / sizes.sum())
        # a tag belongs to a category and is found elsewhere too
        tag_vectors = _directions(rng, settings.tags)
        home = rng.integers(0, settings.categories, settings.tags)
        weights = np.where(home == np.arange(settings.categories)[:, None], 20.0, 1.0)
        cumulated = np.cumsum(weights, axis=1)
        cumulated /= cumulated[:, -1:]
        drawn = rng.random((count, 3))
        three = np.empty((count, 3), np.int64)
        for number in range(settings.categories):
            of_it = category == number
            three[of_it] = np.searchsorted(cumulated[number], drawn[of_it])
        tags = [np.unique(row[:n]) for row, n in zip(three, rng.integers(1, 4, count), strict=True)]
        vectors = (
            np.sqrt(0.5) * self._centroids[category]
            + np.sqrt(0.3) * tag_vectors[three[:, 0]]
            + np.sqrt(0.2) * _directions(rng, count)
        )
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return SimulatedItems(
            born=born,
            category=category.astype(np.int64),
            tags=tags,
            price=np.round(rng.lognormal(3.0, 0.8, count), 2),
            quality=rng.normal(size=count),
            vectors=vectors,
        )

    def _make_users(self) -> SimulatedUsers:
        settings = self.settings.users
        rng = self._rng(Purpose.USERS, 0)
        count = settings.count
        new = rng.random(count) < settings.new_share
        joined = np.where(new, rng.uniform(0, self.span_ms, count), 0).astype(np.int64)
        segment = rng.integers(0, settings.segments, count)
        shared = rng.normal(size=(settings.segments, FACTORS))
        own = rng.normal(size=(count, FACTORS))
        frequency = rng.standard_cauchy((count, _WAVES)) / (settings.drift_h * HOUR_MS)
        return SimulatedUsers(
            joined=joined,
            segment=segment,
            device=rng.choice(len(DEVICES), size=count, p=_DEVICE_SHARES),
            bias=rng.normal(size=count),
            steady=np.sqrt(0.5) * (shared[segment] + own),
            waves=rng.normal(size=(count, _WAVES, 2, FACTORS)),
            speeds=frequency,
        )

    def _make_requests(self, count: int) -> SimulatedRequests:
        """Sessions of users, cut into requests; the first ``count`` drawn, in time order."""
        settings = self.settings.users
        rng = self._rng(Purpose.SESSIONS, 0)
        mean = settings.requests_a_session
        sessions = int(count / mean * 1.1 + 6 * np.sqrt(count) + 20)
        lengths = rng.geometric(1 / mean, sessions)
        while lengths.sum() < count:
            lengths = np.r_[lengths, rng.geometric(1 / mean, sessions)]
        ends = np.cumsum(lengths)
        sessions = int(np.searchsorted(ends, count)) + 1
        lengths = lengths[:sessions].copy()
        lengths[-1] -= ends[sessions - 1] - count
        activity = rng.lognormal(0.0, settings.activity, settings.count)
        # who joins later has less time for sessions
        activity *= 1 - self.users.joined / self.span_ms
        user = rng.choice(settings.count, size=sessions, p=activity / activity.sum())
        start = self._session_starts(rng, user)
        session = np.repeat(np.arange(sessions), lengths)
        number_in_session = np.arange(count) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        gaps = rng.exponential(settings.gap_s * 1000, count)
        gaps[number_in_session == 0] = 0
        run = np.cumsum(gaps)
        firsts = np.cumsum(lengths) - lengths
        since = run - np.repeat(run[firsts], lengths)
        ts = (start[session] + since).astype(np.int64)
        order = np.argsort(ts, kind="stable")
        mood = self._moods(rng, user, start.astype(np.int64))
        usual = self.users.device[user]
        other = rng.choice(len(DEVICES), size=sessions, p=_DEVICE_SHARES)
        device = np.where(rng.random(sessions) < 0.8, usual, other)
        page = rng.choice(len(PAGES), size=count, p=_PAGE_SHARES)
        of = session[order]
        return SimulatedRequests(
            number=np.arange(count),
            ts=ts[order],
            user=user[of].astype(np.int64),
            mood=mood[of],
            device=device[of].astype(np.int64),
            page=page[order].astype(np.int64),
        )

    def _session_starts(self, rng: np.random.Generator, user: Ints) -> Floats:
        """Times between a user's first one and the end, more of them in the busy hours."""
        daily = self.settings.users.daily
        grid = np.linspace(0, self.span_ms, max(2, int(self.span_ms / (HOUR_MS / 4)) + 2))
        phase = 2 * np.pi * grid / DAY_MS
        done = np.cumsum(np.r_[0.0, np.diff(grid) * (1 + daily * np.sin(phase[:-1]))])
        first = np.interp(self.users.joined[user], grid, done)
        drawn = first + rng.random(len(user)) * (done[-1] - first)
        return np.interp(drawn, done, grid)

    def _moods(self, rng: np.random.Generator, user: Ints, ts: Ints) -> Ints:
        """The category that a session is after: those that a user likes are likelier (Gumbel)."""
        liking = 2.0 * self.tastes(user, ts) @ self._centroids.T
        chosen: Ints = np.argmax(liking + rng.gumbel(size=liking.shape), axis=1)
        return chosen

    def _calibrate(self) -> float:
        """The intercept that gives the click rate when items are shown at random."""
        shown, rate = self.settings.slate.shown, self.settings.clicks.rate
        wanted = min(len(self.requests), max(1, _CALIBRATION_ROWS // shown))
        some = np.unique(np.linspace(0, len(self.requests) - 1, wanted).astype(np.int64))
        picked = self.requests.rows(some)
        start, stop = self.offered(picked.ts)
        drawn = uniform(self.seed, Purpose.INTERCEPT, picked.number[:, None], np.arange(shown))
        items = start[:, None] + ((stop - start)[:, None] * drawn).astype(np.int64)
        logits = self.logits(picked, items)
        seen = self.examination(np.arange(shown))
        if rate >= seen.mean() * 0.98:
            raise ConfigurationError(
                f"clicks.rate {rate} cannot be had: with position_bias"
                f" {self.settings.clicks.position_bias} and {shown} shown, only"
                f" {seen.mean():.2f} of the positions are looked at; lower one of the three"
            )
        return float(brentq(lambda b: (expit(logits + b) * seen).mean() - rate, -40.0, 40.0))

    def _rng(self, purpose: Purpose, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, int(purpose), number])


def _directions(rng: np.random.Generator, count: int) -> Floats:
    drawn = rng.normal(size=(count, FACTORS))
    found: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found
