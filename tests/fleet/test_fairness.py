"""Whose turn it is: rule by rule, and what the rules are worth (simulated, see `simulation`)."""

from __future__ import annotations

import asyncio

from tests.fleet.simulation import FOUR_HOT, LOADS, ONE_HOT, p99, through_admission, through_vllm
from tests.fleet.stage import Stage
from tests.fleet.told_time import settle, told


@told
async def test_seats_go_round_one_by_one_however_many_each_key_has_waiting() -> None:
    stage = Stage(seats=1)
    stage.enter("x")
    for name in ["a1", "a2", "a3", "b1", "b2", "base1", "base2"]:
        await stage.asked(name, {"a": "a", "b": "b"}.get(name[0:-1]))
    current = "x"
    for _ in range(7):
        stage.admission.leave(current if current != "base" else None)
        await settle()
        current = stage.order[-1][:-1]
    assert ["a1", "b1", "base1", "a2", "b2", "base2", "a3"] == stage.order


@told
async def test_a_key_that_gets_a_slot_starts_all_that_waits_as_far_as_there_are_seats() -> None:
    stage = Stage(slots=1, seats=3, quantum=1)
    stage.enter("x")
    for name in ["a1", "a2", "a3", "a4"]:
        await stage.asked(name, "a")
    stage.admission.leave("x")
    await settle()
    assert ["a1", "a2", "a3"] == stage.order


@told
async def test_slots_go_to_keys_in_the_order_in_which_they_began_to_wait() -> None:
    stage = Stage(slots=1)
    stage.enter("x")
    for name in ["a1", "b1", "a2", "c1"]:
        await stage.asked(name, name[0])
    for key in ["x", "a", "a", "b"]:
        stage.admission.leave(key)
        await settle()
    assert ["a1", "a2", "b1", "c1"] == stage.order


@told
async def test_an_active_key_starts_a_quantum_more_once_another_seeks_its_slot_then_yields() -> None:
    stage = Stage(slots=1, quantum=3, worth=0.0)
    stage.enter("hot")
    await stage.asked("cold", "cold")
    stage.enter("hot", "hot", "hot")
    assert not stage.admission.try_enter("hot")
    for _ in range(4):
        stage.admission.leave("hot")
    await settle()
    assert ["cold"] == stage.order


@told
async def test_while_nobody_seeks_a_slot_an_active_key_starts_without_limit() -> None:
    stage = Stage(slots=1, quantum=3, worth=0.0)
    stage.enter(*["hot"] * 100)
    assert 100 == stage.admission.in_flight


@told
async def test_a_key_that_yields_waits_behind_those_who_sought_and_has_a_turn_again() -> None:
    stage = Stage(slots=1, quantum=1, worth=0.0)
    stage.enter("hot")
    await stage.asked("cold", "cold")
    stage.enter("hot")
    await stage.asked("hot", "hot")
    await stage.asked("later", "later")
    for key in ["hot", "hot", "cold", "hot"]:
        stage.admission.leave(key)
        await settle()
    assert ["cold", "hot", "later"] == stage.order


@told
async def test_a_key_whose_place_comes_before_it_is_empty_keeps_its_slot() -> None:
    stage = Stage(slots=2, quantum=1, worth=0.0)
    stage.enter("hot", "hot", "x")
    await stage.asked("cold", "cold")
    stage.enter("hot")
    await stage.asked("hot", "hot")
    assert [] == stage.order
    stage.admission.leave("x")
    await settle()
    assert (["cold", "hot"], {"hot": 4, "cold": 1}) == (stage.order, stage.admission.active)


@told
async def test_no_more_keys_yield_than_slots_are_sought() -> None:
    stage = Stage(slots=2, quantum=1, worth=0.0)
    stage.enter("a", "b")
    await stage.asked("c", "c")
    stage.enter("a", "b")
    assert not stage.admission.try_enter("a")
    stage.enter("b", "b", "b")
    assert ["a"] == [each.key for each in stage.admission.standings() if each.yields]


@told
async def test_a_key_whose_place_comes_goes_on_though_others_still_seek() -> None:
    stage = Stage(slots=2, quantum=1, worth=0.0)
    stage.enter("hot", "hot", "x")
    await stage.asked("first", "first")
    stage.enter("hot")
    await stage.asked("hot", "hot")
    await stage.asked("second", "second")
    stage.admission.leave("x")
    await settle()
    assert (["first", "hot"], {"hot": 4, "first": 1}) == (stage.order, stage.admission.active)


