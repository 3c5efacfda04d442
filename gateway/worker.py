"""One worker of several: `python -m gateway.worker`, started by `gateway.workers` alone."""

from __future__ import annotations

import os
import sys

from gateway.app import Place
from gateway.serve import listen, run
from gateway.settings import Settings
from gateway.supervise import log_to
from gateway.workers import NUMBER, PATIENCE, SETTINGS, tally_path


def main() -> None:
    settings = Settings.model_validate_json(os.environ[SETTINGS])
    number = int(os.environ[NUMBER])
    log_to(settings.log_path / f"worker-{number}.log")
    place = Place(
        tally=tally_path(settings, number),
        deletes_files=False,
        ships=False,
        patience_s=float(os.environ[PATIENCE]),
    )
    with listen(settings.server.host, settings.server.port, shared=True) as listener:
        run(settings, listener, lambda line: print(line, file=sys.stderr, flush=True), place)


if __name__ == "__main__":
    main()
