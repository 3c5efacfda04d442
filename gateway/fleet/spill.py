"""A request that has waited long for a slot at its home goes to an engine that has one free.

Homes keep loads few, and cost waiting: some wait for a slot here while one is idle there. A full fleet never
spills, since none is free; so what homes save under load stays saved (docs/placement.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from gateway.fleet.engine import Engine

LOOK_S = 0.1
"""How often it is looked for such requests; a slot may be idle for so long."""


async def keep_spilling(engines: Mapping[str, Engine], after_s: float, clock: Callable[[], float]) -> None:
    """Looks until cancelled. `engines` is the fleet's own mapping; a request waits for `after_s` first."""
    while True:
        await asyncio.sleep(LOOK_S)
        spill(engines.values(), clock() - after_s)


def spill(engines: Collection[Engine], before: float) -> None:
    """Hands over who has waited for a slot since `before`, a time of the admissions' clock."""
    for home in engines:
        if home.boot is None or not home.boot.admission.waiting:
            continue
        for waiter in home.boot.admission.overdue(before):
            if waiter.key is None or waiter.outcome.done():
                continue  # the base kept apart needs an empty engine; or an earlier one left, and it came in
            for other in _by_cost([each for each in engines if each is not home], waiter.key):
                if other.boot is not None and other.boot.admission.try_enter(waiter.key):
                    home.boot.admission.hand_over(waiter, other.boot.admission)
                    break


def _by_cost(engines: Collection[Engine], name: str) -> list[Engine]:
    """Those that take requests: without a load first, then the emptiest."""
    usable = [each for each in engines if each.takes_requests and each.health.ejected() is None]
    return sorted(usable, key=lambda each: (not _holds(each, name), each.fullness))


def _holds(engine: Engine, name: str) -> bool:
    return engine.boot is not None and engine.boot.residency.loaded(name) is not None
