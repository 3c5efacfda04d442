"""Turns come at their rate, in order, and none is lost."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.pace import Pace


class Time:
    """Monotonic seconds that stand still but for `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Lets the time pass and everybody whose time has come run."""
        end = self.now + seconds
        await settle()
        while due := [at for at, woken in self._sleepers if at <= end and not woken.done()]:
            self.now = min(due)
            for at, woken in self._sleepers:
                if at <= self.now and not woken.done():
                    woken.set_result(None)
            await settle()
        self.now = end


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def skip(seconds: float, clock: Time) -> None:
    """A sleep that is over at once, on a clock that has moved."""
    clock.now += seconds


@pytest.fixture
def clock() -> Time:
    return Time()


class Turns:
    """Who had a turn, when."""

    def __init__(self, pace: Pace, clock: Time) -> None:
        self.had: list[tuple[str, float]] = []
        self._pace = pace
        self._clock = clock

    async def take(self, who: str) -> None:
        await self._pace.turn()
        self.had.append((who, self._clock.now - 1000.0))


async def test_the_burst_comes_at_once_and_the_others_at_the_rate(clock: Time) -> None:
    turns = Turns(Pace(10, 2, clock=clock, sleep=clock.sleep), clock)
    async with asyncio.TaskGroup() as group:
        for who in "abcd":
            group.create_task(turns.take(who))
        await clock.advance(1)
    assert [("a", 0.0), ("b", 0.0), ("c", pytest.approx(0.1)), ("d", pytest.approx(0.2))] == turns.had


async def test_a_pause_saves_up_one_burst_and_no_more(clock: Time) -> None:
    turns = Turns(Pace(10, 2, clock=clock, sleep=clock.sleep), clock)
    await clock.advance(3600)
    async with asyncio.TaskGroup() as group:
        for who in "abc":
            group.create_task(turns.take(who))
        await settle()
        assert ["a", "b"] == [who for who, _ in turns.had]
        await clock.advance(1)


async def test_a_turn_that_is_due_does_not_give_way(clock: Time) -> None:
    turn = Pace(10, clock=clock, sleep=clock.sleep).turn()
    with pytest.raises(StopIteration):
        turn.send(None)


@pytest.mark.parametrize("rate_per_s", [None, math.inf])
async def test_without_a_rate_nobody_waits(clock: Time, rate_per_s: float | None) -> None:
    pace = Pace(rate_per_s, clock=clock, sleep=clock.sleep)
    for _ in range(1000):
        with pytest.raises(StopIteration):
            pace.turn().send(None)
    assert 0.0 == pace.wait_s


async def test_who_is_cancelled_takes_no_turn_and_the_others_keep_theirs(clock: Time) -> None:
    turns = Turns(Pace(10, clock=clock, sleep=clock.sleep), clock)
    async with asyncio.TaskGroup() as group:
        tasks = {who: group.create_task(turns.take(who)) for who in "abcde"}
        await settle()
        tasks["b"].cancel()  # the one whose turn is next, asleep
        tasks["d"].cancel()  # one behind it
        await clock.advance(1)
    assert [("a", 0.0), ("c", pytest.approx(0.1)), ("e", pytest.approx(0.2))] == turns.had


async def test_a_waiter_cancelled_as_it_is_woken_leaves_its_turn_to_the_next(clock: Time) -> None:
    turns = Turns(Pace(10, clock=clock, sleep=clock.sleep), clock)
    async with asyncio.TaskGroup() as group:
        tasks = {who: group.create_task(turns.take(who)) for who in "abc"}
        await settle()
        tasks["b"].cancel()
        await asyncio.sleep(0)  # b is gone, c holds the first place but has not run
        tasks["c"].cancel()
        group.create_task(turns.take("d"))
        await clock.advance(1)
    assert [("a", 0.0), ("d", pytest.approx(0.1))] == turns.had


async def test_who_comes_while_others_wait_comes_after_them(clock: Time) -> None:
    turns = Turns(Pace(10, clock=clock, sleep=clock.sleep), clock)
    async with asyncio.TaskGroup() as group:
        for who in "abc":
            group.create_task(turns.take(who))
        await settle()
        clock.now += 0.15  # it is b's turn, but the loop has not woken it yet
        group.create_task(turns.take("d"))
        await settle()
        assert ["a"] == [who for who, _ in turns.had]
        await clock.advance(1)
    assert "abcd" == "".join(who for who, _ in turns.had)


async def test_a_sleep_that_ends_early_is_slept_again(clock: Time) -> None:
    slept: list[float] = []

    async def half(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds / 2 if len(slept) == 1 else seconds

    turns = Turns(Pace(10, clock=clock, sleep=half), clock)
    await turns.take("a")
    await turns.take("b")
    assert [pytest.approx(0.1), pytest.approx(0.05)] == slept
    assert [("a", 0.0), ("b", pytest.approx(0.1))] == turns.had


async def test_it_says_how_many_wait_and_how_long_the_next_one_would(clock: Time) -> None:
    pace = Pace(10, 2, clock=clock, sleep=clock.sleep)
    assert (0, 0.0) == (pace.waiting, pace.wait_s)
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(pace.turn())
        await settle()
        assert pytest.approx([2, 0.3]) == [pace.waiting, pace.wait_s]
        await clock.advance(1)
    assert (0, 0.0) == (pace.waiting, pace.wait_s)


@pytest.mark.parametrize(("rate_per_s", "burst"), [(0.0, 1), (-1.0, 1), (math.nan, 1), (10.0, 0)])
def test_a_pace_at_which_nobody_would_have_a_turn_is_refused(rate_per_s: float, burst: int) -> None:
    with pytest.raises(ValueError, match="nobody would ever have a turn"):
        Pace(rate_per_s, burst)


@settings(deadline=None)  # the machine may be busy
@given(
    st.floats(0.5, 1000),
    st.integers(1, 5),
    st.lists(st.floats(0, 3), min_size=1, max_size=40),
)
def test_no_window_has_more_turns_than_its_rate_and_a_burst(
    rate_per_s: float, burst: int, pauses_s: list[float]
) -> None:
    clock = Time()
    pace = Pace(rate_per_s, burst, clock=clock, sleep=lambda seconds: skip(seconds, clock))

    async def all_turns() -> list[float]:
        had = []
        for pause_s in pauses_s:
            clock.now += pause_s
            await pace.turn()
            had.append(clock.now)
        return had

    had = asyncio.run(all_turns())
    for first, begin in enumerate(had):
        for last, end in enumerate(had[first:], start=first):
            assert last - first + 1 <= burst + rate_per_s * (end - begin) + 1e-6
