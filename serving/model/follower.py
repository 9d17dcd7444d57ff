"""Follows the model store, ``model.updates`` and the catalogue, in its own thread.

**Versions.** The pointer of each channel is looked at whenever a version is announced, and once a
second. A version that it names is read and checked here: hashes, shapes, finite numbers and golden
scores (:func:`inttower.publish.bundle.read_bundle`), then by the quality gate
(:mod:`serving.model.quality_gate`; a rollback is a person's decision and passes it). What fails is
refused for good, with the reason in log, metric and ``/v1/versions``; the version before keeps
serving. The gate's verdict is stored with the version, so it holds on all replicas and after every
restart. A server that serves nothing yet, or a version that another server has refused, looks
further, for the newest older version that is sound.

**Deltas.** They are unpacked and checked here and applied on the event loop. When a version has
been read, the consumer goes back to the offset in its manifest, and the version is installed once
it has caught up with what was read before: it never shows older rows than those it replaces.

If the thread ends on an error that it does not know, the server ends too, to be started afresh.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from features.catalogue import Catalogue, CatalogueReader
from features.declaration import Declaration
from inttower.errors import BundleError, SpecError, StoreError
from inttower.publish.bundle import Manifest, read_bundle
from inttower.publish.pointer import Pointer
from inttower.publish.store import ModelStore
from serving.model.channels import Channel
from serving.model.live_model import LiveModel, unpack
from serving.model.popularity import Popularity, PopularityReader
from serving.model.quality_gate import doubt
from serving.server_metrics import DELTAS, FOLLOWER_ERRORS
from settings.errors import BrokerError, EventError
from settings.settings import Settings
from streaming.events import Delta, Update, VersionAnnounced
from streaming.kafka.client import consumer
from streaming.kafka.topics import MODEL_UPDATES

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_POLL_MS = 50
_RETRY_S = 1.0
_QUALITY = "quality"
# what a version can raise by its content; an error of the storage is retried
_UNSOUND = (BundleError, SpecError, ArithmeticError, LookupError, TypeError, ValueError)
# what a record can raise by its content; None is a TypeError
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError)


class Follower:
    """Keeps channels and catalogue up to date.

    Args:
        settings: where store and broker are, and the quality gate.
        declaration: of the log.
        catalogue: is filled and kept up to date.
        channels: by name.
        popularity: is kept up to date while a channel has no version.
        loop: runs the requests; channels change there only.
        on_death: called once if the thread ends by itself.
    """

    def __init__(
        self,
        settings: Settings,
        declaration: Declaration,
        catalogue: Catalogue,
        channels: Mapping[str, Channel],
        popularity: Popularity,
        *,
        loop: asyncio.AbstractEventLoop,
        on_death: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._declaration = declaration
        self._catalogue = catalogue
        self._channels = channels
        self._popularity = popularity
        self._loop = loop
        self._on_death = on_death
        self._store = ModelStore(settings.store_url)
        self._partition = TopicPartition(settings.topic(MODEL_UPDATES), 0)
        self._decode = msgspec.json.Decoder(Update).decode
        # by channel: what was handed to the event loop last
        self._installed: dict[str, LiveModel] = {}
        # by channel: what has yet to catch up, and the offset at which it has
        self._pending: dict[str, tuple[LiveModel, int]] = {}
        # the next offset to read; None before the first connection
        self._next: int | None = None
        self._refused: dict[tuple[str, str], str] = {}
        self._look_at: float = 0.0
        self._grown = False
        # whether the store has been looked at without a failure
        self._looked = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self.waiting_for = "the catalogue has not been read yet"

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._follow()
                except (BrokerError, KafkaError) as error:
                    FOLLOWER_ERRORS.labels("broker").inc()
                    # one that has followed ranks on without a broker
                    self.waiting_for = self.waiting_for and str(error)
                    log.warning("%s; trying again", error)
                    self._stopping.wait(_RETRY_S)
        finally:
            if not self._stopping.is_set():
                self._on_death()

    def _follow(self) -> None:
        """Follow until :meth:`stop`; the catalogue is complete before any version is read."""
        with CatalogueReader(self._settings, self._catalogue) as catalogue:
            count = catalogue.read_to_end()
            log.info("catalogue read: %d users and items, %d records", len(self._catalogue), count)
            updates = consumer(self._settings, {(self._partition.topic, 0): 0}, wait_ms=_POLL_MS)
            popular: PopularityReader | None = None
            try:
                if self._next is None:
                    updates.seek_to_end(self._partition)
                    self._next = updates.position(self._partition)
                else:  # the connection was lost
                    self._seek(updates, self._next)
                while not self._stopping.is_set():
                    self._grown |= catalogue.poll() > 0
                    if time.monotonic() >= self._look_at:
                        self._look(updates)
                    self._read(updates)
                    self._install(updates)
                    popular = self._follow_popularity(popular)
                    if self._looked and not self._pending:
                        self.waiting_for = ""
            finally:
                updates.close()
                if popular is not None:
                    popular.close()

    def _follow_popularity(self, reader: PopularityReader | None) -> PopularityReader | None:
        """Keep the click rates up to date while anything may be ranked by them."""
        if self._channels.keys() - self._installed.keys() - self._pending.keys():
            reader = reader or PopularityReader(self._settings, self._popularity)
            reader.poll()
        elif reader is not None:
            reader.close()
            return None
        return reader

    # ------------------------------------------------------------------ versions

    def _look(self, updates: KafkaConsumer) -> None:
        """Look at every pointer, and at items that are new in the catalogue."""
        self._look_at = time.monotonic() + _LOOK_S
        failed = False
        for name in self._channels:
            try:
                pointer = self._store.pointer(name)
                if pointer is not None:
                    self._turn_to(name, pointer, updates)
            except (StoreError, OSError) as error:
                FOLLOWER_ERRORS.labels("store").inc()
                log.warning("model store, channel %s: %s; trying again", name, error)
                failed = True
                if not self._looked:
                    self.waiting_for = f"the model store: {error}"
        self._looked |= not failed
        if self._grown:
            self._grown = False
            changed = self._catalogue.take_changed("item")
            for live in self._installed.values():
                self._loop.call_soon_threadsafe(live.admit, *live.cold_items(changed))
            for live, _ in self._pending.values():
                live.admit(*live.cold_items(changed))

    def _turn_to(self, name: str, pointer: Pointer, updates: KafkaConsumer) -> None:
        """Read the version that a pointer names, unless it is held or refused already."""
        installed = self._installed.get(name)
        newest = self._pending[name][0] if name in self._pending else installed
        if newest is not None and not pointer.held and self._is_refused(name, newest.version):
            newest = None
        if newest is not None and newest.version == pointer.version:
            return
        if newest is not None and installed is not None and installed.version == pointer.version:
            del self._pending[name]  # moved back before the other was installed
            return
        wanted = [pointer.version]
        if newest is None:
            wanted += self._older(name, pointer.version)
        for version in wanted:
            if self._is_refused(name, version, but_quality=pointer.held):
                continue
            live = self._load(name, version, gate=not pointer.held)
            if live is not None:
                position = updates.position(self._partition)
                # another channel may be catching up already, and position be behind for it
                target = max(position, *(t for _, t in self._pending.values()), 0)
                self._pending[name] = (live, target)
                self._seek(updates, min(position, live.updates_offset))
                return

    def _older(self, name: str, version: str) -> list[str]:
        """Versions before this one, the newest first."""
        return [v for v in reversed(self._store.versions(name)) if v < version]

    def _is_refused(self, name: str, version: str, *, but_quality: bool = False) -> bool:
        """Whether this server or, by the store, any other has refused a version."""
        reason = self._refused.get((name, version))
        if reason is None:
            found = self._store.refusal(name, version)
            if found is None:
                return False
            reason = _QUALITY
            self._refuse(name, version, reason, found.detail)
        return not (but_quality and reason == _QUALITY)

    def _load(self, name: str, version: str, *, gate: bool) -> LiveModel | None:
        try:
            served = read_bundle(self._store.url(name, version))
            live = LiveModel(served, self._declaration, self._catalogue)
            reason = self._doubt(name, served.manifest) if gate else ""
        except _UNSOUND as error:
            self._refuse(name, version, "bundle", str(error))
            return None
        if reason:
            self._refuse(name, version, _QUALITY, reason)
            self._store.refuse(name, version, _QUALITY, reason)
            return None
        return live

    def _doubt(self, name: str, manifest: Manifest) -> str:
        """Why the quality gate keeps a version out; empty: it does not."""
        before = (
            self._store.manifest(name, older).get("metrics")
            for older in self._older(name, manifest.version)
            if (name, older) not in self._refused and self._store.refusal(name, older) is None
        )
        return doubt(manifest.metrics, before, self._settings.serving)

    def _refuse(self, name: str, version: str, reason: str, detail: str) -> None:
        self._refused[name, version] = reason
        self._channels[name].refuse(f"version {version}", reason, detail)

    def _install(self, updates: KafkaConsumer) -> None:
        """Hand over what has caught up."""
        if not self._pending:
            return
        position = updates.position(self._partition)
        for name, (live, target) in list(self._pending.items()):
            if position >= target:
                del self._pending[name]
                self._installed[name] = live
                self._loop.call_soon_threadsafe(self._channels[name].install, live)

    # ------------------------------------------------------------------ deltas

    def _seek(self, updates: KafkaConsumer, offset: int) -> None:
        first = updates.beginning_offsets([self._partition])[self._partition]
        if offset < first:
            log.warning(
                "deltas %d to %d have expired on %s: rows that they touched stay as the version has"
                " them until the next delta of theirs",
                offset,
                first - 1,
                self._partition.topic,
            )
        self._next = max(offset, first)
        updates.seek(self._partition, self._next)

    def _read(self, updates: KafkaConsumer) -> None:
        try:
            found = updates.poll(timeout_ms=_POLL_MS)
        except OffsetOutOfRangeError:
            self._seek(updates, 0)
            return
        for record in found.get(self._partition, ()):
            self._next = record.offset + 1
            try:
                update = self._decode(record.value)
            except _UNREADABLE as error:
                FOLLOWER_ERRORS.labels("record").inc()
                log.error(  # noqa: TRY400 - the message says it all
                    "%s, offset %d is no update and is skipped: %s",
                    record.topic,
                    record.offset,
                    error,
                )
                continue
            if update.channel not in self._channels:
                continue
            if isinstance(update, VersionAnnounced):
                self._look_at = 0.0
            else:
                self._take(update, record.offset)

    def _take(self, delta: Delta, number: int) -> None:
        """Apply a delta to what is still catching up, or have it applied to what serves."""
        name = delta.channel
        pending, installed = self._pending.get(name), self._installed.get(name)
        if pending is not None and pending[0].version == delta.base_version:
            live = pending[0]
        elif installed is not None and installed.version == delta.base_version:
            live = installed
        else:
            DELTAS.labels(name, "other_base").inc()
            return
        if number <= live.seen:
            DELTAS.labels(name, "repeated").inc()
            return
        live.seen = number
        try:
            rows = unpack(delta, number)
            live.check(rows)
        except EventError as error:
            self._channels[name].refuse(f"delta {number}", error.reason, str(error))
            return
        if live is installed:
            self._loop.call_soon_threadsafe(self._channels[name].apply, rows)
        else:
            live.apply(rows)
