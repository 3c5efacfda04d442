"""Which engines are a version's homes: rendezvous hashing with bounded load. Pure.

Each gateway computes this for itself, from the traffic that it sees; docs/placement.md tells what is done,
why, and what it was measured to do. In short: every version has an order of preference over engines that
depends on names alone (`rendezvous`), and lives on its first choices, as many as its share of the load asks
for (`shares`). Only where that puts an engine above the bound, or engines come and go, is anybody moved: as
few as will do, to the next engines of their order with room (`assignment`). So gateways that see different
samples of the traffic differ at the margin only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.fleet.assignment import Assignment
from gateway.fleet.rendezvous import Electorate, digest, order, prefer
from gateway.fleet.shares import check, measure, typical

__all__ = ["Placement", "order", "place", "prefer"]


@dataclass(frozen=True, eq=False)
class Placement:
    """The homes of every version that was placed, and one for any other.

    `loads` are what engines carry for their weight, by the demand that was given; 1.0 is an even load.
    """

    engines: tuple[str, ...]
    loads: Mapping[str, float]
    _homes: Mapping[str, tuple[str, ...]]
    _with_room: Electorate
    _assignment: Assignment | None

    def homes(self, version: str) -> tuple[str, ...]:
        """Best first. Empty only without engines."""
        found = self._homes.get(version)
        return found if found is not None else self._home_of_unknown(version)

    def _home_of_unknown(self, version: str) -> tuple[str, ...]:
        if not self._with_room:
            return ()
        return (self._with_room.names[self._with_room.first(digest(version))],)


def place(
    demand: Mapping[str, float],
    engines: Mapping[str, float],
    previous: Placement | None = None,
    *,
    bound: float = 1.25,
    hot: float = 0.5,
    floor: float = 0.0,
    keeps: Mapping[str, int] | None = None,
) -> Placement:
    """Homes for each version of `demand` (version -> load, any unit, >= 0) on `engines` (name -> weight).

    No engine gets more than `bound` times its even share of the load, if that can be. A version has as many
    homes as leave each at most `hot` times the even load of a typical engine, and gives them up again with
    hysteresis. `floor` is a load of one engine, in the unit of `demand`: while the even load is less, `floor`
    stands for it, and nothing is spread or moved for a balance that nobody would notice. `keeps` are the
    versions that engines can have in their caches: none is home to more while all versions fit. `previous`
    is what all of it starts from; leave it out, and everyone starts at its preferred engines.
    Raises `ValueError` for what is not a weight, a load, or a bound above 1.
    """
    _check(engines, bound, hot, floor)
    if not engines:
        return Placement((), {}, {}, Electorate.of({}), None)
    check(demand)
    if len(engines) == 1:  # without NumPy: 15 MB that a gateway of one engine does not need
        only = tuple(engines)
        return Placement(only, {only[0]: 1.0}, dict.fromkeys(demand, only), Electorate.of(engines), None)
    before = previous._assignment if previous is not None else None
    if before is not None and not before.shares.names:
        before = None  # nobody was anywhere
    electorate = Electorate.of(engines)
    if before is not None and before.electorate.same_as(electorate):
        electorate = before.electorate
    then = before.shares if before is not None else None
    shares = measure(demand, electorate.weights, then, hot=hot, floor=floor)
    if before is not None and before.electorate is electorate and before.shares.owns is shares.owns:
        firsts = before.firsts
    else:
        firsts = electorate.firsts(shares.owns)
    assignment = Assignment(shares, electorate, firsts, bound=bound, keeps=keeps)
    if before is None:
        assignment.begin()
    else:
        assignment.resume(before)
    assignment.mend()
    return _placement(assignment, engines)


def _placement(assignment: Assignment, engines: Mapping[str, float]) -> Placement:
    shares, names = assignment.shares, assignment.electorate.names
    even = typical(list(engines.values())) / sum(engines.values())
    per_unit = shares.unit / even
    each = zip(names, assignment.loads, assignment.strength, strict=True)
    loads = {name: load / strength * per_unit for name, load, strength in each}
    homes = dict(zip(shares.names, assignment.homes(), strict=True))
    room = Electorate.of({names[at]: engines[names[at]] for at in assignment.with_room()})
    return Placement(names, loads, homes, room, assignment)


def _check(engines: Mapping[str, float], bound: float, hot: float, floor: float) -> None:
    for name, weight in engines.items():
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"the weight of engine {name!r} is {weight}: give a number > 0")
    if not bound > 1:
        raise ValueError(f"bound is {bound}: no load can be kept below the mean; give more than 1")
    if not hot > 0:
        raise ValueError(f"hot is {hot}: give a share of an engine's load, more than 0")
    if not (math.isfinite(floor) and floor >= 0):
        raise ValueError(f"floor is {floor}: give a load >= 0")
