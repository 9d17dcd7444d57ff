"""The parts of a server, put together."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from features.catalogue import Catalogue
from features.declaration import Entity
from features.logs.registry import declaration
from features.model_inputs import getter
from features.user_lookup import OnlineStore
from serving.experiments.assignment import active_experiment
from serving.http.messages import EntityAnswer, ModelRow
from serving.http.outbox import Outbox
from serving.http.problems import RequestError
from serving.model.channels import Channel
from serving.model.follower import Follower
from serving.model.ranking import Ranker
from settings.errors import EventError, StorageError
from settings.settings import Settings

log = logging.getLogger(__name__)


class Service:
    """Everything behind the HTTP interface.

    Args:
        settings: of all parts.
        on_death: called, in another thread, if the server cannot go on.

    Raises:
        ConfigurationError: the experiment file or the log's declaration cannot be used.
        StorageError: the feature store cannot be opened.
    """

    def __init__(self, settings: Settings, on_death: Callable[[], None]) -> None:
        self._settings = settings
        self._on_death = on_death
        self._declaration = declaration(settings.log.name)
        self.experiment = active_experiment(settings)
        self.channels = {name: Channel(name) for name in settings.serving.channels}
        self.catalogue = Catalogue(self._declaration)
        self.outbox = Outbox(settings)
        self._online = OnlineStore(settings, self._declaration)
        # Feast's import asks for Prometheus' mode for several processes, which cannot remove labels
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        self._follower: Follower | None = None
        self.ranker = Ranker(
            settings,
            self._declaration,
            catalogue=self.catalogue,
            online=self._online,
            channels=self.channels,
            experiment=self.experiment,
            outbox=self.outbox,
        )

    def start(self) -> None:
        """Begin to follow and to send; called on the event loop."""
        self.outbox.start()
        self._follower = Follower(
            self._settings,
            self._declaration,
            self.catalogue,
            self.channels,
            loop=asyncio.get_running_loop(),
            on_death=self._on_death,
        )
        self._follower.start()

    def stop(self) -> None:
        """End both."""
        if self._follower is not None:
            self._follower.stop()
        self.outbox.stop()

    def not_ready(self) -> str:
        """Why it cannot rank everybody yet; empty: it can."""
        if self._follower is None or self._follower.waiting_for:
            return self._follower.waiting_for if self._follower else "it is starting"
        missing = [n for n in self.experiment.channels if self.channels[n].live is None]
        if not missing:
            return ""
        refused = [
            f"{r.what} of {n} was refused: {r.detail}"
            for n in missing
            for r in list(self.channels[n].refused)[:1]
        ]
        names = ", ".join(missing)
        return "; ".join([f"no version of channel {names} in the model store yet", *refused])

    def entity(self, entity: Entity, name: str) -> EntityAnswer:
        """What is held of a user or item.

        Raises:
            RequestError: 503, the feature store does not answer.
        """
        read = self._online.read_user if entity == "user" else self._online.read_item
        try:
            row = read(name)
        except (StorageError, EventError) as error:
            raise RequestError(
                503, f"the feature store: {error}", "see the server's log"
            ) from error
        features = None
        if row is not None:
            names = [f.name for f in self._declaration.of_entity(entity)]
            values = getter(self._declaration, entity)(row)
            features = {"ts": row.ts, **dict(zip(names, values, strict=True))}
        [statics] = self.catalogue.rows(entity, [name])
        fields = self._declaration.statics_of(entity)
        return EntityAnswer(
            id=name,
            features=features,
            attributes={
                f.name: value if isinstance(value, str) else list(value)
                for f, value in zip(fields, statics, strict=True)
            },
            channels={n: held for n in self.channels if (held := self._held(n, entity, name))},
        )

    def _held(self, channel: str, entity: Entity, name: str) -> ModelRow | None:
        live = self.channels[channel].live
        if live is None:
            return None
        known = name in live.users if entity == "user" else live.knows_item(name)
        rows = live.users if entity == "user" else live.items
        return ModelRow(version=live.version, delta=live.delta, known=known, ts=rows.ts_of(name))
