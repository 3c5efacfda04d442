"""The room as a whole: what a gateway process needs to remember its traffic, started and stopped together."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Column, LargeBinary, MetaData, SmallInteger, Table, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.requestid import when
from gateway.settings import Settings
from gateway.supervise import Child, keep
from gateway.traffic.amendments import Amendments
from gateway.traffic.cleaner import Cleaner
from gateway.traffic.feedback import Feedback
from gateway.traffic.forgetting import Forgetting
from gateway.traffic.imports import Imports
from gateway.traffic.journal import Journal
from gateway.traffic.place import lake_place
from gateway.traffic.policy import Policies, Policy
from gateway.traffic.query import NEAR_S, Wanted, one
from gateway.traffic.readers import Readers
from gateway.traffic.recorder import Recorder
from gateway.traffic.second import examining, missing
from gateway.traffic.ship import Shipping
from gateway.traffic.stored import StoredCompletions
from gateway.traffic.unit import new_salt

log = logging.getLogger("hotswap.traffic")

COUNT_EVERY_S = 1.0
WRITTEN_S = 0.1
"""After its end a record is in the journal's file within this."""

metadata = MetaData()

_salts = Table(
    "traffic_salt",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("salt", LargeBinary, nullable=False),
)


class Counters(Protocol):
    """Where what the journal counts is shown (`gateway.telemetry`)."""

    def journal(self, *, records: int, dropped: int, full: bool) -> None: ...


class Traffic:
    """`start` it before requests come, `stop` it after the last; `recorder` is the data plane's."""

    def __init__(self, settings: Settings, engine: AsyncEngine, base: str, counters: Counters) -> None:
        traffic = settings.traffic
        self._settings = settings
        self._engine = engine
        self._base = base
        self._counters = counters
        self._counted = 0, 0
        self._journal = Journal(
            settings.journal_path,
            segment_bytes=traffic.segment_bytes,
            segment_age_s=traffic.segment_age_s,
            limit_bytes=traffic.journal_bytes,
        )
        self.policies = Policies(
            engine,
            Policy(
                traffic.capture, traffic.sample, traffic.redact, traffic.retention_days, traffic.consent or ""
            ),
        )

        self.readers = Readers(settings)
        self.feedback = Feedback(engine, self._find)
        self.amendments = Amendments(engine)

    async def start(self) -> None:
        """Raises `JournalError` when the journal cannot be written."""
        await self.policies.refresh()
        salt = await salt_of(self._engine)
        self._cleaner = Cleaner(self._journal, salt)
        self.forgetting = Forgetting(self._engine, salt)
        await self.forgetting.refresh()
        self.imports = Imports(
            self._engine,
            self._settings.journal_path,
            self.policies,
            salt,
            self._known,
            journal_bytes=self._settings.traffic.journal_bytes,
        )
        await self.imports.start()
        self.stored = StoredCompletions(self.readers, self.forgetting, self.policies, self.amendments)
        await asyncio.to_thread(self._journal.start)
        self._cleaner.start()
        self.recorder = Recorder(self._journal, self.policies, self._base, self._cleaner.clean)

    async def stop(self) -> None:
        """Everything that was handed over is in closed segments then."""
        await self.imports.stop()
        await self.readers.stop()
        self.recorder.write_down()
        await self._cleaner.stop()
        await asyncio.to_thread(self._journal.stop)
        self._count()

    async def _find(self, id: str) -> Mapping[str, Any] | None:
        """An exchange by its request id, when it may be read."""
        try:
            wanted = one(id)
        except ValueError:
            return None
        found = await self._page(wanted)
        if not found:  # what has ended just now is in the journal a moment later
            await asyncio.sleep(WRITTEN_S)
            found = await self._page(wanted)
        return found[0] if found else None

    async def _known(self, route: str, ids: Sequence[str]) -> set[str]:
        """Which of these request ids are remembered of a route."""
        if not ids:
            return set()
        times = [when(id).timestamp() for id in ids]
        since, until = max(0.0, min(times) - NEAR_S), max(times) + NEAR_S
        found = await self._page(Wanted(route=route, ids=tuple(ids), since=since, until=until, limit=None))
        return {row["id"] for row in found}

    async def _page(self, wanted: Wanted) -> list[dict[str, Any]]:
        pieces = [piece async for piece in self.readers.ask("page", wanted, self.forgetting.now)]
        found: list[dict[str, Any]] = json.loads(b"".join(pieces))["data"]
        return found

    async def refresh(self) -> None:
        """Takes over what other gateways have changed."""
        await self.policies.refresh()
        await self.forgetting.refresh()

    async def keep_counting(self) -> None:
        """Shows what the journal counts, until cancelled."""
        while True:
            self._count()
            await asyncio.sleep(COUNT_EVERY_S)

    def _count(self) -> None:
        now = self._journal.appended, self._journal.dropped + self._cleaner.dropped
        records, dropped = (new - old for new, old in zip(now, self._counted, strict=True))
        self._counted = now
        self._counters.journal(records=records, dropped=dropped, full=self._journal.full)


def keep_shipping(
    settings: Settings, database_url: str, say: Callable[[str], None]
) -> Coroutine[Any, Any, None] | None:
    """Keeps the shipper's process running, until cancelled; None where nothing is to be shipped."""
    place = lake_place(settings)
    if place is None:
        if settings.lake_uri is not None:
            log.warning("deltalake is not installed: traffic stays in %s", settings.journal_path)
            say("traffic stays in the journal; to ship it to a lake: pip install 'hotswap[lake]'")
        return None
    shipping = Shipping(
        journal=str(settings.journal_path),
        lake=place.uri,
        log=str(settings.log_path / "shipper.log"),
        every_s=settings.traffic.ship_every_s,
        options=place.options,
        examining=examining(settings.traffic.presidio),
    )
    if shipping.examining is not None and (problem := missing(shipping.examining)):
        log.error("%s", problem)
        say(f"{problem}. Exchanges of strict routes stay in the journal meanwhile")

    def child() -> Child:
        return Child(
            "shipper",
            [sys.executable, "-m", "gateway.traffic.ship"],
            state_dir=settings.state_dir,
            log_path=settings.log_path / "shipper.out",
            env={**os.environ, **shipping.environment(database_url)},
        )

    return keep(child, lambda text: log.error("%s", text))


async def salt_of(engine: AsyncEngine) -> bytes:
    """What hashes of units are keyed with, made once for all gateways."""
    async with engine.begin() as connection:
        await connection.execute(insert(_salts).values(id=1, salt=new_salt()).on_conflict_do_nothing())
        return bytes((await connection.execute(select(_salts.c.salt))).scalar_one())
