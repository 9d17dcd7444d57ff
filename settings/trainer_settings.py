"""Settings section ``trainer``: the incremental trainer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from settings.section import Section


class TrainerSettings(Section):
    """The incremental trainer."""

    preset: str = Field(
        "state",
        description="IntTower with the user state; or plus, paper, last_layer without it;"
        " or a plain two_tower, or dat",
    )
    device: Literal["cpu", "cuda", "auto"] = "auto"
    threads: int = Field(1, ge=1, description="of torch and BLAS; they fix the last bits")
    seed: int = 0
    channel: str = "champion"
    frozen_channel: str = Field(
        "frozen", description="gets the model as it was at the end of warm-up; empty: none"
    )
    warmup_until_ms: int | None = Field(
        None, description="samples that closed before this are the warm-up"
    )
    warmup_samples: int = Field(
        2000, ge=0, description="size of the warm-up when warmup_until_ms is not set"
    )
    warmup_epochs: int = Field(2, ge=1)
    warmup_batch: int = Field(512, ge=1)
    warmup_matmul_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: the warm-up's fit in half the time on a processor with instructions"
        " for it, at no measured loss",
    )
    batch_samples: int = Field(128, ge=1, description="samples of one learning step at most")
    batch_span_ms: int | None = Field(
        200, ge=1, description="event time that one batch may span; null: bounded by count alone"
    )
    batch_span_from_ms: int = Field(
        0,
        ge=0,
        description="what closed before this is bounded by count alone: a history that is replayed"
        " at full speed before the live events",
    )
    refit_samples: int | None = Field(
        None,
        ge=1,
        le=1_000_000,  # as many as a user state remembers
        description="samples of the stream after which the user state's item factors are fitted"
        " again, which holds the stream up; null: after the warm-up never",
    )
    delta_every_ms: int = Field(150, ge=0, description="wall time between deltas at least")
    version_every_s: float = Field(60.0, gt=0, description="wall time between versions")
    checkpoint_every_s: float = Field(10.0, gt=0, description="wall time between checkpoints")
    keep_versions: int = Field(5, ge=2)
    keep_checkpoints: int = Field(2, ge=1)
    evaluation_rows: int = Field(1_000_000, ge=1, description="newest predictions kept for metrics")
    evaluation_window: int = Field(20_000, ge=1, description="rows of the sliding-window metrics")
    max_ids: int = Field(5_000_000, ge=1, description="rows an id table may hold")
    metrics_port: int = 19101
