"""Settings section ``flink``: the streaming job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from settings.section import Section


class FlinkSettings(Section):
    """The streaming job."""

    parallelism: int = Field(1, ge=1)
    checkpoint_ms: int = Field(
        200, ge=50, description="samples become visible at a checkpoint, so this bounds freshness"
    )
    out_of_orderness_ms: int = Field(
        200, ge=1, description="how far behind the newest event of its partition an event may be"
    )
    max_ahead_ms: int = Field(
        86_400_000, description="an event further ahead of its record's own time is a dead letter"
    )
    duplicate_window_ms: int = Field(
        3_600_000, description="a second event with the same identity within this is a duplicate"
    )
    state_backend: Literal["hashmap", "rocksdb"] = Field(
        "hashmap",
        description="hashmap: state in memory, written whole at each checkpoint; rocksdb: on disk,"
        " checkpoints hold what changed, for millions of users",
    )
    heap_mb: int = Field(1536, ge=512, description="-Xmx of the JVM that holds the MiniCluster")
    jvm_options: str = Field(
        # nearly all that the job allocates dies young: with half of the heap for it a sixth less
        # CPU an event
        "-XX:+UseSerialGC -XX:NewRatio=1 -XX:+UseCompactObjectHeaders",
        description="further options of that JVM",
    )
    niceness: int = Field(
        5,
        ge=0,
        le=19,
        description="of that JVM once the job runs: while it catches up, its many threads would"
        " leave the trainer's one a fraction of a core",
    )
    master: str = Field("", description="host:port of a Flink cluster's REST; empty: MiniCluster")
    checkpoint_dir: str = Field("", description="any URI Flink can write; empty: the state folder")
