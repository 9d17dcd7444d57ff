"""Builds the parts of a server and connects them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from features.catalogue import Catalogue
from features.declaration import Entity
from features.declared import declared_features
from features.model_inputs import getter
from features.user_lookup import OnlineStore
from serving.experiments.assignment import active_experiment
from serving.http.messages import EntityAnswer, ModelRow
from serving.http.outbox import Outbox
from serving.http.problems import RequestError
from serving.model.channels import Channel
from serving.model.follower import Follower
from serving.model.popularity import Popularity
from serving.model.ranking import Ranker
from serving.model.recent_rankings import RecentRankings
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
    """

    def __init__(self, settings: Settings, on_death: Callable[[], None]) -> None:
        self._settings = settings
        self._on_death = on_death
        self.declaration = declared_features(settings)
        self.experiment = active_experiment(settings)
        self.channels = {name: Channel(name) for name in settings.serving.channels}
        self.catalogue = Catalogue(self.declaration)
        self.outbox = Outbox(settings)
        self.recent = RecentRankings(settings.serving.recent_ranked_items)
        self._popularity = Popularity(self.declaration, self.catalogue)
        self._online = OnlineStore(settings, self.declaration)
        self._follower: Follower | None = None
        self.ranker = Ranker(
            settings,
            self.declaration,
            catalogue=self.catalogue,
            online=self._online,
            channels=self.channels,
            experiment=self.experiment,
            outbox=self.outbox,
            popularity=self._popularity,
            recent=self.recent,
        )

    def start(self) -> None:
        """Begin to follow and to send; called on the event loop."""
        self.outbox.start()
        self._follower = Follower(
            self._settings,
            self.declaration,
            self.catalogue,
            self.channels,
            self._popularity,
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
        """Why it should not get requests yet; empty: it should."""
        return self._follower.waiting_for if self._follower else "it is starting"

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
            names = [f.name for f in self.declaration.of_entity(entity)]
            values = getter(self.declaration, entity)(row)
            features = {"ts": row.ts, **dict(zip(names, values, strict=True))}
        [statics] = self.catalogue.rows(entity, [name])
        fields = self.declaration.statics_of(entity)
        return EntityAnswer(
            id=name,
            known=self.catalogue.knows(entity, name),
            features=features,
            attributes={
                f.name: value if isinstance(value, str | float) else list(value)
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
