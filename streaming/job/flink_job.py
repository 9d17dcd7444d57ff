"""The Flink job: ``python -m streaming.job.flink_job SETTINGS [SQL]``.

It runs the SQL script that it is handed (default: ``STATE/flink/job.sql``; it knows no feature)
in an embedded MiniCluster, or on the cluster at ``flink.master``, and stays until the job ends:
0 after SIGTERM or SIGINT, 1 when the job fails or its JVM dies (the launcher starts it again).

What keeps every sample exactly once:

- it goes on from its own newest complete checkpoint, unasked, and refuses to start without one
  over a sample topic that already holds records;
- a JVM that an earlier run left behind is ended first, for it would fight this one for the
  transactions;
- on a clean stop it takes a savepoint, so that nothing is left in an open transaction.

Metrics: ``headrace_job_up`` (1: running), ``headrace_job_checkpoints_total``,
``headrace_job_checkpoint_seconds``, ``headrace_job_checkpoint_bytes``,
``headrace_job_records{vertex,direction}``, ``headrace_job_watermark_ms`` (smallest of the sinks),
``headrace_job_restarts_total`` (Flink's own, inside the process).
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil
from prometheus_client import start_http_server

from settings.errors import BrokerError, ConfigurationError, JobError
from settings.settings import Settings
from streaming.job.flink_checkpoints import checkpoint_url, newest_checkpoint, prune_checkpoints
from streaming.job.job_metrics import JobMetrics
from streaming.kafka import topics
from streaming.kafka.client import (
    create_topics,
)
from streaming.kafka.client import wait_for_broker as wait_for_kafka
from streaming.kafka.java import jars, java_home
from streaming.kafka.span import read_span, span

if TYPE_CHECKING:
    from pyflink.table import TableEnvironment

log = logging.getLogger(__name__)

_BROKER_S = 60.0
_POLL_S = 0.5
_STOP_S = 15.0
_KILL_S = 10.0
_VIEW = re.compile(r"CREATE TEMPORARY VIEW (\w+) AS\s")
_ENDED = frozenset({"FINISHED", "CANCELED", "FAILED", "SUSPENDED"})


def default_sql(settings: Settings) -> Path:
    """Where the rendered script is looked for."""
    return settings.state / "flink" / "job.sql"


def check_start(settings: Settings, checkpoint: str | None) -> None:
    """Refuse a start that would write every sample a second time.

    Raises:
        JobError: no checkpoint, but committed samples.
    """
    if checkpoint is None and has_records(settings, topics.SAMPLES):
        raise JobError(
            f"{settings.topic(topics.SAMPLES)} holds samples, but there is no checkpoint under"
            f" {checkpoint_url(settings)} to go on from: the job would write each of them again."
            " Bring the checkpoint back, or start over with `headrace reset`"
        )


def has_records(settings: Settings, topic: str) -> bool:
    """Whether a reader of committed records finds any in the topic (one of the design's names)."""
    # offsets also count the marks of transactions, so only reading tells
    return any(True for _ in read_span(settings, *span(settings, [topic])))


def state_mark(settings: Settings) -> str:
    """The JVM option by which a process of this state folder is known."""
    digest = hashlib.sha256(str(settings.state.absolute()).encode()).hexdigest()[:16]
    return f"-Dheadrace.job={digest}"


def end_leftovers(settings: Settings) -> int:
    """End JVMs that an earlier run of this state folder left behind; returns how many."""
    mark = state_mark(settings)
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if mark in (process.info["cmdline"] or ()):
            log.warning("ending JVM %d, left over from an earlier run", process.pid)
            process.kill()
            found.append(process)
    _, alive = psutil.wait_procs(found, _KILL_S)
    if alive:
        raise JobError(
            f"JVM {alive[0].pid} of an earlier run does not end: kill it by hand (kill -9"
            f" {alive[0].pid}), then start again"
        )
    return len(found)


def flink_config(settings: Settings, checkpoint: str | None, rest_port: int) -> dict[str, str]:
    """Flink's configuration of the job, by its names."""
    config = {
        "pipeline.name": "headrace",
        "pipeline.jars": ";".join(path.as_uri() for path in jars("flink")),
        "pipeline.object-reuse": "true",
        "parallelism.default": str(settings.flink.parallelism),
        # an idle timeout would lose events while catching up; time moves by marks alone
        "table.exec.source.idle-timeout": "0 ms",
        "table.local-time-zone": "UTC",
        # rows of a key come in order from one subtask: nothing to materialize
        "table.exec.sink.upsert-materialize": "NONE",
        "table.exec.sink.require-on-conflict": "false",
        "execution.checkpointing.interval": f"{settings.flink.checkpoint_ms} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": checkpoint_url(settings),
        "execution.checkpointing.savepoint-dir": checkpoint_url(settings),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": "3",
        "state.backend.type": settings.flink.state_backend,
        "execution.checkpointing.incremental": "true",  # where the backend can
        "pipeline.auto-watermark-interval": f"{min(50, settings.flink.checkpoint_ms)} ms",
        "execution.buffer-timeout.interval": "10 ms",
        # what several sinks read is planned, and computed, once
        "table.optimizer.reuse-optimize-block-with-digest-enabled": "true",
    }
    if checkpoint:
        config["execution.state-recovery.path"] = checkpoint
    if settings.flink.master:
        host, _, port = settings.flink.master.rpartition(":")
        config |= {"execution.target": "remote", "rest.address": host, "rest.port": port}
    else:
        config |= {
            "execution.target": "local",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": str(rest_port),
            "rest.bind-port": str(rest_port),
        }
    return config


def statements(script: str) -> list[str]:
    r"""The statements of a rendered script; an empty line separates them.

    >>> statements("CREATE A;\n\nEXECUTE STATEMENT SET BEGIN\nINSERT 1;\nINSERT 2;\nEND;\n")
    ['CREATE A', 'EXECUTE STATEMENT SET BEGIN\nINSERT 1;\nINSERT 2;\nEND']
    """
    return [s for part in script.split(";\n\n") if (s := part.strip().removesuffix(";"))]


def _environment(settings: Settings, config: dict[str, str]) -> TableEnvironment:
    """The table environment; starts the JVM."""
    folder = settings.state.absolute() / "flink"
    (folder / "log").mkdir(parents=True, exist_ok=True)
    os.environ["JAVA_HOME"] = str(java_home())
    os.environ["FLINK_LOG_DIR"] = str(folder / "log")
    os.environ["JVM_ARGS"] = (
        f"-Xms{settings.flink.heap_mb}m -Xmx{settings.flink.heap_mb}m"
        f" {settings.flink.jvm_options} {state_mark(settings)}"
    )

    # without it PyFlink serves Python functions from this process, for which it loads Apache Beam
    # (4 s of CPU, 150 MB); the job has none
    os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112 - its name
    log.info("loading PyFlink and starting its JVM")
    # takes seconds to import, and reads the environment that was just set
    from pyflink.common import Configuration  # noqa: PLC0415
    from pyflink.table import EnvironmentSettings, TableEnvironment  # noqa: PLC0415

    options = Configuration()
    for key, value in config.items():
        options.set_string(key, value)
    builder = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(options)
    return TableEnvironment.create(builder.build())


class Job:
    """The submitted job.

    Args:
        settings: of the job.
        sql: the script; its last statement starts the job.

    It raises:
        JobError: the script is missing, is refused, or the start would write samples twice.
    """

    def __init__(self, settings: Settings, sql: Path) -> None:
        if not sql.exists():
            raise JobError(
                f"there is no SQL at {sql}: the launcher renders it (features.sql.render_job);"
                " start the job with `headrace up`"
            )
        end_leftovers(settings)
        checkpoint = newest_checkpoint(checkpoint_url(settings))
        check_start(settings, checkpoint)
        if checkpoint:
            prune_checkpoints(checkpoint_url(settings), checkpoint)
        log.info("starting from %s", checkpoint or "the beginning of the topics")
        self._settings = settings
        self.rest = settings.flink.master or f"127.0.0.1:{_free_port()}"
        port = int(self.rest.rpartition(":")[2])
        environment = _environment(settings, flink_config(settings, checkpoint, port))
        log.info("planning the SQL")
        self._client = _submit(environment, statements(sql.read_text()))
        self.id = str(self._client.get_job_id())
        log.info("job %s is submitted, REST at %s", self.id, self.rest)

    def status(self) -> str:
        """Flink's word for its state.

        Raises:
            JobError: the JVM is gone.
        """
        from py4j.protocol import Py4JError, Py4JNetworkError  # noqa: PLC0415

        try:
            return str(self._client.get_job_status().result().name)
        except (Py4JNetworkError, Py4JError, OSError) as error:
            raise JobError(
                f"the JVM of the job is gone ({error}); its last words are in"
                f" {self._settings.state / 'flink' / 'log'}. Start it again: it goes on from its"
                " newest checkpoint"
            ) from error

    def stop(self) -> None:
        """Take a savepoint and end; what is not possible in time is left to the checkpoint."""
        from py4j.protocol import Py4JError  # noqa: PLC0415
        from pyflink.java_gateway import get_gateway  # noqa: PLC0415

        done = threading.Event()

        def savepoint() -> None:
            # PyFlink's own method lacks the format, which Flink 2 asks for
            formats = get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType
            url = checkpoint_url(self._settings)
            client = self._client._j_job_client
            while not done.is_set():
                try:
                    path = client.stopWithSavepoint(False, url, formats.NATIVE).get()
                except Py4JError as error:
                    # a job that has only just started has tasks that cannot take one yet
                    log.warning("no savepoint: %s", str(error).split("\tat ", 1)[0].strip())
                    time.sleep(_POLL_S)
                else:
                    log.info("stopped with %s", path)
                    done.set()

        threading.Thread(target=savepoint, daemon=True).start()
        if not done.wait(_STOP_S):
            done.set()
            log.warning("no savepoint within %.0f s: the newest checkpoint has to do", _STOP_S)
            self._client.cancel()


def _submit(environment: TableEnvironment, script: list[str]) -> Any:  # noqa: ANN401 - a JobClient
    from py4j.protocol import Py4JJavaError  # noqa: PLC0415
    from pyflink.util.exceptions import TableException  # noqa: PLC0415

    result = None
    for statement in script:
        try:
            if view := _VIEW.match(statement):
                # a view that is made of its text is planned anew wherever it is read, and what is
                # planned anew may be computed anew; of a table, Flink reads the same plan
                environment.create_temporary_view(
                    view[1], environment.sql_query(statement[view.end() :])
                )
                continue
            result = environment.execute_sql(statement)
        except (Py4JJavaError, TableException) as error:
            first = str(error).split("\tat ", 1)[0].strip()
            raise JobError(
                f"Flink refuses this statement: {first}\n{statement}\nIt is rendered from the"
                " declaration of the log: correct that one"
            ) from error
    client = result and result.get_job_client()
    if client is None:
        raise JobError("the last statement of the script starts no job; is the script whole?")
    return client


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(settings: Settings, sql: Path) -> None:
    """Run the job until a signal or its end.

    Raises:
        JobError: it cannot start, it failed, or its JVM died.
        BrokerError: there is no broker.
    """
    stopping = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    wait_for_kafka(settings, _BROKER_S)
    create_topics(settings)
    metrics = JobMetrics()
    job = Job(settings, sql)
    exposed = False
    while not stopping.wait(_POLL_S):
        status = job.status()
        if status == "RUNNING" and not exposed:
            _lower_priority(settings.flink.niceness)
            # other processes wait for this port to know that the job runs
            start_http_server(settings.job_metrics_port, addr=settings.metrics_host)
            exposed = True
        metrics.update(job.rest, job.id, status)
        if status in _ENDED:
            raise JobError(
                f"the job is {status}; the cause is in {settings.state / 'flink' / 'log'}"
            )
    log.info("stopping")
    job.stop()


def _own_group() -> None:
    """Lead a process group, so that ending it also ends the JVM."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


def _lower_priority(niceness: int) -> None:
    """Lower the priority of all threads of this process group, so of the JVM too."""
    # never raise the priority: that needs privileges
    niceness = max(niceness, os.getpriority(os.PRIO_PROCESS, 0))
    # Linux may divide the CPU among sessions first (autogroup): niceness counts only within one
    session = Path("/proc/self/autogroup")
    try:
        os.setpriority(os.PRIO_PGRP, 0, niceness)
        if os.getsid(0) == os.getpid() and session.exists():
            session.write_text(str(niceness))
    except OSError as error:
        log.warning("could not lower the job's priority (flink.niceness): %s", error)


def main(arguments: list[str]) -> None:
    """The command line of this module."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _own_group()
    settings = Settings.read(Path(arguments[0]))
    try:
        run(settings, Path(arguments[1]) if len(arguments) > 1 else default_sql(settings))
    except (JobError, BrokerError, ConfigurationError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says all, a trace would hide it
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
