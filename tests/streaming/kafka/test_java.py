from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from settings.errors import ConfigurationError
from streaming.kafka import java
from streaming.kafka.java import LOCK, Jar


def test_java_runs() -> None:
    command = [str(java.java()), "-version"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=java.java_environment(), check=True
    )
    assert "OpenJDK" in done.stderr


def test_the_lock_names_the_pinned_versions_and_no_host() -> None:
    for bundle, pinned in java.PINNED.items():
        locked = {jar.coordinate for jar in java.locked(bundle)}
        assert set(pinned) <= locked
        assert len(locked) == len(java.locked(bundle))
    assert not re.search(r"https?:|\.(org|com|io)/", LOCK.read_text())


def test_all_jars_are_there_and_checked() -> None:
    for bundle in java.PINNED:
        assert all(path.exists() for path in java.jars(bundle))


@pytest.fixture
def one_jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jar:
    """A lock of one small jar and an empty cache."""
    small = next(jar for jar in java.locked("kafka") if jar.artifact == "slf4j-api")
    monkeypatch.setattr(java, "locked", lambda bundle: (small,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return small


def put(jar: Jar, content: bytes) -> Path:
    path = java.cache_folder() / "jars" / jar.filename
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_a_changed_jar_is_refused_with_the_cure(one_jar: Jar) -> None:
    path = put(one_jar, b"not a jar")
    with pytest.raises(ConfigurationError, match=rf"{one_jar.coordinate}.*sha256.*Delete the file"):
        java.jars("kafka")
    assert path.exists()


def test_what_is_fetched_is_checked_before_it_enters_the_cache(
    one_jar: Jar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve_rubbish(jar: Jar, scratch: Path) -> Path:
        path = scratch / jar.filename
        path.write_bytes(b"rubbish")
        return path

    monkeypatch.setattr(java, "_download", serve_rubbish)
    with pytest.raises(ConfigurationError, match="sha256"):
        java.jars("kafka")
    assert not (java.cache_folder() / "jars" / one_jar.filename).exists()


def test_without_network_the_cure_is_told(one_jar: Jar, monkeypatch: pytest.MonkeyPatch) -> None:
    from requests import ConnectionError as NoConnection
    from requests import Session

    def refuse(*_: object, **__: object) -> None:
        raise NoConnection("no route")

    monkeypatch.setattr(Session, "request", refuse)
    with pytest.raises(ConfigurationError, match=rf"cannot fetch {one_jar.coordinate}.*network"):
        java.jars("kafka")
