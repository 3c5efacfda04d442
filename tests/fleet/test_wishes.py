"""What operators want of the fleet outlives the gateway that was told, and is heard by the others."""

from __future__ import annotations

from gateway.db import Database
from gateway.fleet.wishes import Wishes


async def test_a_wish_is_known_here_at_once_and_elsewhere_after_a_refresh(db: Database) -> None:
    here, there = Wishes(db.engine), Wishes(db.engine)
    await here.add("pinned", "support@3f9c2ab71e04")
    await here.add("drained", "local-1")
    await here.add("drained", "local-1")
    assert ({"support@3f9c2ab71e04"}, {"local-1"}) == (here.pinned, here.drained)
    assert frozenset() == there.pinned
    await there.refresh()
    assert ({"support@3f9c2ab71e04"}, {"local-1"}) == (there.pinned, there.drained)


async def test_a_wish_can_be_taken_back_and_again(db: Database) -> None:
    wishes = Wishes(db.engine)
    await wishes.add("pinned", "support@3f9c2ab71e04")
    for _ in range(2):
        await wishes.remove("pinned", "support@3f9c2ab71e04")
        assert frozenset() == wishes.pinned
