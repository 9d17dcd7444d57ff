import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.local.launcher import Launcher, LaunchError, Part, leftovers

SLEEP = "import time; time.sleep(60)"


def python(name: str, code: str, ready: bool = True, ready_seconds: float = 5) -> Part:
    return Part(name, [sys.executable, "-c", code], lambda: ready, ready_seconds)


def until(condition: Callable[[], object], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_part_that_dies_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    with Launcher(tmp_path, said.append) as launcher:
        launcher.start([python("a", SLEEP), python("b", SLEEP)])
        before = launcher.pids()
        os.kill(before["a"], signal.SIGKILL)

        def replaced() -> bool:
            launcher.watch()
            return launcher.pids()["a"] != before["a"]

        assert until(replaced)
        assert launcher.pids()["b"] == before["b"]
        assert launcher.restarts == 1
    assert any(line.startswith("a: ended with code -9") for line in said)
    assert not any(psutil.pid_exists(pid) for pid in before.values())


def test_stopping_a_part_ends_what_it_has_started(tmp_path: Path) -> None:
    child_file = tmp_path / "child"
    code = (
        "import subprocess, sys, pathlib, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}])\n"
        f"pathlib.Path({str(child_file)!r}).write_text(str(p.pid))\n" + SLEEP
    )
    part = Part("a", [sys.executable, "-c", code], child_file.exists)
    with Launcher(tmp_path, lambda _: None) as launcher:
        launcher.start([part])
        assert until(lambda: child_file.read_text() != "")
        child = psutil.Process(int(child_file.read_text()))
    assert until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_part_that_fails_at_once_is_named_with_its_last_words(tmp_path: Path) -> None:
    with (
        Launcher(tmp_path, lambda _: None) as launcher,
        pytest.raises(LaunchError, match=r"(?s)a ended with code 3 .*a\.log.*port 1 is taken"),
    ):
        launcher.start([python("a", "print('port 1 is taken'); raise SystemExit(3)", ready=False)])


def test_a_part_that_is_never_ready_is_an_error(tmp_path: Path) -> None:
    with (
        Launcher(tmp_path, lambda _: None) as launcher,
        pytest.raises(LaunchError, match="a was not ready within 0 s"),
    ):
        launcher.start([python("a", SLEEP, ready=False, ready_seconds=0.3)])


def test_a_part_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    with Launcher(tmp_path, lambda _: None) as launcher:
        launcher.start([python("a", "import time; time.sleep(.3)")])
        with pytest.raises(LaunchError, match="a died 6 times in a minute"):
            until(launcher.watch, seconds=20)


def test_leftovers_of_a_killed_launcher_are_found_and_ended(tmp_path: Path) -> None:
    orphan = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True)
    kept = {"pid": orphan.pid, "created": psutil.Process(orphan.pid).create_time()}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "job.json").write_text(json.dumps(kept))
    # the same pid with another start time is somebody else's process
    (tmp_path / "run" / "trainer.json").write_text(json.dumps({**kept, "created": 1.0}))
    assert leftovers(tmp_path / "run") == {"job": orphan.pid}
    said: list[str] = []
    with Launcher(tmp_path, said.append):
        assert not psutil.pid_exists(orphan.pid)
        orphan.wait(5)
    assert said == ["job: ended a process left over from an earlier run"]
