"""Ranks: from a request to its answer in one synchronous step, on one version and delta."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from features.catalogue import Catalogue
from features.declaration import Declaration
from features.model_inputs import Columns, RawRows, Values, getter, never_seen, user_columns
from features.user_lookup import OnlineStore
from inttower.publish.scorer import top_k
from serving.experiments.assignment import Assignment, Experiment
from serving.http.messages import RankAnswer, RankRequest
from serving.http.outbox import CAPACITY, Outbox, OutboxRecord
from serving.http.problems import RequestError, cure_for
from serving.model.channels import Channel, now_ms
from serving.model.live_model import LiveModel
from serving.model.popularity import Popularity
from serving.model.recent_rankings import RecentRankings
from serving.server_metrics import (
    BLANK_FEATURES,
    CANDIDATES,
    COLD_RANKINGS,
    EXPOSURES,
    RANK_SECONDS,
    UNKNOWN_ITEMS,
)
from settings.errors import EventError, StorageError
from settings.settings import Settings
from streaming.events import (
    MAX_EVENT_BYTES,
    MAX_ID_BYTES,
    Impression,
    RankedItem,
    Ranking,
    check_time,
    encode,
)
from streaming.kafka.topics import IMPRESSIONS, RANKINGS

log = logging.getLogger(__name__)

MAX_CONTEXT_BYTES = 4096
# of one request: ten such must find room while the broker is away for a moment
MAX_SHOWN = CAPACITY // 10
_SAY_S = 10.0
_SHORT_ID = MAX_ID_BYTES // 4  # so many characters never have more than the bytes allowed


@dataclass(frozen=True, slots=True)
class _Best:
    """The best of the candidates, how many those were, and how many were unknown."""

    items: list[RankedItem]
    considered: int
    unknown: int = 0


def request_columns(
    declaration: Declaration, catalogue: Catalogue, request: RankRequest, values: Values, ts: int
) -> Columns:
    """The user side's input of a request: one row, the same as in training.

    Args:
        declaration: of the log.
        catalogue: attributes of users.
        request: its user and context are read.
        values: the user's streaming features, see :class:`features.model_inputs.RawRows`.
        ts: time of the request, ms.
    """
    raw = RawRows((request.user_id,), (values,))
    now = np.array((ts,), np.int64)
    return user_columns(declaration, raw, catalogue, now, (request.context,))


class Ranker:
    """Ranks candidates for one user at a time.

    It must run where channels change, on the event loop, and without a pause: see
    :mod:`serving.model.live_model`.

    Args:
        settings: limits and topics.
        declaration: of the log.
        catalogue: attributes of users, and which items were deleted.
        online: the newest feature row of a user.
        channels: by name.
        experiment: sends users to channels.
        outbox: takes what is logged.
        popularity: what is ranked by while a channel has no version.
        recent: remembers each ranking.
    """

    def __init__(
        self,
        settings: Settings,
        declaration: Declaration,
        *,
        catalogue: Catalogue,
        online: OnlineStore,
        channels: Mapping[str, Channel],
        experiment: Experiment,
        outbox: Outbox,
        popularity: Popularity,
        recent: RecentRankings,
    ) -> None:
        self._max_candidates = settings.serving.max_candidates
        self._max_ahead_ms = settings.flink.max_ahead_ms
        self._features_share = settings.serving.features_logged_share
        self._impressions = settings.topic(IMPRESSIONS)
        self._rankings = settings.topic(RANKINGS)
        self._declaration = declaration
        self._names = [f.name for f in declaration.of_entity("user")]
        self._values_of = getter(declaration, "user")
        self._blank = never_seen(declaration, "user")
        self._catalogue = catalogue
        self._online = online
        self._channels = channels
        self._experiment = experiment
        self._outbox = outbox
        self._popularity = popularity
        self._recent = recent
        self._alive: tuple[LiveModel, int, int, NDArray[np.intp]] | None = None
        self._said_at = -_SAY_S
        self._draw = Random().random  # noqa: S311 - a sample for measurements, no secret

    def rank(self, request: RankRequest) -> RankAnswer:
        """The best candidates, logged as a ranking, and as impressions if the request says so.

        Raises:
            RequestError: 422 for values that cannot be, or for more items than can be logged.
        """
        started = time.perf_counter()
        candidates = self._check(request)
        ts = now_ms() if request.ts is None else request.ts
        assigned = self._assign(request, ts)
        values, blank = self._user_values(request.user_id)
        live = self._channels[assigned.channel].live
        if live is None:
            best = self._by_popularity(candidates, request)
            COLD_RANKINGS.labels(assigned.channel).inc()
        else:
            best = self._by_model(live, candidates, request, values, ts)
            UNKNOWN_ITEMS.labels(assigned.channel).inc(best.unknown)
        answer = RankAnswer(
            request_id=request.request_id or secrets.token_hex(12),
            user_id=request.user_id,
            experiment=self._experiment.name if assigned.variant else None,
            variant=assigned.variant,
            model=assigned.channel,
            version=live.version if live else None,
            delta=live.delta if live else -1,
            ts=ts,
            cold=live is None,
            blank_features=blank,
            items=best.items,
        )
        self._log(request, answer, assigned, values)
        CANDIDATES.observe(best.considered)
        RANK_SECONDS.labels(assigned.channel).observe(time.perf_counter() - started)
        return answer

    def _by_model(
        self,
        live: LiveModel,
        candidates: list[str] | None,
        request: RankRequest,
        values: Values,
        ts: int,
    ) -> _Best:
        columns = request_columns(self._declaration, self._catalogue, request, values, ts)
        user = live.user_vector(request.user_id, columns)
        unknown, rows = 0, self._alive_rows(live) if candidates is None else None
        if candidates is None:
            names: Sequence[str] = live.items.ids
            # row 0 is for unknown items and is no candidate
            considered = len(live.items) if rows is None else len(rows)
        else:
            found = live.items.find(candidates)
            names, rows, considered = candidates, found, len(candidates)
            unknown = considered - int(np.count_nonzero(found))
        self._check_shown(request, considered)
        best, logits = top_k(live.logits(user, rows), request.k)
        if candidates is None:
            best = best + 1 if rows is None else rows[best]
        items = _items(names, best, expit(logits.astype(np.float64)))
        return _Best(items, considered, unknown)

    def _alive_rows(self, live: LiveModel) -> NDArray[np.intp] | None:
        """Rows of the items that were not deleted; None: all from 1 on."""
        deletions, count = self._catalogue.deletions, len(live.items)
        if not deletions:
            return None
        kept = self._alive
        if kept is None or kept[0] is not live or kept[1:3] != (deletions, count):
            gone = live.items.find(list(self._catalogue.deleted("item")))
            alive = np.setdiff1d(np.arange(1, count + 1), gone)
            self._alive = kept = (live, deletions, count, alive)
        return kept[3]

    def _by_popularity(self, candidates: list[str] | None, request: RankRequest) -> _Best:
        names = self._popularity.items() if candidates is None else candidates
        self._check_shown(request, len(names))
        best, rates = top_k(self._popularity.rates(names), request.k)
        return _Best(_items(names, best, rates.astype(np.float64)), len(names))

    def _check_shown(self, request: RankRequest, considered: int) -> None:
        returned = min(request.k, considered)
        if request.log == "shown" and returned > MAX_SHOWN:
            raise RequestError(
                422,
                f"{returned} items would be logged as shown, at most {MAX_SHOWN} of one request"
                " can be",
                "ask for fewer, or post the impressions that were shown to /v1/events",
                field="k",
            )

    def _check(self, request: RankRequest) -> list[str] | None:
        """Check what the form of the request does not say; the candidates, each once."""
        _check_id("user_id", request.user_id)
        if request.request_id is not None:
            _check_id("request_id", request.request_id)
        if request.ts is not None:
            try:
                check_time("ts", request.ts, now_ms(), self._max_ahead_ms)
            except EventError as error:
                raise RequestError(422, str(error), cure_for("ts"), field="ts") from error
        if request.context is not None:
            size = len(msgspec.json.encode(request.context))
            if size > MAX_CONTEXT_BYTES:
                raise RequestError(
                    422,
                    f"{size} bytes, and it is logged with every ranking",
                    f"send at most {MAX_CONTEXT_BYTES} bytes",
                    field="context",
                )
        if isinstance(request.candidates, str):
            return None
        if len(request.candidates) > self._max_candidates:
            raise RequestError(
                422,
                f"{len(request.candidates)} candidates, the limit is {self._max_candidates}",
                "send fewer, or raise serving.max_candidates",
                field="candidates",
            )
        if max(map(len, request.candidates)) > _SHORT_ID:
            for at, name in enumerate(request.candidates):
                _check_id(f"candidates[{at}]", name)
        unique = dict.fromkeys(request.candidates)
        if self._catalogue.deletions:
            for name in self._catalogue.deleted("item") & unique.keys():
                del unique[name]
        return list(unique)

    def _assign(self, request: RankRequest, ts: int) -> Assignment:
        if request.channel is None:
            return self._experiment.assign(request.user_id, ts)
        if request.channel not in self._channels:
            raise RequestError(
                422,
                f"there is no channel {request.channel!r}; there are {', '.join(self._channels)}",
                cure_for("channel"),
                field="channel",
            )
        return Assignment(request.channel, None, None)

    def _user_values(self, user_id: str) -> tuple[Values, bool]:
        """The user's features, and whether they are blank because the store cannot be read."""
        try:
            row = self._online.read_user(user_id)
        except (StorageError, EventError) as error:
            BLANK_FEATURES.inc()
            self._say(error)
            return self._blank, True
        return (self._blank if row is None else self._values_of(row)), False

    def _say(self, error: Exception) -> None:
        """Log a failure of the store, not more often than it is of use."""
        now = time.monotonic()
        if now - self._said_at > _SAY_S:
            self._said_at = now
            log.error("ranking without the user's features: %s", error)

    def _log(
        self, request: RankRequest, answer: RankAnswer, assigned: Assignment, values: Values
    ) -> None:
        """Hand the ranking to Kafka, and what is shown of it as impressions."""
        features = None
        if self._draw() < self._features_share:
            features = dict(zip(self._names, values, strict=True))
        ranking = Ranking(
            request_id=answer.request_id,
            user_id=answer.user_id,
            ts=answer.ts,
            model=answer.model,
            version=answer.version,
            delta=answer.delta,
            experiment=answer.experiment,
            variant=answer.variant,
            propensity=assigned.propensity,
            context=request.context,
            items=answer.items,
            features=features,
        )
        key, value = request.user_id.encode(), encode(ranking)
        if len(value) > MAX_EVENT_BYTES:
            raise RequestError(
                422,
                f"a ranking of {len(answer.items)} items has {len(value)} bytes, and the log takes"
                f" {MAX_EVENT_BYTES}",
                f"ask for at most {len(answer.items) * MAX_EVENT_BYTES // len(value)} items",
                field="k",
            )
        records = [OutboxRecord(self._rankings, key, value)]
        if request.log == "shown":
            records += [
                OutboxRecord(self._impressions, key, encode(impression))
                for impression in _impressions(ranking)
            ]
        self._recent.add(ranking)
        if self._outbox.offer(records):
            EXPOSURES.labels(assigned.variant or "").inc(len(records) - 1)


def _impressions(ranking: Ranking) -> Iterator[Impression]:
    for position, item in enumerate(ranking.items):
        yield Impression(
            request_id=ranking.request_id,
            user_id=ranking.user_id,
            item_id=item.item_id,
            ts=ranking.ts,
            position=position,
            score=item.score,
            experiment=ranking.experiment,
            variant=ranking.variant,
            model=ranking.model,
            version=ranking.version,
            propensity=ranking.propensity,
            context=ranking.context,
        )


def _items(
    names: Sequence[str], best: NDArray[np.int64], scores: NDArray[np.float64]
) -> list[RankedItem]:
    pairs = zip(best.tolist(), scores.tolist(), strict=True)
    return [RankedItem(names[at], score) for at, score in pairs]


def _check_id(field: str, value: str) -> None:
    if len(value) > _SHORT_ID and len(value.encode()) > MAX_ID_BYTES:
        raise RequestError(
            422,
            f"{len(value.encode())} bytes, an id has at most {MAX_ID_BYTES}",
            cure_for(field),
            field=field,
        )
