"""Runs the server: uvicorn in one process with one event loop, tuned for short answers."""

from __future__ import annotations

import socket
import sys

import uvicorn

from serving.http.app import make_app
from serving.http.service import Service
from settings.errors import ConfigurationError
from settings.settings import Settings
from streaming.kafka.tune_gc import tune_gc

# a thread in the background gives the interpreter back after this; Python's 5 ms would be the
# longest wait of a request
_SWITCH_S = 0.0005
_BACKLOG = 2048
_STOP_S = 5


class HttpServer:
    """A server whose socket listens before it runs.

    Args:
        settings: of all parts.

    Raises:
        ConfigurationError: the port is taken, or the experiment file or the log's declaration
            cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._listener = _listen(settings.serving.host, settings.serving.port)
        self._failed = False
        self.service = Service(settings, on_death=self._fail)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                make_app(settings, self.service),
                loop="uvloop",
                http="httptools",
                access_log=False,
                log_config=None,
                lifespan="on",
                timeout_graceful_shutdown=_STOP_S,
            )
        )

    def run(self) -> bool:
        """Serve until SIGTERM, SIGINT or :meth:`stop`; whether all went well."""
        self._uvicorn.run(sockets=[self._listener])
        return not self._failed

    def stop(self) -> None:
        """Make :meth:`run` return soon; may be called in any thread."""
        self._uvicorn.should_exit = True

    def _fail(self) -> None:
        self._failed = True
        self.stop()


def run(settings: Settings) -> bool:
    """Serve in this process until a signal ends it; True unless it failed."""
    sys.setswitchinterval(_SWITCH_S)
    server = HttpServer(settings)
    tune_gc()
    return server.run()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error.strerror}): end what uses the port, or take"
            " another by serving.port"
        ) from error
