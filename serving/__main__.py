"""``python -m serving SETTINGS``: the HTTP server. Metrics: :mod:`serving.server_metrics`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from threadpoolctl import threadpool_limits

from serving.http.server import run
from settings.errors import HeadraceError
from settings.settings import Settings


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kafka").setLevel(logging.WARNING)
    # a ranking multiplies thin blocks in sequence: more threads would only wait for each other
    threadpool_limits(1, user_api="blas")
    try:
        return 0 if run(Settings.read(Path(sys.argv[1]))) else 1
    except HeadraceError as error:
        logging.getLogger("serving").critical("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
