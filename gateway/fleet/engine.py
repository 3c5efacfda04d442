"""One engine, through all its boots: is it there, may it serve, what does it hold?"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import uuid4

from adapters.version import Version
from gateway.fleet.admission import Admission
from gateway.fleet.client import Address, Client, Lost, NoAnswer
from gateway.fleet.events import Events, Kind
from gateway.fleet.health import Health
from gateway.fleet.lease import Entry, Lease
from gateway.fleet.pace import Pace
from gateway.fleet.plugin import Report, degraded, objection
from gateway.fleet.progress import Progress, Stage, further
from gateway.fleet.residency import Residency, Shelf, Spawn
from gateway.settings import Settings

logger = logging.getLogger(__name__)

FIRST_GUESS_S = 30.0
"""How long a start takes, until one was measured (27 to 45 s were, vLLM 0.32 on 2 cores)."""
START_POLL_S = 0.25
SYNC_EVERY = 5
"""Probes of a local engine from one look at its residency to the next. A remote one is asked each time, for
its boot id, too: nothing else would tell of a restart."""
PATIENCE = 4
"""Probes in a row that may time out. A busy engine is slow; a dead one refuses, which counts at once."""


class Status(StrEnum):
    STARTING = "starting"
    RECONCILING = "reconciling"
    SERVING = "serving"
    FAILED = "failed"
    STOPPING = "stopping"


class Unfit(Exception):
    """The engine is well, but must not serve; the message says why."""


class Rebooted(Lost):
    """The engine behind the address is another process now, and knows none of our adapters."""


@dataclass(slots=True)
class Boot:
    """One run of the engine's process, from when it was found fit. It takes its adapters with it."""

    id: str
    address: Address
    report: Report | None
    residency: Residency
    base: Entry
    admission: Admission
    prompt_logprobs_safe: bool


@dataclass(frozen=True, slots=True)
class Context:
    """What every engine of a fleet shares. `desired` gives what the engine of this name is to hold, most
    wanted first; `source` is where engines without our disk fetch adapters."""

    settings: Settings
    desired: Callable[[str], Sequence[Version]]
    path_of: Callable[[Version], Path]
    pinned: Callable[[], Set[str]]
    source: str
    events: Events
    refused: Set[str]
    base_fingerprint: str | None
    spawn: Spawn
    on_change: Callable[[], None]
    say: Callable[[str], None]
    watch_boot_id: bool
    clock: Callable[[], float] = time.monotonic


