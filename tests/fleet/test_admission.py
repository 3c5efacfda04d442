"""Who is in, who waits, and how each wait ends. In told time; `test_fairness` is about whose turn it is."""

from __future__ import annotations

import asyncio

import pytest

from gateway.fleet.admission import Admission, Standing
from gateway.fleet.outcomes import Late, Over, QueueFull
from tests.fleet.stage import FAR, Stage
from tests.fleet.told_time import settle, told


@told
async def test_no_more_distinct_adapters_are_in_flight_than_there_are_slots() -> None:
    admission = Stage(slots=2).admission
    assert [True, True, False, True, True] == [admission.try_enter(key) for key in ["a", "b", "c", "a", "b"]]
    assert {"a": 2, "b": 2} == admission.active


@told
async def test_no_more_requests_are_in_flight_than_there_are_seats() -> None:
    admission = Stage(seats=3).admission
    assert [True, True, True, False] == [admission.try_enter(key) for key in ["a", "b", None, "a"]]
    assert 3 == admission.in_flight


@told
async def test_the_base_takes_a_seat_but_no_slot() -> None:
    admission = Stage(slots=1, seats=3).admission
    assert [True, True, True, False] == [admission.try_enter(key) for key in ["a", None, None, None]]
    assert ({"a": 1}, 3) == (admission.active, admission.in_flight)


@told
async def test_a_slot_is_free_when_the_last_of_its_key_has_left() -> None:
    admission = Stage(slots=1).admission
    assert admission.try_enter("a")
    assert admission.try_enter("a")
    admission.leave("a")
    assert not admission.try_enter("b")
    admission.leave("a")
    assert admission.try_enter("b")


@told
async def test_base_and_adapters_that_are_kept_apart_are_never_in_flight_together() -> None:
    admission = Stage(apart=True).admission
    assert [True, False, True] == [admission.try_enter(key) for key in ["a", None, "b"]]
    admission.leave("a")
    admission.leave("b")
    assert [True, False, True] == [admission.try_enter(key) for key in [None, "a", None]]


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"seats": 0}, {"quantum": 0}, {"queue": -1}])
def test_settings_with_which_nobody_could_ever_enter_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="nobody would ever enter"):
        Admission(**({"slots": 1, "seats": 1, "queue": 1} | wrong))  # type: ignore[arg-type]


@told
async def test_whoever_waits_is_in_as_soon_as_a_seat_is_free() -> None:
    stage = Stage(seats=1)
    stage.enter("a")
    await stage.asked("first", "a")
    await stage.asked("second", "b")
    stage.admission.leave("a")
    await settle()
    assert ["first"] == stage.order
    stage.admission.leave("a")
    await settle()
    assert ["first", "second"] == stage.order


@told
async def test_a_newcomer_does_not_overtake_who_waits() -> None:
    stage = Stage(slots=1, seats=2)
    stage.enter("a", "a")
    await stage.asked("waits", "a")
    assert not stage.admission.try_enter("a")
    stage.admission.leave("a")
    assert not stage.admission.try_enter("a")
    await settle()
    assert ["waits"] == stage.order


@told
async def test_the_base_takes_no_slot_from_a_new_key() -> None:
    stage = Stage(slots=2)
    stage.enter(None, "a", "b")


@told
async def test_the_base_goes_on_while_an_adapter_waits_for_a_slot() -> None:
    stage = Stage(slots=1, seats=9)
    stage.enter("a")
    await stage.asked("b", "b")
    stage.enter(None, None, None)
    assert [] == stage.order


@told
async def test_a_wait_ends_at_its_deadline_with_when_to_come_again() -> None:
    stage = Stage(seats=1)
    stage.enter("a")
    late = stage.ask("late", "a", deadline=7.5)
    with pytest.raises(Late) as caught:
        await late
    assert (7.5, 0, 120.0) == (stage.clock(), stage.admission.waiting, caught.value.retry_after_s)


@told
async def test_a_request_that_comes_after_its_deadline_does_not_wait() -> None:
    stage = Stage(seats=1)
    stage.enter("a")
    await asyncio.sleep(5.0)
    with pytest.raises(Late):
        stage.admission.enter("a", deadline=5.0).send(None)


@told
async def test_a_loop_that_was_held_up_lets_nobody_in_after_the_deadline() -> None:
    now = [0.0]
    stage = Stage(seats=1, clock=lambda: now[0])
    stage.enter("a")
    late = await stage.asked("late", "a", deadline=5.0)
    in_time = await stage.asked("in time", "a", deadline=50.0)
    now[0] = 6.0
    stage.admission.leave("a")
    with pytest.raises(Late):
        await late
    await in_time
    assert ["in time"] == stage.order


@told
async def test_a_client_that_leaves_gives_up_its_place() -> None:
    stage = Stage(seats=1)
    stage.enter("a")
    gone = await stage.asked("gone", "a")
    await stage.asked("stays", "a")
    gone.cancel()
    await settle()
    assert 1 == stage.admission.waiting
    stage.admission.leave("a")
    await settle()
    assert ["stays"] == stage.order


