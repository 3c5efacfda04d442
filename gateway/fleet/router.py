"""Which engine gets a request: a version's homes, and of these the one that is well, near and not too full.

Homes come from `gateway.fleet.placement`, which every gateway computes alike. The choice among them is made
for each request, from memory: the home that has seen the prompt's beginning (its prefix cache), unless it has
more to do than its share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from gateway.fleet.demand import Demand
from gateway.fleet.engine import Engine
from gateway.fleet.events import Kind
from gateway.fleet.placement import Placement, order, place, prefer
from gateway.fleet.residency import Tell

logger = logging.getLogger(__name__)

OVER = 1.25
"""A preferred home may be this many times as full as the emptiest one (bounded load), plus `SLACK`."""
SLACK = 0.25
"""Of an engine's slots: with eight, two requests more do not send a conversation away from its cache."""
HOT = 0.5
"""Of the mean load of an engine: a version that brings more than this has more than one home."""
SPREAD_FROM = 2.0
"""Requests at work on average, below which a version stays at one home however little else there is: a second
one would only cost a load and a slot."""
SAMPLE_S = 0.25
COLD = 0.01
"""The load that a version without traffic counts as, so that cold ones are dealt out evenly too."""


class Router:
    """`engines` is the fleet's own mapping, by name, and may change at any time; `changed` tells of it."""

    def __init__(self, engines: Mapping[str, Engine], tell: Tell) -> None:
        self.placement: Placement | None = None
        self.load: Mapping[str, float] = {}
        """Version -> requests at work, as of the last placement."""
        self._engines = engines
        self._tell = tell
        self._demand = Demand()
        self._cache: dict[str, tuple[Engine, ...]] = {}
        self._everyone: tuple[Engine, ...] | None = None

    def changed(self) -> None:
        """An engine came, went, or changed its state."""
        self._cache.clear()
        self._everyone = None

    def homes(self, name: str) -> tuple[Engine, ...]:
        """The serving engines that are to hold version `name`, first choice first; empty when none serves."""
        found = self._cache.get(name)
        if found is None:
            found = self._cache[name] = self._find(name)
        return found

    def choose(self, name: str | None, affinity: int, tried: Collection[str] = ()) -> Engine | None:
        """The engine for one request for version `name` (None: the base), but none of `tried`.

        `affinity` is a hash of the beginning of the prompt, 0 when there is none.
        """
        # On the way of every request: what is remembered is looked at without a call.
        homes = self._everyone if name is None else self._cache.get(name)
        if homes is None:
            homes = self._serving() if name is None else self.homes(name)
        if not tried:
            if len(homes) == 1:
                only = homes[0]
                if only.health.until is None or only.health.ejected() is None:
                    return only
            elif homes and (chosen := self._among(homes, affinity)) is not None:
                return chosen
        return self._elsewhere(name, homes, affinity, tried)

    def _elsewhere(
        self, name: str | None, homes: Sequence[Engine], affinity: int, tried: Collection[str]
    ) -> Engine | None:
        """Homes that are left, then anyone; an ejected engine only when all of them are (panic)."""
        left = [engine for engine in homes if engine.name not in tried]
        if (chosen := self._among(left, affinity)) is not None:
            return chosen
        others = {engine.name: engine for engine in self._serving() if engine.name not in tried}
        well = {each: engine for each, engine in others.items() if engine.health.ejected() is None}
        usable = well or others
        if not usable:
            return None
        return usable[order(name or "", tuple(usable))[0]]

    def _among(self, engines: Sequence[Engine], affinity: int) -> Engine | None:
        well = {engine.name: engine for engine in engines if engine.health.ejected() is None}
        if not well:
            return None
        if len(well) == 1:
            return next(iter(well.values()))
        least = min(well.values(), key=_load)
        if not affinity:
            return least
        near = well[prefer(affinity, tuple(well))[0]]
        return near if _load(near) <= OVER * _load(least) + SLACK else least

    def _find(self, name: str) -> tuple[Engine, ...]:
        serving = {engine.name: engine for engine in self._serving()}
        if not serving:
            return ()
        planned = self.placement.homes(name) if self.placement is not None else ()
        homes = tuple(serving[each] for each in planned if each in serving)
        return homes or (serving[order(name, tuple(serving))[0]],)

    def _serving(self) -> tuple[Engine, ...]:
        if self._everyone is None:
            self._everyone = tuple(engine for engine in self._engines.values() if engine.takes_requests)
        return self._everyone

    async def keep_placing(self, versions: Callable[[], Collection[str]], interval_s: float) -> None:
        """Follows the traffic until cancelled. The arithmetic is done beside the event loop."""
        loop = asyncio.get_running_loop()
        due = loop.time() + interval_s
        while True:
            await asyncio.sleep(SAMPLE_S)
            self._demand.sample(engine.demand() for engine in self._engines.values())
            if loop.time() >= due:
                due = loop.time() + interval_s
                await self.replace(versions())

    async def replace(self, versions: Collection[str]) -> None:
        """Computes the placement of `versions` anew."""
        measured = self._demand.close_interval()
        capacities = self._capacities()
        demand = _demand(versions, measured)
        try:
            placed = await asyncio.to_thread(_place, demand, capacities, self._caches(), self.placement)
        except Exception:
            # A mistake in the arithmetic must not end serving: homes stay as they are.
            logger.exception("the placement of %d versions failed; the last one stays", len(demand))
            return
        if capacities == self._capacities():  # else an engine came or went, and was placed for
            self._use(placed, measured)

    def place_now(self, versions: Collection[str]) -> None:
        """The same in this turn of the loop, when engines come or go."""
        measured = self._demand.close_interval()
        capacities = self._capacities()
        demand = _demand(versions, measured)
        self._use(_place(demand, capacities, self._caches(), self.placement), measured)

    def _capacities(self) -> Mapping[str, float]:
        return {engine.name: engine.capacity for engine in self._engines.values() if not engine.draining}

    def _caches(self) -> Mapping[str, int]:
        return {engine.name: engine.cache for engine in self._engines.values() if not engine.draining}

    def _use(self, placement: Placement | None, measured: Mapping[str, float]) -> None:
        before, self.placement, self.load = self.placement, placement, measured
        self.changed()
        if before is not None and placement is not None:
            self._tell_of_spread(before, placement, measured)

    def _tell_of_spread(self, before: Placement, after: Placement, measured: Mapping[str, float]) -> None:
        for name in measured:
            was, now = before.homes(name), after.homes(name)
            if len(now) != len(was):
                kind = Kind.SPREAD if len(now) > len(was) else Kind.SHRUNK
                why = f"{len(was)} to {len(now)} engines at a load of {measured[name]:.1f} requests"
                self._tell(kind, name, why)


def _demand(versions: Collection[str], measured: Mapping[str, float]) -> Mapping[str, float]:
    """What `place` is told: versions without traffic count a little, so that they are dealt out, too."""
    return dict.fromkeys(versions, COLD) | {name: max(COLD, load) for name, load in measured.items()}


def _place(
    demand: Mapping[str, float],
    capacities: Mapping[str, float],
    caches: Mapping[str, int],
    previous: Placement | None,
) -> Placement | None:
    if not capacities:
        return None
    return place(demand, capacities, previous, hot=HOT, floor=SPREAD_FROM / HOT, keeps=caches)


def _load(engine: Engine) -> float:
    return engine.fullness