class Engine:
    """State of one engine. `boot` is None unless it may get requests right now.

    Whoever knows the address calls `serve` for every boot: `gateway.fleet.local` for a child process of
    ours, `gateway.fleet.remote` for one that somebody else runs.
    """

    def __init__(self, name: str, context: Context, *, shared_store: bool = True) -> None:
        fleet = context.settings.fleet
        self.name = name
        self.shared_store = shared_store
        self.draining = False
        self.degraded: str | None = None
        self.health = Health(
            consecutive=fleet.eject_after,
            base_s=fleet.eject_s,
            max_s=max(fleet.eject_s, fleet.eject_max_s),
            slow_start_s=fleet.slow_start_s,
            clock=context.clock,
        )
        self.status = Status.STARTING
        self.reason: str | None = None
        self.boot: Boot | None = None
        self.residency: Residency | None = None
        self.stage = Stage.IMPORTING
        self.address: Address | None = None
        self.report: Report | None = None
        self.pid: int | None = None
        self.starts = 0
        self.began = context.clock()
        self.served_at: float | None = None
        self._context = context
        self.took_s: float | None = None
        self._due = self.began + FIRST_GUESS_S
        self._client: Client | None = None
        self._probe_now = asyncio.Event()

    @property
    def retry_after_s(self) -> float:
        """When it is worth asking again: the last measured start time, less what has passed; at least 1 s."""
        return max(1.0, self._due - self._context.clock())

    @property
    def takes_requests(self) -> bool:
        """Whether new requests may go there, as far as it is not ejected."""
        return self.boot is not None and not self.draining

    @property
    def capacity(self) -> float:
        """How much of the fleet's load it should have, against others: its slots for adapters."""
        return float(
            (self.report.max_loras if self.report else None) or self._context.settings.engine.max_loras
        )

    @property
    def cache(self) -> int:
        """Versions that it holds at most."""
        return (
            self.report.max_cpu_loras if self.report else None
        ) or self._context.settings.engine.max_cpu_loras

    @property
    def fullness(self) -> float:
        """Requests at work and waiting there, against its capacity; it counts more while it starts slowly."""
        boot = self.boot
        if boot is None:
            return float("inf")
        return (boot.admission.in_flight + boot.admission.waiting) / (self.capacity * self.health.weight())

    def demand(self) -> Mapping[str, int]:
        """Version -> requests in flight and waiting."""
        if self.boot is None:
            return {}
        return Counter(self.boot.admission.active) + Counter(self.boot.admission.waiting_by_key)

    def succeeded(self, began: float) -> None:
        """A request that began then was answered."""
        health = self.health
        if health.until is None and not health.failures:
            return  # nothing to make good
        suspect = health.suspect
        health.succeeded(began=began)
        if suspect and not health.suspect:
            self.tell(Kind.RECOVERED, None, "it answered again")

    def failed(self, reason: str, *, fatal: bool, began: float) -> None:
        """A request that began then was not answered as an engine answers. `fatal`: it cannot be there."""
        if self.health.failed(reason, fatal=fatal, began=began):
            self.tell(Kind.EJECTED, None, f"{self.health.ejected()}; for {self.health.back_in_s():.1f} s")
            self._context.on_change()
            if self.boot is not None:
                self.boot.admission.disperse()
        if fatal:
            self.probe_soon()

    def tell(self, kind: Kind, version: str | None, reason: str) -> None:
        self._context.events.add(kind, self.name, version, reason)

    def starting(self, address: Address, pid: int | None) -> None:
        """A new boot was started (or is looked for) at `address`."""
        self.starts += 1
        self.address, self.pid, self.report = address, pid, None
        self.began = self._context.clock()
        self._due = self.began + (self.took_s or FIRST_GUESS_S)
        self._become(Status.STARTING)
        self.progress(Stage.IMPORTING)

    def down(self, reason: str, again_in_s: float) -> None:
        """It is out of service, and is tried again in `again_in_s`."""
        self.pid = None
        self._due = self._context.clock() + again_in_s + (self.took_s or FIRST_GUESS_S)
        if self.status is not Status.FAILED or self.reason != reason:
            self.tell(Kind.LEFT, None, reason)
        self._become(Status.FAILED, reason)
        text = f"engine {self.name} is out of service: {reason}; next try in {again_in_s:.1f} s"
        logger.error("%s", text)
        self._context.say(text)

    async def refresh_report(self, timeout_s: float) -> None:
        """Asks the plugin again what is resident. An engine that is slow or gone leaves the last answer."""
        boot, client = self.boot, self._client
        if boot is None or client is None or not boot.residency.shelf.by_plugin:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._sync(client, boot)
        except (Lost, TimeoutError) as error:
            logger.info("engine %s does not say what is resident: %s", self.name, error)

    def stopping(self) -> None:
        self._become(Status.STOPPING)

    def probe_soon(self) -> None:
        """Something looked wrong from outside: look at once instead of at the next probe."""
        self._probe_now.set()

    def progress(self, stage: Stage) -> None:
        """Tells a step of a start; one that is past already (the log is read with a delay) is not told."""
        if stage is not Stage.IMPORTING and not further(self.stage, stage):
            return
        self.stage = stage
        self._context.say(str(Progress(self.name, stage, self._context.clock() - self.began)))

    def lease(self, boot: Boot, entry: Entry) -> Lease:
        """A hold on `entry`, which admission has let in."""
        return Lease(
            boot.address, boot.prompt_logprobs_safe, entry, boot.admission, self, self._context.clock()
        )

    async def serve(self, address: Address, give_up_after_s: float | None) -> None:
        """Waits until the engine is well, checks it, loads what it should hold, serves, and watches it.

        Never returns: raises `Lost` when it is gone (or not well within `give_up_after_s`), `Rebooted`, or
        `Unfit`. Out of service when this ends, however it ends.
        """
        fleet = self._context.settings.fleet
        client = Client(address, probe_timeout_s=fleet.probe_timeout_s, load_timeout_s=fleet.load_timeout_s)
        residency = Residency(
            client,
            address,
            Shelf(self._context.path_of, shared=self.shared_store, source=self._context.source),
            self._context.spawn,
            Pace(fleet.loads_per_s, fleet.load_burst, clock=self._context.clock),
            self.tell,
            self._context.pinned,
            self._context.clock,
        )
        self.residency = residency
        self.served_at = None
        try:
            await self._until_well(client, give_up_after_s)
            boot = await self._admit(client, address, residency)
            self._become(Status.RECONCILING)
            self.progress(Stage.LOADING_ADAPTERS)
            # What holds adapters already is in use through another gateway.
            used = boot.report is None or bool(boot.report.resident)
            await residency.reconcile(self._wanted(boot), self._context.refused, paced=used)
            self.took_s = self._context.clock() - self.began
            self.served_at = self._context.clock()
            self.boot, self._client = boot, client
            self.health.recovered()
            self._become(Status.SERVING)
            self.tell(Kind.RECOVERED if self.starts > 1 else Kind.JOINED, None, f"after {self.took_s:.1f} s")
            if self.degraded:
                self.tell(Kind.DEGRADED, None, self.degraded)
            self.progress(Stage.READY)
            logger.info("engine %s serves after %.1f s (boot %s)", self.name, self.took_s, boot.id)
            await self._watch(client, boot)
        finally:
            boot_was, self.boot = self.boot, None
            self.residency = self._client = None
            residency.close(f"engine {self.name} went away")
            if boot_was is not None:
                boot_was.admission.close()
            if self.status is not Status.STOPPING:
                self._due = self._context.clock() + (self.took_s or FIRST_GUESS_S)
                self._become(Status.FAILED, "it went away")
            await client.close()

    async def _until_well(self, client: Client, give_up_after_s: float | None) -> None:
        while True:
            try:
                return await client.health()
            except Lost as error:
                waited = self._context.clock() - self.began
                if give_up_after_s is not None and waited > give_up_after_s:
                    raise Lost(f"not ready {waited:.0f} s after its start: {error}") from error
                if give_up_after_s is None:  # nobody tells us more about a remote one
                    self.reason = str(error)
            await asyncio.sleep(START_POLL_S)

    async def _admit(self, client: Client, address: Address, residency: Residency) -> Boot:
        settings = self._context.settings
        names = await client.models()
        if settings.base.name not in names:
            raise Unfit(
                f"it does not serve the base {settings.base.name!r} but {', '.join(sorted(names)[:5])}: "
                "start it with --served-model-name, or correct base.name"
            )
        body = await client.plugin()
        try:
            report = self.report = None if body is None else Report.read(body)
        except ValueError as error:
            raise Unfit(str(error)) from error
        problem = objection(report, self._context.base_fingerprint)
        if problem is not None and settings.fleet.require_plugin:
            raise Unfit(problem)
        if problem is not None:
            logger.warning(
                "engine %s serves, because fleet.require_plugin is off, though %s", self.name, problem
            )
        self.degraded = problem or degraded(report)
        if report is not None and "adapters" in report.routes:
            residency.shelf.by_plugin = True
            residency.shelf.capacity = report.max_cpu_loras
        return Boot(
            id=report.boot_id if report else str(uuid4()),
            address=address,
            report=report,
            residency=residency,
            base=Entry.at(address, settings.base.name, None, loaded=True),
            admission=self._admission(report),
            prompt_logprobs_safe=report.prompt_logprobs_safe if report else False,
        )

    def _admission(self, report: Report | None) -> Admission:
        settings = self._context.settings
        fleet = settings.fleet
        return Admission(
            slots=(report.max_loras if report else None) or settings.engine.max_loras,
            seats=fleet.max_in_flight or (report.max_num_seqs if report else None),
            queue=fleet.queue,
            apart=report.apart if report else True,
            age_bound_s=fleet.age_bound_s,
            clock=self._context.clock,
        )

    def _wanted(self, boot: Boot) -> Sequence[Version]:
        """What it is to hold now, most wanted first."""
        reported = boot.report.max_cpu_loras if boot.report else None
        limit = reported or self._context.settings.engine.max_cpu_loras
        return self._context.desired(self.name)[:limit]

    async def _watch(self, client: Client, boot: Boot) -> None:
        fleet, slow, probes = self._context.settings.fleet, 0, 0
        while True:
            try:
                async with asyncio.timeout(fleet.probe_interval_s):
                    await self._probe_now.wait()
            except TimeoutError:
                pass  # nobody is in a hurry
            self._probe_now.clear()
            probes += 1
            try:
                await client.health()
                # Asks the worker, between two steps.
                if boot.report is not None and (self._context.watch_boot_id or probes % SYNC_EVERY == 0):
                    await self._sync(client, boot)
            except NoAnswer as error:
                slow += 1
                if slow >= PATIENCE:
                    raise Lost(f"{error}, {slow} times in a row") from error
                continue
            slow = 0

    async def _sync(self, client: Client, boot: Boot) -> None:
        """Is it the same engine still, and what does it hold?"""
        if not boot.residency.shelf.by_plugin:
            body = await client.plugin()
            same = body is not None and body.get("boot_id") == boot.id
        else:
            before = boot.residency.changes
            held = await client.adapters()
            same = held is not None and held.boot_id == boot.id
            if held is not None and same and boot.residency.changes == before:
                boot.residency.sync(held.adapters)
        if not same:
            raise Rebooted("it was restarted: its boot id changed")

    def _become(self, status: Status, reason: str | None = None) -> None:
        self.status, self.reason = status, reason
        self._context.on_change()
