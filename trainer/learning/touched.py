"""Tracks which users and items have changed since the last delta."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Touched:
    """Ids that events have changed, each with the time (ms) of the newest such event."""

    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.users or self.items)

    def take(self) -> Touched:
        """All since the last call."""
        taken = Touched(self.users, self.items)
        self.users, self.items = {}, {}
        return taken
