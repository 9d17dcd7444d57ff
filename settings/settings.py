"""All settings of all parts, in one typed object.

Sources, the later ones win: defaults, a TOML file (``--config FILE`` or
``headrace.toml`` in the working folder), environment variables
(``HEADRACE_KAFKA__PARTITIONS=4``), and flags of the command line. A part that
is started as its own process reads the resolved settings back from the JSON
file that the launcher wrote (:meth:`Settings.read`).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

CONFIG_FILE = "headrace.toml"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """Where the broker is, and how topics are laid out."""

    embedded: bool = Field(True, description="start a single KRaft broker in the state folder")
    bootstrap: str = Field(
        "127.0.0.1:19092", description="host:port of the broker (embedded: where it listens)"
    )
    controller_port: int = Field(19093, description="KRaft controller port of the embedded broker")
    partitions: int = Field(2, ge=1, description="partitions of impressions and clicks")
    replication: int = Field(1, ge=1)
    heap_mb: int = Field(512, ge=128, description="-Xmx of the embedded broker")
    topic_prefix: str = Field("", description="put before every topic name")


class FlinkSettings(_Section):
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


class LogSettings(_Section):
    """Which declaration of columns and features is in force."""

    name: str = Field("movielens", description="a declaration in features/ (the log's schema)")
    attribution_ms: int = Field(
        500,
        ge=1,
        description="a click this long after its impression still counts; MovieLens: the rating is"
        " its own feedback and times are whole seconds, so half a second keeps seconds apart",
    )

    @property
    def closing_delay_ms(self) -> int:
        """How long after its impression an unclicked sample is known to be one, in event time.

        Flink's interval join gives up on a match up to half a window late, so that is what the
        closing time of a negative says; a positive closes with its click.

        >>> LogSettings(attribution_ms=500).closing_delay_ms
        752
        """
        return self.attribution_ms + self.attribution_ms // 2 + 2


class FeastSettings(_Section):
    """The feature store."""

    online_store: Literal["sqlite", "redis"] = "sqlite"
    redis: str = Field("localhost:6379", description="connection string, used with redis")
    batch_rows: int = Field(2000, ge=1, description="rows written at a time at most")


class TrainerSettings(_Section):
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


class ServingSettings(_Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: int = 18080
    channels: tuple[str, ...] = ("champion", "frozen")
    max_candidates: int = Field(100_000, ge=1)
    experiment: str = Field("", description="path of the experiment file; empty: all to champion")
    min_auc_ratio: float = Field(
        0.97,
        description="quality gate: a version whose window AUC is below this share of the"
        " one that serves is refused",
    )
    features_logged_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the rankings whose impressions carry the user features that were"
        " read, as context.features: what served and trained values are compared by",
    )


class ModelStoreSettings(_Section):
    """Where versions live."""

    url: str = Field("", description="any fsspec location (s3://…, gs://…); empty: state folder")


class Settings(BaseSettings):
    """Everything, see the sections. ``state`` is the folder that all local data lives in."""

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        toml_file=CONFIG_FILE,
    )
    config_file: ClassVar[Path | None] = None

    state: Path = Path(".headrace")
    kafka: KafkaSettings = KafkaSettings()
    flink: FlinkSettings = FlinkSettings()
    log: LogSettings = LogSettings()
    feast: FeastSettings = FeastSettings()
    trainer: TrainerSettings = TrainerSettings()
    serving: ServingSettings = ServingSettings()
    store: ModelStoreSettings = ModelStoreSettings()
    metrics_host: str = Field(
        "127.0.0.1", description="where the parts' metrics are served; 0.0.0.0 in containers"
    )
    writer_metrics_port: int = 19102
    broker_metrics_port: int = 19104
    clock_metrics_port: int = 19105
    job_metrics_port: int = 19103

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before environment before file."""
        toml = TomlConfigSettingsSource(settings_cls, cls.config_file or Path(CONFIG_FILE))
        return init_settings, env_settings, toml

    @property
    def store_url(self) -> str:
        """Where versions live, with the default resolved."""
        return self.store.url or str(self.state.absolute() / "models")

    def topic(self, name: str) -> str:
        """The name on the broker of one of the design's topics."""
        return self.kafka.topic_prefix + name

    def with_changes(self, **sections: object) -> Settings:
        """A copy with fields replaced; a section may be given as a dict of its changed fields.

        >>> Settings().with_changes(kafka={"partitions": 3}).kafka.partitions
        3
        """
        data = self.model_dump()
        for name, value in sections.items():
            if isinstance(value, dict):
                data[name] = {**data[name], **value}
            else:
                data[name] = value
        return _Resolved.model_validate(data)

    def write(self, path: Path) -> None:
        """Keep these settings for the processes of the parts."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1))

    @classmethod
    def read(cls, path: Path) -> Settings:
        """The settings that :meth:`write` kept, and nothing from file or environment."""
        return _Resolved.model_validate_json(path.read_text())


class _Resolved(Settings):
    """Settings whose values are given: file and environment have been read already."""

    model_config = SettingsConfigDict(toml_file=None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)
