"""Settings section ``trainer``: the incremental trainer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from settings.section import Section


class TrainerSettings(Section):
    """The incremental trainer."""

    preset: str = Field(
        "state",
        description="which model learns: state (IntTower+ with the user state); plus, paper or"
        " last_layer (IntTower without it); two_tower or dat",
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        "auto", description="where the model learns; auto: a GPU if there is one"
    )
    threads: int = Field(
        1, ge=1, description="threads of torch and BLAS; another number gives other last bits"
    )
    seed: int = Field(0, description="seed of first weights and of the warm-up's shuffling")
    channel: str = Field("champion", description="channel that the model is published to")
    frozen_channel: str = Field(
        "frozen",
        description="channel that gets a frozen copy at the end of the warm-up; empty: none",
    )
    warmup_until_ms: int | None = Field(
        None, description="samples that closed before this time are the warm-up; null: by count"
    )
    warmup_samples: int = Field(
        2000, ge=0, description="samples of the warm-up, if warmup_until_ms is not set"
    )
    warmup_epochs: int = Field(2, ge=1, description="passes over the warm-up's samples")
    warmup_batch: int = Field(512, ge=1, description="rows of a step of the warm-up")
    warmup_matmul_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="precision of the warm-up's matrix products; bfloat16 halves its time at no"
        " measured loss, but only on a processor with instructions for it",
    )
    batch_samples: int = Field(128, ge=1, description="most samples of one learning step")
    batch_span_ms: int | None = Field(
        200, ge=1, description="most event time that one batch spans; null: any"
    )
    batch_span_from_ms: int = Field(
        0,
        ge=0,
        description="batches of samples that closed before this time are cut by count alone: for a"
        " history that is replayed at full speed before the live events (backfill)",
    )
    refit_samples: int | None = Field(
        None,
        ge=1,
        le=1_000_000,  # as many as a user state remembers
        description="refit the user state's item factors after so many samples of the stream, which"
        " pauses learning for seconds; null: never after the warm-up",
    )
    delta_every_ms: int = Field(150, ge=0, description="least wall time between two deltas")
    version_every_s: float = Field(60.0, gt=0, description="wall time between versions")
    checkpoint_every_s: float = Field(10.0, gt=0, description="wall time between checkpoints")
    keep_versions: int = Field(5, ge=2, description="versions kept in a channel; older are deleted")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints kept; older are deleted")
    evaluation_rows: int = Field(
        1_000_000,
        ge=1,
        description="newest predictions that metrics over all rows are computed from",
    )
    evaluation_window: int = Field(20_000, ge=1, description="rows of the sliding-window metrics")
    max_ids: int = Field(
        5_000_000,
        ge=1,
        description="most ids a field; beyond it those not seen for longest are evicted",
    )
    metrics_port: int = Field(19101, description="port of the trainer's metrics")
