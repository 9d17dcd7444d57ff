"""``python -m trainer SETTINGS``: run the trainer until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from prometheus_client import start_http_server

from inttower.errors import IntTowerError
from settings.errors import HeadraceError
from settings.settings import Settings
from streaming.kafka.client import wait_for_broker
from streaming.kafka.tune_gc import tune_gc
from trainer.build_models import prepare_torch
from trainer.trainer_loop import Trainer

log = logging.getLogger("trainer")


def main(arguments: list[str]) -> int:
    """Run; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m trainer SETTINGS.json\n")
        return 2
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kafka").setLevel(logging.WARNING)
    settings = Settings.read(Path(arguments[0]))
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        prepare_torch(settings)
        wait_for_broker(settings)
        trainer = Trainer(settings, stop)
        start_http_server(
            settings.trainer.metrics_port,
            addr=settings.metrics_host,
            registry=trainer.metrics.registry,
        )
        tune_gc()
        trainer.run()
    except (HeadraceError, IntTowerError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message names cause and cure; no trace helps
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
