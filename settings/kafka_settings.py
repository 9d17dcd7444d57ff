"""Settings section ``kafka``: where the broker is, and how topics are laid out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from settings.section import Section


class KafkaSettings(Section):
    """Where the broker is, and how topics are laid out."""

    embedded: bool = Field(True, description="start a single KRaft broker in the state folder")
    bootstrap: str = Field(
        "127.0.0.1:19092", description="host:port of the broker (embedded: where it listens)"
    )
    controller_port: int = Field(19093, description="KRaft controller port of the embedded broker")
    partitions: int = Field(2, ge=1, description="partitions of impressions and clicks")
    replication: int = Field(1, ge=1, description="replicas of each topic; brokers needed")
    heap_mb: int = Field(512, ge=128, description="heap of the embedded broker's JVM (-Xmx)")
    topic_prefix: str = Field(
        "", description="prefix of every topic name, so that several systems can share a broker"
    )
    timestamps: Literal["broker", "producer"] = Field(
        "broker",
        description="who writes the record timestamps of impressions and clicks, by which time"
        " moves: the broker on arrival (live), or the producer (a replay: when the log knew of the"
        " event)",
    )
