"""A worker with the fake trainer, to be killed: its settings as JSON, and the URL of the database."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from gateway.jobs.worker import Worker
from gateway.settings import Settings

TRAINER = Path(__file__).with_name("fake_trainer.py")


def command(spec: Path) -> list[str]:
    return [sys.executable, str(TRAINER), str(spec)]


async def main() -> None:
    worker = Worker(Settings.model_validate_json(sys.argv[1]), sys.argv[2], command=command, poll_s=0.2)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
