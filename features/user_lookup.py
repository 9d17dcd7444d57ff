"""What a server reads at a request: the newest feature row of one user, by one read of Feast."""

from __future__ import annotations

from features.declaration import ENTITIES, Declaration, Entity
from features.feast_repo import Repository
from features.samples import FeatureRow, feature_row_decoder
from settings.settings import Settings


class OnlineStore:
    """Reads feature rows. Opening takes seconds (Feast's import); a read takes .05 ms on SQLite.

    May be read by several threads.

    Args:
        settings: which store, and where the state folder is.
        declaration: of the log.

    Raises:
        StoreError: the store cannot be opened or does not answer.
    """

    def __init__(self, settings: Settings, declaration: Declaration) -> None:
        repository = Repository(settings, declaration)
        self._tables = {e: repository.table(e) for e in ENTITIES}
        self._decoders = {e: feature_row_decoder(declaration, e) for e in ENTITIES}
        for table in self._tables.values():  # the first read connects and plans its query
            table.read(["0"])

    def read_user(self, user_id: str) -> FeatureRow | None:
        """The user's row with its event time ``ts``; None: no event of this user has arrived.

        Raises:
            StoreError: the store does not answer.
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
