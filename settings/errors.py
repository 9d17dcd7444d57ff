"""Every error that headrace raises on purpose outside the model library.

A message says what was wrong, where, and what to do about it.
"""


class HeadraceError(Exception):
    """Base of all; the command line prints it as one line and exits with 1."""


class ConfigurationError(HeadraceError):
    """A setting or file that cannot work."""


class EventError(HeadraceError):
    """An event that breaks its schema; ``reason`` is the dead-letter code."""

    def __init__(self, message: str, *, reason: str, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


class LogFileError(HeadraceError):
    """A log file that cannot be read: names file, line and column."""


class BrokerError(HeadraceError):
    """The broker cannot be reached, started or used."""


class JobError(HeadraceError):
    """The streaming job cannot start or failed."""


class StorageError(HeadraceError):
    """The model store or feature store holds something unusable."""


class CheckpointError(HeadraceError):
    """A checkpoint that is missing, incomplete or of other settings."""
