"""What the small files of a model store hold: the pointer of a channel, and refusals."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from inttower.errors import StoreError

# The pointer keeps its own past, so that the record moves with it in one write. A version a minute
# makes this two hours; a rollback is looked into sooner.
MOVES_KEPT = 120


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a channel's pointer, at a wall time in milliseconds since the epoch."""

    version: str
    why: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version is current, whether a rollback holds it, and the moves that led to it."""

    version: str
    held: bool = False
    moves: tuple[Move, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version may not serve: a reason code, what was found, and when (ms of wall time)."""

    version: str
    reason: str
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Place:
    """Content of CURRENT or HELD. HELD names no version once the hold has ended."""

    version: str | None
    moves: tuple[Move, ...] = field(default=())

    def to_bytes(self) -> bytes:
        """The form that the file has."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Place:
        """The inverse of :meth:`to_bytes`; ``where`` is for the error."""
        try:
            fields = json.loads(data)
            return cls(fields["version"], tuple(Move(**move) for move in fields["moves"]))
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"the pointer {where} cannot be read ({error}): remove it and name a version with"
                " rollback(channel, to=...)"
            ) from None
