from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from gateway.fleet.line import Line, Waiter
from gateway.fleet.places import NoPlace, Places
from tests.fleet.told_time import run


def lines(**waiting: int) -> dict[str | None, Line]:
    async def make() -> dict[str | None, Line]:
        new = asyncio.get_running_loop().create_future
        made: dict[str | None, Line] = {key: Line(key, 0.0) for key in waiting}
        for key, count in waiting.items():
            for number in range(count):
                made[key].add(Waiter(key, float(number), 60.0, new()), front=False)
        return made

    return run(make())


def claim(
    places: Places, key: str, waiting: Mapping[str | None, Line], *, alone: bool = False
) -> Waiter | None:
    total = sum(len(line.waiters) for line in waiting.values())
    return places.claim(key, waiting, total, alone=alone)


def test_a_place_is_had_while_there_are_some() -> None:
    assert None is claim(Places(4), "cold", lines(hot=2, cold=1))


def test_a_full_queue_has_no_place() -> None:
    with pytest.raises(NoPlace):
        claim(Places(4), "new", lines(hot=2, cold=2))


def test_a_key_beside_others_has_at_most_half_of_the_queue() -> None:
    with pytest.raises(NoPlace):
        claim(Places(8), "hot", lines(hot=4, cold=1), alone=True)


def test_a_key_beside_others_in_flight_has_at_most_half_of_the_queue() -> None:
    with pytest.raises(NoPlace):
        claim(Places(8), "hot", lines(hot=4), alone=False)


def test_a_key_that_is_alone_may_have_all_of_it() -> None:
    places = Places(8)
    assert None is claim(places, "hot", lines(hot=7), alone=True)
    with pytest.raises(NoPlace):
        claim(places, "hot", lines(hot=8), alone=True)


def test_a_key_that_had_all_gives_up_its_youngest_to_newcomers_until_it_has_half() -> None:
    places = Places(4)
    waiting = lines(hot=3)
    claim(places, "hot", waiting, alone=True)
    waiting = lines(hot=4)
    assert waiting["hot"].waiters[-1] is claim(places, "cold", waiting)
    waiting = lines(hot=2, cold=2)
    with pytest.raises(NoPlace):
        claim(places, "new", waiting)


def test_a_queue_of_none_has_no_place_for_anybody() -> None:
    with pytest.raises(NoPlace):
        claim(Places(0), "hot", {}, alone=True)
