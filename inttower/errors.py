"""Errors of the model library; each says what was wrong and what to do."""


class IntTowerError(Exception):
    """Base of all errors raised by this library on purpose."""


class SpecError(IntTowerError):
    """A feature spec, or data given to it, that does not fit."""


class NotDecoupledError(IntTowerError):
    """The model has no user side and item side, so it cannot be published as vectors."""


class BundleError(IntTowerError):
    """A saved model that is incomplete, altered or not finite. The text says which and why."""


class StoreError(IntTowerError):
    """A model store that cannot be reached, or a version in it that is missing or differs."""


class StaleBatchError(IntTowerError):
    """A batch was encoded before its table evicted ids and reused their rows: encode it again."""


class StateError(IntTowerError):
    """A user state was asked for a time before its window, or given outcomes out of order."""
