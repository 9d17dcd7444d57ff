"""A ranking, from the request to the answer, in one synchronous step."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from random import Random

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from features.catalogue import Catalogue
from features.declaration import Declaration
from features.model_inputs import RawRows, getter, never_seen, user_columns
from features.user_lookup import OnlineStore
from inttower.publish.scorer import top_k
from serving.experiments.assignment import Assignment, Experiment
from serving.http.messages import RankAnswer, RankRequest
from serving.http.outbox import Outbox, OutboxRecord
from serving.http.problems import RequestError, cure_for
from serving.model.channels import Channel, now_ms
from serving.server_metrics import CANDIDATES, EXPOSURES, RANK_SECONDS, UNKNOWN_ITEMS
from settings.errors import EventError, StorageError
from settings.settings import Settings
from streaming.events import MAX_ID_BYTES, Impression, RankedItem, check_time, encode
from streaming.kafka.topics import IMPRESSIONS

MAX_CONTEXT_BYTES = 4096
_SHORT_ID = MAX_ID_BYTES // 4  # so many characters never have more than the bytes allowed


class Ranker:
    """Ranks candidates for one user at a time.

    It must run where channels change, on the event loop, and without a pause: see
    :mod:`serving.model.live_model`.

    Args:
        settings: limits, and the topic of impressions.
        declaration: of the log.
        catalogue: attributes of users.
        online: the newest feature row of a user.
        channels: by name.
        experiment: sends users to channels.
        outbox: takes the impressions.
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
    ) -> None:
        self._max_candidates = settings.serving.max_candidates
        self._max_ahead_ms = settings.flink.max_ahead_ms
        self._features_share = settings.serving.features_logged_share
        self._topic = settings.topic(IMPRESSIONS)
        self._declaration = declaration
        self._names = [f.name for f in declaration.of_entity("user")]
        self._values_of = getter(declaration, "user")
        self._blank = never_seen(declaration, "user")
        self._catalogue = catalogue
        self._online = online
        self._channels = channels
        self._experiment = experiment
        self._outbox = outbox
        self._draw = Random().random  # noqa: S311 - a sample for measurements, no secret

    def rank(self, request: RankRequest) -> RankAnswer:
        """The best candidates.

        Raises:
            RequestError: 422 for values that cannot be, 503 while there is nothing to rank with.
        """
        started = time.perf_counter()
        candidates = self._check(request)
        ts = now_ms() if request.ts is None else request.ts
        assigned = self._assign(request, ts)
        live = self._channels[assigned.channel].live
        if live is None:
            raise RequestError(
                503,
                f"channel {assigned.channel!r} has no version yet",
                "wait until /readyz answers 200; a trainer must publish a version of it",
            )
        values = self._user_values(request.user_id)
        user = live.user_vector(
            request.user_id,
            user_columns(
                self._declaration,
                RawRows((request.user_id,), (values,)),
                self._catalogue,
                np.array((ts,), np.int64),
            ),
        )
        if candidates is None:
            names: Sequence[str] = live.items.ids
            # row 0 stands for unknown items and is no candidate
            best, logits = top_k(live.logits(user, None), request.k)
            best += 1
        else:
            names = candidates
            rows = live.items.find(candidates)
            best, logits = top_k(live.logits(user, rows), request.k)
            unknown = len(rows) - int(np.count_nonzero(rows))
            UNKNOWN_ITEMS.labels(assigned.channel).inc(unknown)
        answer = RankAnswer(
            request_id=request.request_id or secrets.token_hex(12),
            user_id=request.user_id,
            variant=assigned.variant,
            channel=assigned.channel,
            version=live.version,
            delta=live.delta,
            ts=ts,
            items=_items(names, best, logits),
        )
        if request.log:
            self._log(request, answer, assigned, values)
        CANDIDATES.observe(len(live.items) if candidates is None else len(candidates))
        RANK_SECONDS.labels(assigned.channel).observe(time.perf_counter() - started)
        return answer

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
                    f"{size} bytes, and it is logged with every impression",
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
        return list(dict.fromkeys(request.candidates))

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

    def _user_values(self, user_id: str) -> tuple[object, ...]:
        try:
            row = self._online.read_user(user_id)
        except (StorageError, EventError) as error:
            raise RequestError(
                503, f"the feature store: {error}", "see the server's log and `headrace doctor`"
            ) from error
        return self._blank if row is None else self._values_of(row)

    def _log(
        self,
        request: RankRequest,
        answer: RankAnswer,
        assigned: Assignment,
        values: tuple[object, ...],
    ) -> None:
        """Hand what is shown to Kafka, as impressions."""
        context = request.context
        if self._draw() < self._features_share:
            features = dict(zip(self._names, values, strict=True))
            context = {**(context or {}), "features": features}
        key = request.user_id.encode()
        impressions = (
            Impression(
                request_id=answer.request_id,
                user_id=request.user_id,
                item_id=item.item_id,
                ts=answer.ts,
                position=position,
                score=item.score,
                experiment=self._experiment.name if assigned.variant else None,
                variant=assigned.variant,
                model=assigned.channel,
                version=answer.version,
                propensity=assigned.propensity,
                context=context,
            )
            for position, item in enumerate(answer.items)
        )
        records = [OutboxRecord(self._topic, key, encode(i)) for i in impressions]
        if self._outbox.offer(records):
            EXPOSURES.labels(assigned.variant or "").inc(len(records))


def _items(
    names: Sequence[str], best: NDArray[np.int64], logits: NDArray[np.float32]
) -> list[RankedItem]:
    scores = expit(logits.astype(np.float64)).tolist()
    return [RankedItem(names[at], score) for at, score in zip(best.tolist(), scores, strict=True)]


def _check_id(field: str, value: str) -> None:
    if len(value) > _SHORT_ID and len(value.encode()) > MAX_ID_BYTES:
        raise RequestError(
            422,
            f"{len(value.encode())} bytes, an id has at most {MAX_ID_BYTES}",
            cure_for(field),
            field=field,
        )
