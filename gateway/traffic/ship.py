"""The shipper's own process: `python -m gateway.traffic.ship`, started and kept by a gateway.

In a process of its own because it decodes, compresses and waits: nothing of that may stand in the way of a
request. It ends after a pass when it is told to; killed, it goes on where it was (`gateway.traffic.shipper`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from gateway.db.database import CONNECTION
from gateway.supervise import log_to
from gateway.supervise.background import step_back
from gateway.traffic.second import Examining, SecondTier, Unexamined
from gateway.traffic.writers import take

SETTINGS = "HOTSWAP_SHIPPER_SETTINGS"
DATABASE_URL = "HOTSWAP_SHIPPER_DATABASE_URL"

EXAMINED_BYTES = 4 * 1024 * 1024
"""Of segments in one commit where rows are examined on the way, which may take a minute."""
COMPACT_AFTER = 100
"""Commits, each of which makes a small file a partition."""
SLOWEST_RETRY_S = 30.0
WRITER = {"DELTARS_MAX_CONCURRENT_WRITERS": "1", "DELTARS_WRITER_BATCH_CHANNEL_SIZE": "2"}
"""For deltalake, which reads them once. With several writers it deals rows out by partition, and while one of
them gets none, as when one partition is rewritten, it holds all that it has read in memory."""

if TYPE_CHECKING:
    from gateway.traffic.shipper import Shipped

log = logging.getLogger("hotswap.traffic")


@dataclass(frozen=True, slots=True)
class Shipping:
    """What a gateway tells the process. `options` are deltalake's for its store: they may hold secrets, so
    all of this goes by the environment. `examining`: what the second tier of redaction looks for."""

    journal: str
    lake: str
    log: str
    every_s: float = 5.0
    vacuum_hours: int = 24
    options: Mapping[str, str] = field(default_factory=dict)
    examining: Examining | None = None

    def environment(self, database_url: str) -> dict[str, str]:
        return {SETTINGS: json.dumps(asdict(self)), DATABASE_URL: database_url, **WRITER}


def told(environment: Mapping[str, str]) -> Shipping:
    """What stands in the environment of the process."""
    return msgspec.json.decode(environment[SETTINGS], type=Shipping)


def main() -> None:
    step_back()  # what is shipped later is shipped all the same; requests come first
    wanted = told(os.environ)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log_to(Path(wanted.log))
    journal = Path(wanted.journal)
    journal.mkdir(parents=True, exist_ok=True)
    while (lock := take(journal)) is None:  # another gateway on this machine keeps one
        if stop.wait(1.0):
            return
    engine = create_engine(
        make_url(os.environ[DATABASE_URL]).set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args=CONNECTION,
    )
    try:
        _run(wanted, engine, stop)
    finally:
        engine.dispose()
        lock.release()


def _run(wanted: Shipping, engine: Engine, stop: threading.Event) -> None:
    # Here, not above: deltalake takes half a second, and what only waits for the lock needs none of it.
    from deltalake.exceptions import DeltaError

    from gateway.traffic.amendments import drop_expired
    from gateway.traffic.eraser import Eraser
    from gateway.traffic.lake import Lake
    from gateway.traffic.rollup import Rollups
    from gateway.traffic.shipper import Shipper

    lake = Lake(wanted.lake, wanted.options)
    eraser = Eraser(Path(wanted.journal), lake, engine)
    shipper = Shipper(Path(wanted.journal), lake, Rollups(engine), keeps=eraser.keeps, **_second(wanted))
    failures, commits, tidied = 0, 0, date.min
    while True:
        try:
            eraser.look()
            done = shipper.ship()
            eraser.erase()
            commits += done.commits
            if done.rows:
                log.info("%d exchanges from %d segments are in the lake", done.rows, done.segments)
            if commits >= COMPACT_AFTER:
                lake.compact()
                lake.vacuum(wanted.vacuum_hours)
                commits = 0
            today = datetime.now(UTC).date()
            if tidied != today:
                lake.drop_orphans()
                if gone := lake.drop_expired(today):
                    log.info("their time is over: %s", ", ".join(gone))
                with engine.begin() as connection:
                    drop_expired(connection, today)
                tidied = today
            _tell(done)
            failures = failures + 1 if done.waiting else 0
        except (DeltaError, SQLAlchemyError, OSError) as error:
            failures += 1
            log.warning("%s; the journal keeps everything meanwhile", _told(error, wanted.lake))
        wait_s = wanted.every_s if not failures else min(SLOWEST_RETRY_S, 2.0**failures)
        if stop.wait(wait_s):
            break
    # What was closed while we were told to stop. If it cannot be shipped now, the next process does it.
    try:
        _tell(shipper.ship())
    except (DeltaError, SQLAlchemyError, OSError) as error:
        log.warning("the last segments stay in the journal: %s", _told(error, wanted.lake))


def _second(wanted: Shipping) -> dict[str, Any]:
    """The second tier of redaction, as the shipper takes it, where there is to be one. What is wrong with it
    is told now, and again when a row needs it."""
    if wanted.examining is None:
        return {}
    # spaCy and presidio import torch where it is, for 350 MB and some seconds; what runs here needs none.
    sys.modules["torch"] = None  # type: ignore[assignment]
    second = SecondTier(wanted.examining)
    try:
        second.load()
    except Unexamined as error:
        log.error("%s. Exchanges of strict routes stay in the journal meanwhile", error)  # noqa: TRY400
    return {"examine": second, "commit_bytes": EXAMINED_BYTES}


def _tell(done: Shipped) -> None:
    for why in done.waiting:
        log.error("%s. The segment stays in the journal meanwhile", why)


def _told(error: Exception, lake: str) -> str:
    """What is away, and why."""
    from gateway.traffic.lake import reason_of

    if isinstance(error, SQLAlchemyError):  # below its first line are the statement's values
        return f"Postgres: {str(error).partition(chr(10))[0][:500]}"
    return f"the lake in {lake}: {reason_of(error)}"


if __name__ == "__main__":
    main()