@told
async def test_when_fewer_slots_are_sought_the_key_with_the_most_in_flight_goes_on() -> None:
    stage = Stage(slots=2, quantum=1, worth=0.0)
    stage.enter("a", "a", "a", "b")
    seeks = [await stage.asked("c", "c"), await stage.asked("d", "d")]
    stage.enter("a", "b")
    await stage.asked("a", "a")
    await stage.asked("b", "b")
    assert [] == stage.order
    seeks[0].cancel()
    await settle()
    assert ["a"] == stage.order


@told
async def test_turns_are_forgotten_when_nobody_seeks_a_slot_though_some_wait_for_seats() -> None:
    stage = Stage(slots=1, seats=4, quantum=2, worth=0.0)
    stage.enter("hot")
    seeks = await stage.asked("seeks", "cold")
    stage.enter("hot", None, None)
    for name in ["base 1", "base 2"]:
        await stage.asked(name, None)
    seeks.cancel()
    await settle()
    stage.admission.leave(None)
    await settle()
    await stage.asked("seeks again", "cold")
    for _ in range(3):
        stage.admission.leave(None)
        await settle()
    assert (["base 1", "base 2"], 2) == (stage.order, stage.admission.in_flight)
    stage.enter("hot", "hot")
    stage.admission.leave("hot")
    assert not stage.admission.try_enter("hot")


@told
async def test_turns_are_forgotten_when_nobody_waits() -> None:
    stage = Stage(slots=1, seats=3, quantum=1, worth=0.0)
    stage.enter("hot")
    seeks = await stage.asked("seeks", "cold")
    stage.enter("hot")
    assert not stage.admission.try_enter("hot")
    stage.enter(None)
    seeks.cancel()
    await settle()
    assert [False, False] == [each.yields for each in stage.admission.standings()]
    stage.admission.leave(None)
    await stage.asked("seeks again", "cold")
    stage.enter("hot")


@told
async def test_a_key_does_not_yield_for_less_than_it_is_worth() -> None:
    # 8 in flight, 2 free: the price is 8 * (8 + 2) / 2 = 40, and one that waits is worth 1.
    stage = Stage(slots=1, seats=10, quantum=1, worth=1 / 40)
    stage.enter(*["hot"] * 7)
    await stage.asked("cold", "cold")
    stage.enter("hot")
    assert not stage.admission.try_enter("hot")
    stage = Stage(slots=1, seats=10, quantum=1, worth=1 / 39)
    stage.enter(*["hot"] * 7)
    await stage.asked("cold", "cold")
    stage.enter("hot", "hot")


@told
async def test_who_gave_up_waiting_is_worth_nothing() -> None:
    # Of 4 in flight, and 6 free, the price is 4 * (4 + 6) / 6: two that wait are worth it, one is not.
    stage = Stage(slots=1, seats=10, quantum=1, worth=1.5 * 6 / 40)
    stage.enter("hot", "hot", "hot")
    await stage.asked("stays", "cold")
    gone = await stage.asked("gone", "cold")
    stage.enter("hot")
    gone.cancel()
    await settle()
    stage.enter("hot")


@told
async def test_a_key_that_waited_for_the_age_bound_is_next_though_nobody_used_up_a_turn() -> None:
    stage = Stage(slots=2, quantum=10**6, age_bound_s=2.0)
    stage.enter("hot", "hot", "warm")
    await stage.asked("cold", "cold")
    await asyncio.sleep(2.0)
    stage.enter("hot", "warm")
    await asyncio.sleep(0.1)
    stage.enter("hot")
    assert not stage.admission.try_enter("warm"), "it has the least in flight"
    stage.enter("hot")
    stage.admission.leave("warm")
    stage.admission.leave("warm")
    await settle()
    assert ["cold"] == stage.order


@told
async def test_while_slots_are_given_the_age_bound_makes_nobody_yield() -> None:
    stage = Stage(slots=2, quantum=10**6, age_bound_s=2.0)
    stage.enter("hot", "hot", "hot", "a")
    await stage.asked("b", "b")
    await stage.asked("c", "c")
    await asyncio.sleep(2.1)
    stage.admission.leave("a")
    await settle()
    assert ["b"] == stage.order
    await asyncio.sleep(0.9)
    stage.enter("b")
    await asyncio.sleep(0.2)
    assert not stage.admission.try_enter("b")


@told
async def test_a_key_with_a_backlog_is_not_old_for_having_one() -> None:
    stage = Stage(slots=1, seats=1, quantum=1, age_bound_s=2.0, worth=0.0)
    stage.enter("hot")
    for number in range(5):
        await stage.asked(f"hot {number}", "hot")
    await stage.asked("cold", "cold")
    await asyncio.sleep(60.0)
    for key in ["hot", "hot"]:
        stage.admission.leave(key)
        await settle()
    assert ["hot 0", "cold"] == stage.order


