from pathlib import Path

import pytest
from pydantic import ValidationError

from settings.settings import Settings


def test_environment_wins_over_file_and_flags_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "headrace.toml"
    config.write_text("[kafka]\npartitions = 3\nheap_mb = 300\n[serving]\nport = 1234\n")
    monkeypatch.setattr(Settings, "config_file", config)
    monkeypatch.setenv("HEADRACE_KAFKA__PARTITIONS", "5")
    settings = Settings()
    assert settings.kafka.partitions == 5
    assert settings.kafka.heap_mb == 300
    assert settings.serving.port == 1234
    assert settings.with_changes(kafka={"partitions": 7}).kafka.partitions == 7


def test_an_unknown_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "headrace.toml"
    config.write_text("[kafka]\npartition = 3\n")
    monkeypatch.setattr(Settings, "config_file", config)
    with pytest.raises(ValidationError, match=r"(?s)kafka\.partition\b.*Extra inputs"):
        Settings()


def test_a_part_reads_what_was_written_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.json"
    settings = Settings().with_changes(
        state=tmp_path, trainer={"warmup_until_ms": 5}, serving={"channels": ("a", "b")}
    )
    path.write_bytes(settings.to_json())
    monkeypatch.setenv("HEADRACE_KAFKA__PARTITIONS", "99")
    assert Settings.read(path).model_dump() == settings.model_dump()
