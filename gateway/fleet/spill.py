"""A request that has waited long for a slot at its home goes to an engine that has one free.

Homes keep loads few, and cost waiting: some wait for a slot here while one is idle there. A full fleet never
spills, since none is free; so what homes save under load stays saved (docs/placement.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from gateway.fleet.admission import Admission
from gateway.fleet.engine import Engine

LOOK_S = 0.1
"""How often it is looked for such requests; a slot may be idle for so long."""


async def keep_spilling(engines: Mapping[str, Engine], after_s: float, clock: Callable[[], float]) -> None:
    """Looks until cancelled. `engines` is the fleet's own mapping; a request waits for `after_s` first."""
    while True:
        await asyncio.sleep(LOOK_S)
        spill(engines.values(), clock() - after_s)


def spill(engines: Collection[Engine], before: float) -> None:
    """Hands over who has waited for a slot since `before`, a time of the admissions' clock.

    A full fleet costs a look at each engine and no more: thousands may wait then.
    """
    takers = [engine for engine in engines if _may_take(engine)]
    for home in engines if takers else ():
        if home.boot is None or not home.boot.admission.sought:
            continue
        refused: set[str] = set()
        for waiter in home.boot.admission.overdue(before):
            key = waiter.key
            if key is None or key in refused or waiter.outcome.done():
                continue  # the base kept apart needs an empty engine; or an earlier one left, and it came in
            taker = _taker(takers, key)
            if taker is None:
                refused.add(key)
            else:
                home.boot.admission.hand_over(waiter, taker)


def _may_take(engine: Engine) -> bool:
    """Whether it is well, and nobody waits for a slot there."""
    if not engine.takes_requests or engine.boot is None or engine.health.ejected() is not None:
        return False
    return not engine.boot.admission.sought


def _taker(engines: Collection[Engine], name: str) -> Admission | None:
    """Where one more for `name` is in now: where it needs no load, or at the emptiest."""
    for engine in sorted(engines, key=lambda each: (not _holds(each, name), each.fullness)):
        if engine.boot is not None and engine.boot.admission.try_enter(name):
            return engine.boot.admission
    return None


def _holds(engine: Engine, name: str) -> bool:
    return engine.boot is not None and engine.boot.residency.loaded(name) is not None