@told
async def test_of_keys_that_deserve_a_slot_about_equally_a_resident_one_goes_first() -> None:
    stage = Stage(slots=1, resident={"c", "e"}.__contains__)
    stage.enter("x")
    for key in "abcde":
        await stage.asked(key, key)
    for key in "xc":
        stage.admission.leave(key)
        await settle()
    assert ["c", "a"] == stage.order, "and it passes nobody over twice"


@told
async def test_who_waited_for_the_age_bound_is_not_passed_over_by_a_resident_one() -> None:
    stage = Stage(slots=1, age_bound_s=2.0, resident={"b"}.__contains__)
    stage.enter("x")
    await stage.asked("a", "a")
    await stage.asked("b", "b")
    await asyncio.sleep(2.1)
    stage.admission.leave("x")
    await settle()
    assert ["a"] == stage.order


@told
async def test_a_base_that_is_kept_apart_waits_for_no_more_than_a_quantum_of_each_adapter() -> None:
    stage = Stage(slots=4, apart=True, quantum=1, worth=0.0)
    stage.enter("a", "b")
    await stage.asked("base", None)
    await stage.asked("c", "c")
    stage.enter("a", "b")
    assert [False, False] == [stage.admission.try_enter("a"), stage.admission.try_enter("b")]
    for key in ["a", "a", "b"]:
        stage.admission.leave(key)
        await settle()
    assert [] == stage.order
    stage.admission.leave("b")
    await settle()
    assert ["base"] == stage.order


@told
async def test_a_resident_adapter_does_not_overtake_a_base_that_is_kept_apart() -> None:
    stage = Stage(slots=1, apart=True, resident={"c"}.__contains__)
    stage.enter("x")
    for name, key in [("a", "a"), ("base", None), ("c", "c")]:
        await stage.asked(name, key)
    stage.admission.leave("x")
    await settle()
    assert ["a"] == stage.order


@told
async def test_adapters_that_are_kept_apart_wait_for_no_more_than_a_quantum_of_the_base() -> None:
    stage = Stage(slots=4, apart=True, quantum=1, worth=0.0)
    stage.enter(None)
    await stage.asked("a", "a")
    await stage.asked("b", "b")
    stage.enter(None)
    await stage.asked("base", None)
    assert [] == stage.order
    stage.admission.leave(None)
    stage.admission.leave(None)
    await settle()
    assert ["a", "b"] == stage.order


@told
async def test_a_base_that_is_kept_apart_gets_the_engine_to_itself_at_the_age_bound() -> None:
    stage = Stage(slots=4, apart=True, quantum=10**6, age_bound_s=2.0)
    stage.enter("a", "b")
    await stage.asked("base", None)
    await asyncio.sleep(2.1)
    assert [False, False] == [stage.admission.try_enter("a"), stage.admission.try_enter("b")]


def test_with_one_hot_adapter_the_worst_one_of_sixteen_waits_less_than_three_medians() -> None:
    ours, vllm = through_admission(ONE_HOT), through_vllm(ONE_HOT)
    assert (True, True) == (ours.ratio < 3.0, vllm.ratio > 6.0), f"\nours {ours}\nvLLM {vllm}"
    assert ours.worst_p99 < vllm.worst_p99


def test_hot_adapters_in_all_slots_starve_the_cold_ones_of_vllm_but_not_ours() -> None:
    ours, vllm = through_admission(FOUR_HOT), through_vllm(FOUR_HOT)
    assert (True, True) == (ours.worst_p99 < 7.0, vllm.worst_p99 > 60.0), f"\nours {ours}\nvLLM {vllm}"


def test_without_turns_and_the_age_bound_hot_adapters_starve_the_cold_ones_of_ours_too() -> None:
    age_only = through_admission(FOUR_HOT, quantum=10**9)
    neither = through_admission(FOUR_HOT, quantum=10**9, age_bound_s=1e9)
    assert (True, True) == (age_only.worst_p99 < 20.0, neither.worst_p99 > 60.0), f"\n{age_only}\n{neither}"


def test_equally_warm_adapters_all_wait_less_than_half_as_long_as_with_vllm() -> None:
    load = LOADS["16 warm (3/s), 64 seats"]
    ours, vllm = through_admission(load), through_vllm(load)
    assert (True, True) == (2 * ours.median < vllm.median, 2 * ours.worst_p99 < vllm.worst_p99)


def test_a_hot_adapter_that_nearly_fills_the_seats_is_not_made_to_yield_to_nobodys_gain() -> None:
    load = LOADS["1 hot (24/s), 15 cold (0.4/s), 32 seats"]
    ours, always = through_admission(load), through_admission(load, worth=0.0)
    assert p99(ours.by_key["key-0"]) < 10.0 < p99(always.by_key["key-0"]), f"\n{ours}\n{always}"
