"""Deletes all local data, for instance when the sample topic no longer fits the checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from deploy.local.leftovers import end_leftovers
from deploy.local.parts import SETTINGS_FILE
from deploy.local.state_lock import LOCK_FILE
from settings.errors import ConfigurationError
from settings.settings import Settings
from streaming.kafka.client import delete_topics

# what headrace writes into a state folder; nothing else is deleted
OWN = (
    "broker",
    "flink",
    "feast",
    "models",
    "trainer",
    "replay",
    "logs",
    "run",
    "demo",
    "ledger.json",
    SETTINGS_FILE,
)


def reset_state(settings: Settings) -> Iterator[str]:
    """Stop leftover processes; delete local data, and our topics on an external broker.

    The caller holds the lock of the state folder.

    Yields:
        One line for each thing done.
    """
    for folder in (settings.state, settings.state / "demo"):
        for name in end_leftovers(folder / "run"):
            yield f"ended a left-over {name}"
    if not settings.kafka.embedded:
        delete_topics(settings)
        yield f"deleted the topics on {settings.kafka.bootstrap}"
    if not settings.state.exists():
        yield f"{settings.state} does not exist: nothing to delete"
        return
    strangers = [p.name for p in settings.state.iterdir() if p.name not in {*OWN, LOCK_FILE}]
    for name in OWN:
        path = settings.state / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    yield f"deleted the data in {settings.state}"
    if strangers:
        yield f"left alone, not ours: {', '.join(sorted(strangers))}"
    if settings.store.url:
        raise ConfigurationError(
            f"the model store {settings.store.url} is not local and was left alone;"
            " delete it with its own tools"
        )
