import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup
from typer.testing import CliRunner

from deploy.local.state_lock import state_lock
from headrace.cli import app
from settings.errors import ConfigurationError


def headrace(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def commands(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            assert isinstance(command, TyperCommand)
            yield " ".join((*path, name)), command


def all_commands() -> list[tuple[str, TyperCommand]]:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return list(commands(root))


@pytest.mark.parametrize(("name", "command"), all_commands(), ids=[n for n, _ in all_commands()])
def test_every_help_text_has_an_example_of_its_command(name: str, command: TyperCommand) -> None:
    help_text = command.help or ""
    example = help_text.partition("Example:")[2]
    assert example, f"headrace {name} --help shows no example"
    assert name.rsplit(" ", maxsplit=1)[-1] in example


def test_the_commands_of_the_design_are_there() -> None:
    names = {name.split(" ", maxsplit=1)[0] for name, _ in all_commands()}
    assert names >= {
        *("demo", "up", "replay", "status", "rank", "rollback", "experiment"),
        *("doctor", "reset", "bench", "resume", "items", "users"),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "kafka.partitions=none", "settings"], "setting kafka.partitions: "),
        (["--set", "kafka", "settings"], "--set wants SECTION.NAME=VALUE"),
        (["--set", "trainer.batch_samples=0", "settings"], "setting trainer.batch_samples: "),
        (["--set", "cafka.x=1", "settings"], "no section 'cafka'; there are state, kafka,"),
        (["--config", "none.toml", "settings"], "none.toml: there is no such file"),
        (["replay", "ml-2m", "--path", "."], "no log 'ml-2m'"),
        (["replay", "ml-1m"], "download it and give its folder with --path"),
        (["replay", "ml-1m", "--path", "."], "ratings.dat"),
        (["--set", "serving.port=1", "rank", "u"], "start one with `headrace up`"),
        (["--set", "kafka.bootstrap=127.0.0.1:1", "status"], "127.0.0.1:1"),
        (["rollback", "champion"], "champion"),
    ],
)
def test_what_cannot_work_is_one_message_and_no_trace(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = headrace(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("headrace: ")
    assert "Traceback" not in done.stderr


def test_reset_deletes_what_is_ours_and_leaves_the_rest(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "broker").mkdir(parents=True)
    (state / "broker" / "log").write_text("x")
    (state / "ledger.json").write_text("{}")
    (state / "thesis.tex").write_text("y")
    done = headrace("--state", str(state), "reset", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in state.iterdir()) == ["lock", "thesis.tex"]
    assert "left alone, not ours: thesis.tex" in done.stdout


@pytest.mark.parametrize(
    ("folder", "command"),
    [("state", ["up"]), ("state", ["reset", "--yes"]), ("state/demo", ["reset", "--yes"])],
)
def test_a_running_headrace_is_left_alone(tmp_path: Path, folder: str, command: list[str]) -> None:
    state = tmp_path / "state"
    (state / "demo" / "broker").mkdir(parents=True)
    with state_lock(tmp_path / folder, "headrace demo"):
        refused = CliRunner().invoke(app, ["--state", str(state), *command])
    assert isinstance(refused.exception, ConfigurationError)
    assert f"(headrace demo, pid {os.getpid()}, since " in str(refused.exception)
    assert (state / "demo" / "broker").exists()
    assert not (state / "run").exists()


STOPPING = """
import time
from headrace import cli

def app():
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        time.sleep(1)
        print("stopped", flush=True)

cli.app = app
cli.main()
"""


def test_asked_twice_to_end_it_still_stops_what_it_started() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.terminate()
        time.sleep(0.3)
        process.terminate()
        assert process.stdout.readline() == b"stopped\n"
        assert process.wait(20) == 128 + signal.SIGTERM


def test_reset_asks_first(tmp_path: Path) -> None:
    (tmp_path / ".headrace" / "broker").mkdir(parents=True)
    done = headrace("reset", cwd=tmp_path)
    assert done.returncode == 1
    assert (tmp_path / ".headrace" / "broker").exists()


def test_doctor_names_a_port_in_use(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = headrace("--set", f"serving.port={port}", "doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert f"no port of the server: {port} is in use" in done.stdout
    assert "ok Java" in done.stdout
