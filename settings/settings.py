"""All settings of all parts, in one typed object.

Later sources win: defaults, a TOML file (``--config FILE`` or ``headrace.toml`` in the working
folder), environment variables (``HEADRACE_KAFKA__PARTITIONS=4``), flags of the command line. A part
that runs as its own process reads the resolved settings from the JSON file that the launcher wrote
(:meth:`Settings.read`).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from settings.deploy_settings import DeploySettings
from settings.feast_settings import FeastSettings
from settings.flink_settings import FlinkSettings
from settings.kafka_settings import KafkaSettings
from settings.log_settings import LogSettings
from settings.model_store_settings import ModelStoreSettings
from settings.serving_settings import ServingSettings
from settings.trainer_settings import TrainerSettings

CONFIG_FILE = "headrace.toml"


class Settings(BaseSettings):
    """All sections."""

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        toml_file=CONFIG_FILE,
    )
    config_file: ClassVar[Path | None] = None

    state: Path = Field(Path(".headrace"), description="the folder of all local data")
    kafka: KafkaSettings = KafkaSettings()
    flink: FlinkSettings = FlinkSettings()
    log: LogSettings = LogSettings()
    feast: FeastSettings = FeastSettings()
    trainer: TrainerSettings = TrainerSettings()
    serving: ServingSettings = ServingSettings()
    store: ModelStoreSettings = ModelStoreSettings()
    deploy: DeploySettings = DeploySettings()
    metrics_host: str = Field(
        "127.0.0.1", description="address that metrics are served on; 0.0.0.0 in containers"
    )
    writer_metrics_port: int = Field(19102, description="port of the writer's metrics")
    broker_metrics_port: int = Field(19104, description="port of the broker's metrics")
    clock_metrics_port: int = Field(19105, description="port of the clock's metrics")
    job_metrics_port: int = Field(19103, description="port of the job's metrics")

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
        """The location of the model store, with the default resolved."""
        return self.store.url or str(self.state.absolute() / "models")

    def topic(self, name: str) -> str:
        """The name on the broker of one of our topics."""
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

    def to_json(self) -> bytes:
        """These settings as a file for the processes of the parts."""
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read a file of :meth:`to_json`, and nothing from configuration file or environment."""
        return _Resolved.model_validate_json(path.read_text())


class _Resolved(Settings):
    """Settings that are resolved already: neither file nor environment is read again."""

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
