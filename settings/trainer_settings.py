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
        None,
        description="for a replay with a history: samples whose wait has passed before this are"
        " the warm-up; null: warmup_labels decides",
    )
    warmup_labels: int = Field(
        300,
        ge=0,
        description="the warm-up ends when so many positives and as many negatives are there; what"
        " a model can learn goes by the rarer label, not by the number of rows",
    )
    warmup_most_samples: int = Field(
        1_000_000, ge=1, description="the warm-up ends at the latest with so many samples"
    )
    warmup_epochs: int = Field(2, ge=1, description="passes over the warm-up's samples")
    warmup_batch: int = Field(512, ge=1, description="rows of a step of the warm-up")
    warmup_matmul_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="precision of the warm-up's matrix products; bfloat16 halves its time at no"
        " measured loss, but only on a processor with instructions for it",
    )
    batch_samples: int = Field(
        128,
        ge=1,
        description="samples of one learning step at least: a step is as long for few rows as for"
        " many, so that fewer teach noise; a moment or request is not split",
    )
    max_open_rows: int = Field(
        500_000,
        ge=1_000,
        description="impressions kept for actions to come, half a kilobyte each, in memory and in"
        " each checkpoint; of more the oldest are learnt and recorded as they are",
    )
    late_labels_ms: int = Field(
        600_000,
        ge=0,
        description="how long behind its attribution window an impression is kept for actions that"
        " arrive late",
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
