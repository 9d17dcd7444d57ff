"""The publisher: writes versions to the model store and deltas to ``model.updates``.

A version is published when the warm-up ends, at each start, after each refit of item factors, and
every so often from then on; in between, deltas carry what events have changed, encoded with the
weights of the newest version. The frozen channel gets one version a run, the model as it was at
the end of the warm-up.

Publish failures are logged and retried: a store or broker that is away, or a version
that would not pass the checks of its readers, must not stop the learning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from features.declaration import ENTITIES
from features.model_inputs import Columns
from inttower.core.contract import Decoupled
from inttower.errors import BundleError, IntTowerError
from inttower.publish.bundle import read_bundle, write_bundle
from inttower.publish.published import ServingEncoder
from inttower.publish.snapshot import contents
from inttower.publish.store import ModelStore
from inttower.state.user_state import UserState
from settings.errors import BrokerError
from settings.settings import Settings
from streaming.events import VersionAnnounced, encode
from streaming.kafka.client import admin, end_offsets
from streaming.kafka.topics import MODEL_UPDATES
from streaming.kafka.writer import Writer
from trainer.deltas import deltas
from trainer.intake import Intake
from trainer.learning.latest_rows import LatestRows
from trainer.learning.online_learner import OnlineLearner
from trainer.learning.sample_inputs import SampleInputs
from trainer.learning.state_rows import user_rows
from trainer.learning.touched import Touched
from trainer.timer import Timer
from trainer.trainer_metrics import Metrics
from trainer.trainer_report import PublishedCounts

log = logging.getLogger(__name__)

_GOLDEN_ROWS = 8
# over fewer rows a window's AUC is too uncertain for a server to judge a version by
_JUDGED_ROWS = 5_000
_RETRY_S = 5.0
# between two looks at which version serves
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class _Side:
    """What one channel is published from."""

    channel: str
    model: Decoupled
    items: LatestRows
    state: UserState | None


@dataclass(frozen=True, slots=True)
class _Base:
    """A version that deltas can be for: its weights, and the fit of item factors they belong to."""

    version: str
    encoder: ServingEncoder
    fits: int


class Publisher:
    """Publishes what a learner has learnt.

    Deltas are for the version that servers have: the newest, or the one that a rollback holds, or
    the one before, if the quality gate refused the newest. When that changes, rows that were
    touched since the newest version was made are sent again for the other one.

    Args:
        settings: store, topics, channels, and how often.
        learner: the source of all of it.
        inputs: makes the columns of items.
        metrics: counts.
        run: names all that follows from one warm-up.
        intake: for the offsets in the manifests.
        writer: sends; it waits for a broker that is away.
    """

    def __init__(
        self,
        settings: Settings,
        learner: OnlineLearner,
        inputs: SampleInputs,
        metrics: Metrics,
        *,
        run: str,
        intake: Intake,
        writer: Writer,
    ) -> None:
        self._settings = settings
        self._learner = learner
        self._inputs = inputs
        self._metrics = metrics
        self._run = run
        self._intake = intake
        self._writer = writer
        self._topic = settings.topic(MODEL_UPDATES)
        self._store = ModelStore(settings.store_url)
        self._base: _Base | None = None
        self._newest: _Base | None = None
        self._unfit: str | None = None
        # touched since the newest version was made, and of these what is to be sent again
        self._since, self._again = Touched(), Touched()
        self._looks = Timer(_LOOK_S)
        # the newest time of anything touched, ms: rows are never replaced by older ones
        self._latest_ms = 0
        self._deltas = Timer(settings.trainer.delta_every_ms / 1000)
        self._versions = Timer(settings.trainer.version_every_s)
        trainer = settings.trainer
        self.published = {trainer.channel: PublishedCounts()}
        if trainer.frozen_channel:
            self.published[trainer.frozen_channel] = PublishedCounts()

    def begin(self) -> None:
        """Publish the first versions of this process: the frozen one if the run has none yet."""
        self._publish_frozen()
        self._publish_online()

    def tick(self) -> None:
        """Publish what is due."""
        if self._base is not None and self._refitted():
            self._base = self._newest = None
            self._versions.due_in(0)
        if self._looks.due():
            self._turn_to_served()
            self._touch_changed()
        if self._versions.due():
            self._publish_frozen()
            self._publish_online()
        elif self._base is not None and self._deltas.due():
            self._send_deltas()

    def flush(self) -> None:
        """Send what was touched; return once all that was sent is on the broker.

        Before the first version nothing is sent: that version will hold all of it.
        """
        if self._base is not None:
            self._send_deltas()
        self._writer.flush()

    def close(self) -> None:
        """Leave the broker."""
        self._writer.close()

    def _refitted(self) -> bool:
        """After a refit of item factors every vector is another: a version first, then deltas."""
        return self._base is not None and self._base.fits != _fits(self._learner)

    def _send_deltas(self) -> None:
        if self._refitted():
            return
        channel = self._settings.trainer.channel
        published = self.published[channel]
        fresh = self._learner.touched.take()
        self._since = _merged(self._since, fresh)
        times = (*fresh.users.values(), *fresh.items.values())
        self._latest_ms = max(self._latest_ms, *times) if times else self._latest_ms
        if self._base is None:
            return
        touched, self._again = _merged(self._again, fresh), Touched()
        if not touched:
            return
        made = deltas(
            touched,
            channel=channel,
            version=self._base.version,
            base=self._base.encoder,
            learner=self._learner,
            inputs=self._inputs,
        )
        try:
            for delta in made:
                self._writer.send(self._topic, 0, channel.encode(), encode(delta))
                published.deltas += 1
                self._metrics.deltas.labels(channel).inc()
        except BundleError as error:
            log.error(  # noqa: TRY400 - the text has the cause
                "no deltas of %s until a version passes its checks: %s", channel, error
            )
            self._base = self._newest = None
            self._versions.due_in(0)  # which counts it, and tries again
            return
        self._metrics.delta_rows.labels("user").inc(len(touched.users))
        self._metrics.delta_rows.labels("item").inc(len(touched.items))

    # ------------------------------------------------------------------ versions

    def _publish_online(self) -> None:
        learner = self._learner
        side = _Side(
            self._settings.trainer.channel,
            learner.models.online,
            learner.items,
            learner.models.user_state,
        )
        self.flush()
        if self._publish(side):
            # touched before: the version holds it
            learner.touched.take()
            self._since, self._again = Touched(), Touched()
            version = self.published[side.channel].version or ""
            encoder = learner.models.online.serving_encoder()
            self._base = self._newest = _Base(version, encoder, _fits(learner))
            self._turn_to_served()

    def _touch_changed(self) -> None:
        """Send users and items anew whose attributes have changed."""
        users, items = (sorted(self._inputs.take_changed(side)) for side in ENTITIES)
        now = self._latest_ms
        changed = Touched(dict.fromkeys(users, now), dict.fromkeys(items, now))
        self._since = _merged(self._since, changed)
        self._again = _merged(self._again, changed)

    def _turn_to_served(self) -> None:
        """Send deltas for the version that servers have from now on."""
        channel, newest = self._settings.trainer.channel, self._newest
        if newest is None:
            return
        try:
            version = self._store.served(channel)
            held = self._base.version if self._base else self._unfit
            if version is None or version == held:
                return
            base = newest if version == newest.version else self._read_base(channel, version)
        except (IntTowerError, OSError) as error:
            log.warning("model store, channel %s: %s", channel, error)
            return
        self._base, self._unfit = base, None if base else version
        if base is None:
            log.warning(
                "%s serves %s, which is from before a refit or from another run: no deltas for it",
                channel,
                version,
            )
            return
        self._again = self._since
        log.info("deltas of %s are for version %s from now on", channel, version)

    def _read_base(self, channel: str, version: str) -> _Base | None:
        """An earlier version of this run; None if rows as they are now do not fit its weights."""
        loaded = read_bundle(self._store.url(channel, version))
        metrics, fits = loaded.manifest.metrics, _fits(self._learner)
        same_run = metrics.get("run") == self._run and metrics.get("fits") == fits
        same_spec = loaded.base.spec.to_json() == self._learner.models.online.spec.to_json()
        return _Base(version, loaded.base, fits) if same_run and same_spec else None

    def _publish_frozen(self) -> None:
        channel, learner = self._settings.trainer.frozen_channel, self._learner
        if not channel or self.published[channel].version is not None:
            return
        current = self._run_version(channel)
        if current is not None:
            self.published[channel].version = current
            return
        side = _Side(
            channel,
            learner.models.frozen,
            learner.frozen_features.items,
            learner.models.frozen_user_state,
        )
        self._publish(side)

    def _run_version(self, channel: str) -> str | None:
        """The channel's version that this run has published before a restart."""
        try:
            for version in reversed(self._store.versions(channel)):
                if self._store.manifest(channel, version)["metrics"].get("run") == self._run:
                    return version
        except (IntTowerError, OSError) as error:
            log.warning("model store, channel %s: %s", channel, error)
        return None

    def _publish(self, side: _Side) -> bool:
        """Write one version and point to it; False if it failed: that is logged and retried."""
        started = time.monotonic()
        try:
            version = self._write(side)
        except (IntTowerError, BrokerError, OSError) as error:
            log.error(  # noqa: TRY400 - the text has the cause
                "a version of %s could not be published, trying again in %.0f s: %s",
                side.channel,
                _RETRY_S,
                error,
            )
            self._metrics.version_failures.labels(side.channel).inc()
            self._versions.due_in(_RETRY_S)
            return False
        published = self.published[side.channel]
        published.version = version
        published.versions += 1
        self._metrics.versions.labels(side.channel).inc()
        self._metrics.version_seconds.observe(time.monotonic() - started)
        return True

    def _write(self, side: _Side) -> str:
        trainer, store = self._settings.trainer, self._store
        there = store.versions(side.channel)
        version = _next_name(there)
        known = side.model.known_ids("item")
        ids = [*known, *sorted(set(self._inputs.catalogue_ids("item")).difference(known))]
        users = side.model.known_ids("user")
        if side.state is not None:
            # of a user without an outcome, what its attributes foretell
            users += sorted(set(self._inputs.catalogue_ids("user")).difference(users))
        held = contents(
            side.model,
            self._inputs.items(ids, side.items, side.state),
            user_rows(side.model, side.state, self._inputs.statics("user", users)),
            users,
        )
        now = time.time_ns() // 1_000_000
        with store.draft(side.channel) as folder:
            write_bundle(
                folder,
                side.model,
                held,
                self._golden(side, users, ids),
                version=version,
                channel=side.channel,
                created_ms=now,
                parent=there[-1] if there else None,
                offsets={str(p): offset for p, offset in self._intake.offsets.items()},
                updates_offset=self._updates_end(),
                metrics=self._figures(side),
            )
            current = store.publish(side.channel, version, folder)
        if current:
            announced = VersionAnnounced(channel=side.channel, version=version, created_ms=now)
            self._writer.send(self._topic, 0, side.channel.encode(), encode(announced))
        else:
            log.info("%s is held by a rollback: %s is kept, not served", side.channel, version)
        store.prune(side.channel, trainer.keep_versions)
        return version

    def _golden(self, side: _Side, users: Sequence[str], items: Sequence[str]) -> Columns:
        """Columns of a few pairs of the newest users and items; of unknown ones if there are none.

        They read the features of the end of the warm-up, which any process of this run has.
        """
        last = range(-_GOLDEN_ROWS, 0)
        some_users, some_items = (
            [ids[k % len(ids)] if ids else "" for k in last] for ids in (users, items)
        )
        then = self._learner.frozen_features
        return self._inputs.pairs(some_users, some_items, then, side.state)

    def _updates_end(self) -> int:
        with admin(self._settings) as client:
            return end_offsets(client, self._topic)[0]

    def _figures(self, side: _Side) -> dict[str, object]:
        """The figures of the model's quality, for the manifest."""
        online = side.model is self._learner.models.online
        counters = self._learner.counters
        learnt = counters.learnt if online else counters.warmup_samples
        fits = _fits(self._learner)
        figures: dict[str, object] = {"run": self._run, "learnt": learnt, "fits": fits}
        if online:
            window = self._learner.evaluation.over_window()
            if window["online"].rows >= _JUDGED_ROWS:
                figures["window"] = {name: found.to_json() for name, found in window.items()}
        return figures


def _merged(first: Touched, second: Touched) -> Touched:
    return Touched({**first.users, **second.users}, {**first.items, **second.items})


def _fits(learner: OnlineLearner) -> int:
    state = learner.models.user_state
    return state.fits if state is not None else 0


def _next_name(versions: Sequence[str]) -> str:
    """The name behind all of these, which sorts behind them.

    >>> _next_name([]), _next_name(["000001", "000009"])
    ('000001', '000010')
    """
    numbers = [int(name) for name in versions if name.isdecimal()]
    return f"{max(numbers, default=0) + 1:06d}"
