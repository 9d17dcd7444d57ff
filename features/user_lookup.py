"""Reads the newest feature row of one user: the one store read of a request."""

from __future__ import annotations

from features.declaration import ENTITIES, Declaration, Entity
from features.online_table import online_table
from features.samples import FeatureRow, feature_row_decoder
from settings.settings import Settings

# a ranking that waits longer for the store is better made without it
_TIMEOUT_S = 0.1


class OnlineStore:
    """Reads feature rows; a read takes .05 ms on SQLite. May be used by several threads.

    Nothing is opened before the first read, and after a failure it is opened again.

    Args:
        settings: which store, and where the state folder is.
        declaration: of the log.
    """

    def __init__(self, settings: Settings, declaration: Declaration) -> None:
        self._tables = {e: online_table(settings, e, timeout_s=_TIMEOUT_S) for e in ENTITIES}
        self._decoders = {e: feature_row_decoder(declaration, e) for e in ENTITIES}

    def read_user(self, user_id: str) -> FeatureRow | None:
        """The user's row with its event time ``ts``; None: no event of this user has arrived.

        Raises:
            StorageError: the store does not answer.
            EventError: the row was written under another declaration.
        """
        return self._read("user", user_id)

    def read_item(self, item_id: str) -> FeatureRow | None:
        """The same for an item: for people and measurements, never for each candidate."""
        return self._read("item", item_id)

    def _read(self, entity: Entity, id_: str) -> FeatureRow | None:
        if not id_:  # no id is empty: the writer keeps its position there
            return None
        packed = self._tables[entity].read([id_])[0]
        return None if packed is None else self._decoders[entity](packed)
