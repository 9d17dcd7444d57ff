"""The launcher over small real processes: waiting, restarts, left-overs, one owner a folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.local import launcher as module
from deploy.local.launcher import Launcher, LaunchError, Part
from deploy.local.leftovers import leftovers
from deploy.local.state_lock import lock_owner, state_lock
from settings.deploy_settings import DeploySettings
from settings.errors import ConfigurationError

SLEEP = "import time; time.sleep(60)"
QUICK = DeploySettings(restart_wait_s=0.05, longest_restart_wait_s=0.2, stall_timeout_s=0.5)
LOGGED = "print('2026-01-01 00:00:00,000 INFO a.b {}', flush=True)"


def python(name: str, code: str, ready: bool = True) -> Part:
    return Part(name, [sys.executable, "-c", code], lambda: ready)


def until(condition: Callable[[], object], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_part_that_dies_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    with Launcher(tmp_path, said.append, QUICK) as launcher:
        launcher.start([python("a", SLEEP), python("b", SLEEP)])
        before = launcher.pids()
        os.kill(before["a"], signal.SIGKILL)

        def replaced() -> bool:
            launcher.watch()
            return launcher.pids()["a"] != before["a"] and launcher.ready(["a", "b"])

        assert until(replaced)
        assert launcher.pids()["b"] == before["b"]
        assert launcher.restarts == 1
    assert any(line.startswith("a: ended with code -9; started again in 0.05 s") for line in said)
    assert not any(psutil.pid_exists(pid) for pid in before.values())


def test_a_part_that_keeps_dying_is_tried_ever_more_rarely_and_the_others_run_on(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    with Launcher(tmp_path, said.append, QUICK) as launcher:
        launcher.begin([python("bad", "raise SystemExit(3)", ready=False), python("good", SLEEP)])
        good = launcher.pids()["good"]

        def tried_often() -> bool:
            launcher.watch()
            return launcher.restarts >= 5

        assert until(tried_often)
        assert launcher.pids()["good"] == good
        assert psutil.pid_exists(good)
        assert launcher.ready(["good"])
        assert not launcher.ready(["bad"])
    waits = [w[1] for line in said if (w := re.search(r"bad: .* again in (\S+) s", line))]
    assert waits[:4] == ["0.05", "0.1", "0.2", "0.2"]
    assert any("bad: ended with code 3 before it was ready, 3 times in a row" in s for s in said)


def test_stopping_a_part_ends_what_it_has_started(tmp_path: Path) -> None:
    child_file = tmp_path / "child"
    code = (
        "import subprocess, sys, pathlib, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}])\n"
        f"pathlib.Path({str(child_file)!r}).write_text(str(p.pid))\n" + SLEEP
    )
    part = Part("a", [sys.executable, "-c", code], child_file.exists)
    with Launcher(tmp_path, lambda _: None, QUICK) as launcher:
        launcher.start([part])
        assert until(lambda: child_file.read_text() != "")
        child = psutil.Process(int(child_file.read_text()))
    assert until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_part_that_fails_at_once_is_named_with_its_last_words(tmp_path: Path) -> None:
    with (
        Launcher(tmp_path, lambda _: None, QUICK) as launcher,
        pytest.raises(LaunchError, match=r"(?s)a ended with code 3 .*a\.log.*port 1 is taken"),
    ):
        launcher.start([python("a", "print('port 1 is taken'); raise SystemExit(3)", ready=False)])


def test_a_part_that_does_nothing_is_stuck(tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        Launcher(tmp_path, lambda _: None, QUICK) as launcher,
        pytest.raises(LaunchError, match=r"a is not ready and did nothing for 0\.5 s"),
    ):
        launcher.start([python("a", SLEEP, ready=False)])
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "work",
    ["while True: pass", f"import time\nwhile True: time.sleep(.1); {LOGGED.format('works')}"],
    ids=["uses CPU", "writes to its log"],
)
def test_a_part_that_makes_progress_is_waited_for_until_the_limit(
    tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REPORT_SECONDS", 0.5)
    said: list[str] = []
    limits = QUICK.model_copy(update={"start_timeout_s": 2.5})
    code = f"{LOGGED.format('planning the SQL')}\nprint('noise')\n{work}"
    with (
        Launcher(tmp_path, said.append, limits) as launcher,
        pytest.raises(LaunchError, match=r"a was not ready within 2\.5 s"),
    ):
        launcher.start([python("a", code, ready=False)])
    message = "planning the SQL" if "pass" in work else "works"
    assert re.search(rf"^starting: a \({message}, \d s\)$", said[-1])


def test_one_line_reports_all_starting_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REPORT_SECONDS", 0.2)
    lines: list[str] = []
    expected = re.compile(r"starting: a \(importing, \d s\), b \(importing, \d s\)")

    def reported() -> bool:
        launcher.watch()
        return any(expected.fullmatch(line) for line in lines)

    with Launcher(tmp_path, lines.append, QUICK) as launcher:
        launcher.begin([python(name, SLEEP, ready=name == "c") for name in "abc"])
        assert until(reported)


def test_a_part_may_be_given_up_by_who_cannot_wait(tmp_path: Path) -> None:
    with Launcher(tmp_path, lambda _: None, QUICK, most_deaths=2) as launcher:
        launcher.begin([python("a", "raise SystemExit(1)", ready=False)])
        with pytest.raises(LaunchError, match=r"a ended with code 1 .*, 3 times in a row"):
            until(launcher.watch)


def test_leftovers_of_a_killed_launcher_are_found_and_ended(tmp_path: Path) -> None:
    orphan = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True)
    kept = {"pid": orphan.pid, "created": psutil.Process(orphan.pid).create_time()}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "job.json").write_text(json.dumps(kept))
    # the same pid with another start time is somebody else's process
    (tmp_path / "run" / "trainer.json").write_text(json.dumps({**kept, "created": 1.0}))
    assert leftovers(tmp_path / "run") == {"job": orphan.pid}
    said: list[str] = []
    with Launcher(tmp_path, said.append, QUICK):
        assert not psutil.pid_exists(orphan.pid)
        orphan.wait(5)
    assert said == ["job: ended a process left over from an earlier run"]


def test_a_state_folder_has_one_owner(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom deploy.local.state_lock import state_lock\n"
        f"with state_lock(pathlib.Path({str(tmp_path)!r}), 'headrace up'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said = rf"is in use \(headrace up, pid {other.pid}, since 20..-.* UTC\): stop it"
        with pytest.raises(ConfigurationError, match=said), state_lock(tmp_path, "headrace reset"):
            pass
        assert str(lock_owner(tmp_path)).startswith(f"headrace up, pid {other.pid}")
        other.kill()  # as kill -9: the kernel lets go of the lock
        other.wait(5)
    assert lock_owner(tmp_path) is None
    with state_lock(tmp_path, "headrace reset"):
        assert lock_owner(tmp_path) is not None
    assert lock_owner(tmp_path) is None