@told
async def test_a_client_that_leaves_just_as_it_is_let_in_gives_its_seat_to_the_next() -> None:
    stage = Stage(slots=1, seats=1)
    stage.enter("a")
    gone = await stage.asked("gone", "b")
    await stage.asked("next", "c")
    stage.admission.leave("a")
    gone.cancel()
    await settle()
    assert (["next"], {"c": 1}, 1) == (stage.order, stage.admission.active, stage.admission.in_flight)


@told
async def test_a_seat_that_is_free_just_as_a_client_leaves_goes_to_the_next() -> None:
    stage = Stage(slots=1, seats=1)
    stage.enter("a")
    gone = await stage.asked("gone", "b")
    await stage.asked("next", "c")
    gone.cancel()
    stage.admission.leave("a")
    await settle()
    assert (["next"], {"c": 1}) == (stage.order, stage.admission.active)


@told
async def test_a_boot_that_ends_just_as_a_client_leaves_is_no_trouble() -> None:
    stage = Stage(seats=1)
    stage.enter("a")
    gone = await stage.asked("gone", "b")
    gone.cancel()
    stage.admission.close()
    await settle()
    assert gone.cancelled()


@told
async def test_a_key_that_leaves_the_queue_no_longer_keeps_others_from_starting() -> None:
    stage = Stage(slots=1, seats=9, quantum=1, worth=0.0)
    stage.enter("a", "a", "a")
    seeks = await stage.asked("seeks", "b")
    stage.enter("a")
    yields = await stage.asked("yields", "a")
    assert [] == stage.order
    seeks.cancel()
    await yields
    assert ["yields"] == stage.order


@told
async def test_when_the_boot_ends_all_who_wait_and_all_who_come_go_elsewhere() -> None:
    stage = Stage(seats=1)
    stage.enter("a")
    waiting = [await stage.asked("b", "b"), await stage.asked("c", None)]
    stage.admission.close()
    assert [Over, Over] == [type(e) for e in await asyncio.gather(*waiting, return_exceptions=True)]
    assert not stage.admission.try_enter("a")
    with pytest.raises(Over):
        await stage.admission.enter("a", FAR)
    stage.admission.leave("a")
    assert (0, 0) == (stage.admission.in_flight, stage.admission.waiting)


@told
async def test_who_is_sent_away_from_an_engine_out_of_service_may_come_back() -> None:
    stage = Stage(seats=1)
    stage.enter("a")
    waits = await stage.asked("b", "b")
    stage.admission.disperse()
    with pytest.raises(Over):
        await waits
    stage.admission.leave("a")
    stage.enter("b")


@told
async def test_the_base_does_not_count_among_adapters_in_flight_or_waiting() -> None:
    stage = Stage(seats=2)
    stage.enter("a", None)
    await stage.asked("b", "b")
    await stage.asked("base", None)
    assert ({"a": 1}, {"b": 1}) == (stage.admission.active, stage.admission.waiting_by_key)


@told
async def test_a_refusal_that_comes_after_the_boot_ended_lets_nobody_in() -> None:
    stage = Stage(seats=1)
    stage.enter("a")
    stage.admission.close()
    stage.admission.not_now("a")
    await asyncio.sleep(1.0)
    assert not stage.admission.try_enter("a")


@told
async def test_a_full_queue_says_when_one_more_would_be_through() -> None:
    stage = Stage(seats=10, queue=10)
    stage.enter(*"abcdefghij")
    for number in range(10):
        await stage.asked(str(number), str(number))
    with pytest.raises(QueueFull) as caught:
        await stage.admission.enter("k", FAR)
    assert (10 + 1) / (10 / 5) == caught.value.retry_after_s


@told
async def test_a_measured_engine_says_when_one_more_would_be_through() -> None:
    stage = Stage(seats=1, queue=50)
    stage.enter("a")
    for _ in range(30):
        await stage.asked("", "a")
    for _ in range(20):
        await asyncio.sleep(0.25)
        stage.admission.leave("a")
    assert 30 - 20 == stage.admission.waiting
    assert pytest.approx((10 + 1) / 4, rel=0.01) == stage.admission.retry_after_s()


@told
async def test_the_youngest_of_a_key_that_filled_the_queue_gives_way_to_another_key() -> None:
    stage = Stage(seats=1, queue=4)
    stage.enter("hot")
    hot = [await stage.asked("", "hot") for _ in range(4)]
    await stage.asked("cold", "cold")
    with pytest.raises(QueueFull):
        await hot[3]
    assert [False] * 3 == [task.done() for task in hot[:3]]


@told
async def test_what_the_engine_refused_goes_before_all_that_came_later() -> None:
    stage = Stage(seats=1, queue=2)
    stage.enter("a")
    await asyncio.sleep(5.0)
    await stage.asked("came at 5", "a")
    await stage.asked("came at 1", "a", front=True, since=1.0)
    await stage.asked("came at 3", "a", front=True, since=3.0)
    for _ in range(3):
        stage.admission.leave("a")
        await settle()
    assert ["came at 1", "came at 3", "came at 5"] == stage.order


