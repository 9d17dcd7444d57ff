"""Settings section ``flink``: the streaming job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from settings.section import Section

# more steps: verdicts come sooner and in smaller crowds, and each action costs more
DEADLINE_STEPS = 16


class FlinkSettings(Section):
    """The streaming job."""

    parallelism: int = Field(1, ge=1, description="parallel instances of each operator")
    checkpoint_ms: int = Field(
        200, ge=50, description="samples become visible at a checkpoint, so this bounds freshness"
    )
    out_of_orderness_ms: int = Field(
        200,
        ge=1,
        description="an impression that reaches the broker up to this late asks for its features as"
        " of its own time, a later one as of its arrival; samples wait so long",
    )
    max_ahead_ms: int = Field(
        600_000,
        ge=0,
        description="an event whose time is further ahead of its record timestamp is a dead letter"
        " (time_in_future)",
    )
    max_late_ms: int = Field(
        86_400_000,
        ge=0,
        description="an event that reaches the broker later than this after its time is a dead"
        " letter (too_late); so long duplicates are known, and an action waits for its impression",
    )
    state_backend: Literal["hashmap", "rocksdb"] = Field(
        "hashmap",
        description="hashmap: state in memory, written whole at each checkpoint; rocksdb: state on"
        " disk, a checkpoint holds what changed, for millions of users",
    )
    heap_mb: int = Field(
        1536, ge=512, description="heap of the JVM that runs the MiniCluster (-Xmx)"
    )
    jvm_options: str = Field(
        # nearly everything that the job allocates dies young: giving the young generation half of
        # the heap saves a sixth of the CPU time an event
        "-XX:+UseSerialGC -XX:NewRatio=1 -XX:+UseCompactObjectHeaders",
        description="further options of that JVM",
    )
    niceness: int = Field(
        5,
        ge=0,
        le=19,
        description="lowers the priority of that JVM once the job runs (nice): while it catches up,"
        " its many threads would leave the trainer's one a fraction of a core",
    )
    master: str = Field(
        "", description="host:port of a Flink cluster's REST interface; empty: a MiniCluster"
    )
    checkpoint_dir: str = Field(
        "",
        description="where checkpoints go: any URI that Flink can write; empty: the state folder",
    )

    @property
    def deadline_step_ms(self) -> int:
        """A part of the time for which an action waits; the job looks once in each."""
        return -(-(self.max_late_ms + self.max_ahead_ms + 1) // DEADLINE_STEPS)

    @property
    def deadline_ms(self) -> int:
        """How long after its arrival an action is known to be unmatched, at the latest, ms.

        Its impression may arrive ``max_late_ms`` after a time that is ``max_ahead_ms`` ahead.

        >>> FlinkSettings(max_late_ms=1_000, max_ahead_ms=600).deadline_ms
        1717
        """
        return (DEADLINE_STEPS + 1) * self.deadline_step_ms
