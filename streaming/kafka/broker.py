"""The embedded Kafka broker: one node that is broker and controller (KRaft).

``python -m streaming.kafka.broker SETTINGS`` runs it in the foreground; :class:`Broker` is the
same as a context manager. Its data, configuration and log are in ``STATE/broker``. The JVM is the
leader of its own process group, and its process id is in ``STATE/run/broker.pid``: the next
start finds a broker that a killed launcher left running there, and stops it.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
from prometheus_client import Gauge, start_http_server

from settings.errors import BrokerError, ConfigurationError
from settings.settings import Settings
from streaming.kafka.client import wait_for_broker
from streaming.kafka.java import classpath, java, java_environment

log = logging.getLogger(__name__)

# any fixed cluster id will do: the data folder is the cluster
_CLUSTER_ID = "aGVhZHJhY2UtZW1iZWRkZQ"
_START_S = 60.0
_STOP_S = 20.0
_DAY_MS = 86_400_000
_LOG_BYTES = 10_000_000
_TAIL_BYTES = 2_000

_LOGGING = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = Console
appender.console.type = Console
appender.console.name = Console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1}: %m%n
"""


class Broker:
    """The broker's process: formats its folder, starts, waits until it is ready, stops.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.

    Args:
        settings: ``kafka.bootstrap`` says where it listens, ``state`` where its data is.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.state.absolute() / "broker"
        self.pid_file = settings.state.absolute() / "run" / "broker.pid"
        self.log_file = self.folder / "server.log"
        self.host, self.port = address(settings)
        self._properties = self.folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        """Start, and wait until it is ready."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @property
    def pid(self) -> int | None:
        """The JVM's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Stop a leftover broker, format a new data folder, start, and wait until it is ready.

        Raises:
            BrokerError: a port is in use, or the broker died or did not come up in a minute.
            ConfigurationError: no Java, a jar that is missing or wrong, an unusable address.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stop_leftover(self.pid_file, self._properties)
        for port in (self.port, self.settings.kafka.controller_port):
            require_free_port(self.host, port)
        self._write_files()
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()
        self._launch()
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Send SIGTERM, SIGKILL after 20 s, and remove the pid file."""
        if self._process is None:
            return
        if self._process.poll() is None:
            _signal_group(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                log.warning("broker did not stop in %.0f s: killing it", _STOP_S)
                _signal_group(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._process = None
        self.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """Send SIGKILL, as a crash would (for tests of faults)."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def exit_code(self) -> int | None:
        """The JVM's exit status once it has ended, else None."""
        return self._process.poll() if self._process else None

    def _write_files(self) -> None:
        listeners = f"{self.host}:{self.port}"
        controller = f"{self.host}:{self.settings.kafka.controller_port}"
        values = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{listeners},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{listeners}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.folder / "data",
            "num.partitions": 1,
            # a single node cannot replicate; internal topics have three replicas by default
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # fewer files and a faster start than with the default of 50 partitions
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "false",
            # a prepared transaction must outlive any downtime, else its samples are lost silently
            "transaction.max.timeout.ms": 7 * _DAY_MS,
            "transactional.id.expiration.ms": 24 * _DAY_MS,
            "log.retention.check.interval.ms": 60_000,
        }
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        (self.folder / "log4j2.properties").write_text(_LOGGING)

    def _command(self, main: str, *arguments: str) -> list[str]:
        return [
            str(java()),
            f"-Xmx{self.settings.kafka.heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            classpath("kafka"),
            main,
            *arguments,
        ]

    def _format(self) -> None:
        # a format that was interrupted leaves a folder that Kafka refuses
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        arguments = ("format", "--cluster-id", _CLUSTER_ID, "--config", str(self._properties))
        done = subprocess.run(
            self._command("kafka.tools.StorageTool", *arguments),
            env=java_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerError(
                f"cannot format the broker's folder {self.folder / 'data'}: {done.stderr.strip()}."
                " Is the disk full or the folder read-only?"
            )

    def _launch(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._properties)),
                env=java_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.write_text(str(self._process.pid))

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        while not _listens(self.host, self.port):
            if self.exit_code() is not None:
                raise BrokerError(
                    f"the broker exited with status {self.exit_code()} while starting; the end of"
                    f" {self.log_file}:\n{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"the broker does not listen on {self.host}:{self.port} after {_START_S:.0f} s;"
                    f" see {self.log_file}"
                )
            time.sleep(0.05)
        wait_for_broker(self.settings, max(1.0, deadline - time.monotonic()))

    def _log_tail(self) -> str:
        return self.log_file.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()


def address(settings: Settings) -> tuple[str, int]:
    """Host and port of ``kafka.bootstrap``, which for the embedded broker is one address.

    >>> address(Settings().with_changes(kafka={"bootstrap": "127.0.0.1:9092"}))
    ('127.0.0.1', 9092)
    """
    host, separator, port = settings.kafka.bootstrap.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ConfigurationError(
            f"kafka.bootstrap is {settings.kafka.bootstrap!r}: the embedded broker needs one"
            " HOST:PORT, such as 127.0.0.1:19092"
        )
    return host, int(port)


def require_free_port(host: str, port: int) -> None:
    """Check that a server can listen here.

    Raises:
        BrokerError: the port is in use; names the process, if the system gives it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BrokerError(
                f"port {port} on {host} is in use{_listener(port)}: stop that, or choose another"
                " with kafka.bootstrap / kafka.controller_port (HEADRACE_KAFKA__BOOTSTRAP=…)"
                f" [{error.strerror}]"
            ) from error


def _listener(port: int) -> str:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        if connection.laddr and connection.laddr.port == port and connection.pid:
            if connection.status != psutil.CONN_LISTEN:
                continue
            try:
                name = psutil.Process(connection.pid).name()
            except psutil.NoSuchProcess:
                continue
            return f" by process {connection.pid} ({name})"
    return ""


def stop_leftover(pid_file: Path, properties: Path) -> None:
    """Stop the broker of an earlier run that still uses this data folder, if there is one.

    It is recognised by its pid file *and* by this folder's configuration on its command line, since
    process ids are reused.
    """
    if not pid_file.exists():
        return
    text = pid_file.read_text().strip()
    try:
        process = psutil.Process(int(text))
        ours = str(properties) in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess, ValueError):
        ours = False
    if ours:
        log.warning("stopping the broker of an earlier run, pid %d", process.pid)
        process.terminate()
        try:
            process.wait(_STOP_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(_STOP_S)
    pid_file.unlink(missing_ok=True)


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        log.debug("process group %d is gone already", pid)


def _listens(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            # blocks, not length: Kafka preallocates sparse index files
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # a segment that retention has just removed
            continue
    return total


class BrokerMetrics:
    """The broker's metrics."""

    def __init__(self) -> None:
        self.up = Gauge("headrace_broker_up", "1 while the embedded broker serves")
        self.memory = Gauge("headrace_broker_memory_bytes", "Resident memory of the broker's JVM")
        self.data = Gauge("headrace_broker_data_bytes", "Disk that the broker's data folder takes")
        self.start_seconds = Gauge("headrace_broker_start_seconds", "Time from start to serving")


def main(settings: Settings) -> int:
    """Run the broker until SIGTERM or SIGINT; returns the exit status."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    metrics = BrokerMetrics()
    start_http_server(settings.broker_metrics_port, addr=settings.metrics_host)
    began = time.monotonic()
    with Broker(settings) as broker:
        metrics.start_seconds.set(time.monotonic() - began)
        metrics.up.set(1)
        log.info("broker is ready on %s, pid %s", settings.kafka.bootstrap, broker.pid)
        while not stopping.wait(1.0):
            if broker.exit_code() is not None:
                log.error("broker exited with %s; see %s", broker.exit_code(), broker.log_file)
                return 1
            if broker.pid is not None:
                metrics.memory.set(psutil.Process(broker.pid).memory_info().rss)
            metrics.data.set(_folder_bytes(broker.folder / "data"))
        log.info("stopping the broker")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        sys.exit(main(Settings.read(Path(sys.argv[1]))))
    except (BrokerError, ConfigurationError) as error:
        sys.exit(f"broker: {error}")