@told
async def test_what_the_engine_refused_is_never_turned_away_for_want_of_places() -> None:
    stage = Stage(seats=1, queue=1)
    stage.enter("a")
    await stage.asked("waits", "a")
    refused = await stage.asked("refused", "a", front=True, since=0.0)
    assert (False, 2) == (refused.done(), stage.admission.waiting)


@told
async def test_a_refused_key_is_tried_again_after_a_short_pause() -> None:
    stage = Stage(slots=2)
    stage.enter("a", "b")
    stage.admission.not_now("b")
    again = await stage.asked("again", "b", front=True, since=0.0)
    await asyncio.sleep(0.014)
    assert not again.done()
    await again
    assert 0.015 <= stage.clock() <= 0.025


@told
async def test_in_a_pause_keys_in_flight_go_on_and_new_ones_wait() -> None:
    stage = Stage(slots=4)
    stage.enter("a", "b")
    stage.admission.not_now("b")
    assert [True, False, False, True] == [stage.admission.try_enter(key) for key in ["a", "b", "c", None]]


@told
async def test_a_refused_key_waits_out_the_pause_even_if_others_of_it_are_in_flight() -> None:
    stage = Stage(slots=1)
    stage.enter("a", "a")
    stage.admission.not_now("a")
    assert not stage.admission.try_enter("a")
    again = await stage.asked("again", "a", front=True, since=0.0)
    assert not again.done()
    await asyncio.wait_for(again, 1.0)
    assert {"a": 2} == stage.admission.active


@told
async def test_those_who_wait_behind_a_refused_request_of_their_key_wait_out_the_pause_too() -> None:
    stage = Stage(seats=2)
    stage.enter("a", "a")
    waits = await stage.asked("waits", "a")
    stage.admission.not_now("a")
    await settle()
    assert not waits.done()
    await asyncio.wait_for(waits, 1.0)


@told
async def test_a_refused_base_that_is_kept_apart_waits_out_the_pause() -> None:
    stage = Stage(apart=True)
    stage.enter(None)
    stage.admission.not_now(None)
    again = await stage.asked("again", None, front=True, since=0.0)
    assert not again.done()
    await asyncio.wait_for(again, 1.0)


@told
async def test_a_refusal_is_forgotten_when_nobody_waits_at_the_end_of_the_pause() -> None:
    stage = Stage(slots=4)
    stage.enter("a")
    stage.admission.not_now("a")
    await asyncio.sleep(1.0)
    stage.enter("a", "b", "c")


@told
async def test_a_slot_of_ours_that_is_free_again_ends_the_pause() -> None:
    stage = Stage(slots=4)
    stage.enter("a", "b")
    stage.admission.not_now("b")
    await stage.asked("again", "b", front=True, since=0.0)
    stage.admission.leave("a")
    await settle()
    assert (0.0, ["again"]) == (stage.clock(), stage.order)


@told
async def test_after_refusals_new_keys_are_tried_one_at_a_time() -> None:
    stage = Stage(slots=4)
    stage.enter("a")
    stage.admission.not_now("a")
    for _ in range(3):
        await stage.admission.enter("a", FAR, front=True, since=0.0)
        stage.admission.not_now("a")
    for key in "bcd":
        await stage.asked(key, key)
    came = []
    while len(stage.order) < 3:
        await asyncio.sleep(0.001)
        came.append(len(stage.order))
    assert {0, 1, 2, 3} == set(came)


@told
async def test_once_a_trial_was_served_new_keys_come_in_as_ever() -> None:
    stage = Stage(slots=4)
    stage.enter("a", "z")
    stage.admission.not_now("a")
    for key in ["a", "b", "c"]:
        await stage.asked(key, key)
    await asyncio.sleep(0.026)
    assert ["a"] == stage.order
    stage.admission.leave("a")
    await settle()
    assert ["a", "b", "c"] == stage.order


@told
async def test_an_engine_that_goes_on_refusing_is_asked_about_twice_a_second() -> None:
    stage = Stage(slots=4)
    stage.enter("a")
    asked = 0
    stage.admission.not_now("a")
    while stage.clock() < 20.0:
        await stage.admission.enter("a", FAR, front=True, since=0.0)
        asked += 1
        stage.admission.not_now("a")
    assert 35 <= asked <= 55


@told
async def test_every_key_is_shown_with_what_it_has_and_what_it_waits_for() -> None:
    stage = Stage(slots=1, seats=9, quantum=1, worth=0.0)
    stage.enter("a", None)
    await stage.asked("b", "b")
    stage.enter("a")
    await asyncio.sleep(1.5)
    await stage.asked("a", "a")
    await asyncio.sleep(0.5)
    assert [
        Standing(None, in_flight=1, waiting=0, oldest_wait_s=0.0, yields=False),
        Standing("a", in_flight=2, waiting=1, oldest_wait_s=0.5, yields=True),
        Standing("b", in_flight=0, waiting=1, oldest_wait_s=2.0, yields=False),
    ] == stage.admission.standings()
