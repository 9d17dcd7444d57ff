"""Tells whether a starting part makes progress, and what it is doing."""

from __future__ import annotations

import re
import time
from pathlib import Path

import psutil

# the parts' logging format: date, time, level, module, message; not the lines of libraries
_LINE = re.compile(r"^\d{4}-\d\d-\d\d \S+ [A-Z]+ (?!kafka|apache_beam|pyflink)[\w.]+:? (.+)$")
_TAIL_BYTES = 16_384
# one line names several parts
_LONGEST = 60
# an idle JVM's own threads use less between two checks
_CPU_SECONDS = 0.05


def last_message(log: Path, start: int) -> str:
    """The newest message of our own parts after an offset of a log file; empty if none."""
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(start, size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        if found := _LINE.match(line):
            message = found[1]
            return message if len(message) <= _LONGEST else message[:_LONGEST] + "…"
    return ""


class StartProgress:
    """Follows one start of a part by the CPU time of its processes and the size of its log.

    Args:
        pid: the part's process; those that it starts count too.
        log: its log file, which earlier starts may have written to.
    """

    def __init__(self, pid: int, log: Path) -> None:
        self.began = time.monotonic()
        self.moved = self.began
        self._pid = pid
        self._log = log
        self._start = self._size = log.stat().st_size
        self._cpu = 0.0

    def look(self) -> None:
        """Note whether anything has happened since the last check."""
        size, cpu = self._log.stat().st_size, self._cpu_seconds()
        if size != self._size or abs(cpu - self._cpu) > _CPU_SECONDS:
            self._size, self._cpu = size, cpu
            self.moved = time.monotonic()

    def line(self) -> str:
        """The part's last message, and the seconds since it was started."""
        message = last_message(self._log, self._start) or "importing"
        return f"{message}, {time.monotonic() - self.began:.0f} s"

    def _cpu_seconds(self) -> float:
        try:
            leader = psutil.Process(self._pid)
            times = [p.cpu_times() for p in (leader, *leader.children(recursive=True))]
        except psutil.NoSuchProcess:
            return self._cpu  # it has just died; the launcher will notice
        return sum(t.user + t.system for t in times)
