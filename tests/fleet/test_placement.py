"""Which engines are a version's homes.

Without `previous` everybody starts at its preferred engines; with it, from where it was.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.placement import Placement, order, place, prefer

LOOSE = 1e6
"""A bound that nobody ever meets: pure preference."""

names = st.text("abcdef0123456789@-:.", min_size=1, max_size=12)
engine_sets = st.sets(names, min_size=1, max_size=12)
demands = st.dictionaries(names, st.floats(0, 100), min_size=1, max_size=60)


def fleet(count: int, begin: int = 0) -> dict[str, float]:
    return {f"engine-{number}:8000": 1.0 for number in range(begin, begin + count)}


def zipf(count: int, exponent: float) -> dict[str, float]:
    """By rank; names say nothing about popularity."""
    return {f"adapter-{rank}@{rank * 7919:012x}": 1.0 / (rank + 1) ** exponent for rank in range(count)}


def sample(demand: Mapping[str, float], requests: int, seed: int) -> dict[str, float]:
    """How often each version is asked for among so many requests."""
    drawn = random.Random(seed).choices(list(demand), list(demand.values()), k=requests)
    return dict.fromkeys(demand, 0.0) | {name: float(seen) for name, seen in Counter(drawn).items()}


def homes(placement: Placement, versions: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {version: placement.homes(version) for version in versions}


def carried(placement: Placement, demand: Mapping[str, float]) -> dict[str, float]:
    """Load of each engine over an even one, each version dealt out evenly over its homes."""
    loads = dict.fromkeys(placement.engines, 0.0)
    for version, load in demand.items():
        own = placement.homes(version)
        for engine in own:
            loads[engine] += load / len(own)
    even = sum(demand.values()) / len(loads)
    return {engine: load / even for engine, load in loads.items()}


def new_pairs(before: Placement, after: Placement, versions: Iterable[str]) -> int:
    return sum(len(set(after.homes(version)) - set(before.homes(version))) for version in versions)


# --- preference ---


@settings(deadline=None)
@given(names, engine_sets)
def test_an_order_is_a_permutation_that_does_not_depend_on_the_order_asked_in(
    version: str, engines: set[str]
) -> None:
    ordered = order(version, sorted(engines))
    assert sorted(engines) == sorted(ordered)
    assert ordered == order(version, sorted(engines, reverse=True))


@settings(deadline=None)
@given(names, st.sets(names, min_size=2, max_size=12), st.data())
def test_an_engine_that_goes_leaves_the_order_of_the_others_as_it_was(
    version: str, engines: set[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(engines)))
    ordered = order(version, sorted(engines))
    assert tuple(e for e in ordered if e != gone) == order(version, sorted(engines - {gone}))


def test_every_engine_is_the_first_choice_of_about_as_many_versions() -> None:
    engines = list(fleet(10))
    firsts = Counter(order(f"adapter-{number}", engines)[0] for number in range(5000))
    assert 10 == len(firsts)
    assert all(400 < count < 600 for count in firsts.values()), firsts


def test_the_order_is_the_one_it_was_in_the_last_release() -> None:
    """Replicas of two releases share a fleet during an upgrade: they must agree."""
    assert ("c", "d", "a", "b", "e") == order("support@3f9c2ab71e04", ["a", "b", "c", "d", "e"])


def test_another_process_with_another_hash_seed_decides_the_same() -> None:
    demand, engines = zipf(400, 1.0), fleet(7) | {"large:8000": 2.0}
    program = (
        "import json, sys; from gateway.fleet.placement import order, place, prefer\n"
        "demand, engines = json.load(sys.stdin)\n"
        "one = place(demand, engines); two = place(dict(reversed(demand.items())), engines, one)\n"
        "all_of = [[two.homes(v), order(v, list(engines)), prefer(7, two.homes(v))] for v in demand]\n"
        "print(json.dumps(all_of))"
    )
    answers = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", program],
                input=json.dumps([demand, engines]),
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for seed in ("1", "2")
    ]
    ours = place(demand, engines)
    expected = [
        [list(ours.homes(v)), list(order(v, list(engines))), list(prefer(7, ours.homes(v)))] for v in demand
    ]
    assert [expected, expected] == answers


# --- the prompt's own order of the homes ---


@settings(deadline=None)
@given(st.integers(), st.lists(names, min_size=1, max_size=30, unique=True))
def test_a_preference_is_a_permutation_of_the_homes(affinity: int, own: list[str]) -> None:
    assert sorted(own) == sorted(prefer(affinity, own))
    assert prefer(affinity, own) == prefer(affinity, own)


@pytest.mark.parametrize("count", [2, 5, 8, 9, 20])
def test_prompts_are_dealt_out_over_the_homes_and_a_new_home_takes_its_share_only(count: int) -> None:
    before, after = list(fleet(count)), list(fleet(count + 1))
    prompts = range(0, 2000 * 977, 977)
    firsts = Counter(prefer(prompt, before)[0] for prompt in prompts)
    assert all(0.5 * 2000 / count < seen < 1.6 * 2000 / count for seen in firsts.values()), firsts
    if count == 8:
        return  # from here on another rule holds: `AFFINE`
    moved = [prompt for prompt in prompts if prefer(prompt, before)[0] != prefer(prompt, after)[0]]
    assert {after[-1]} == {prefer(prompt, after)[0] for prompt in moved}
    assert 0.6 * 2000 / (count + 1) < len(moved) < 1.5 * 2000 / (count + 1)


# --- engines come and go ---


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(1, 60), st.data())
def test_removing_an_engine_moves_only_what_it_held(count: int, versions: int, data: st.DataObject) -> None:
    demand, engines = zipf(versions, data.draw(st.sampled_from([0.0, 1.0]))), fleet(count)
    gone = data.draw(st.sampled_from(sorted(engines)))
    before = place(demand, engines, bound=LOOSE, hot=LOOSE)
    left = {name: weight for name, weight in engines.items() if name != gone}
    after = place(demand, left, before, bound=LOOSE, hot=LOOSE)
    for version in demand:
        if gone not in before.homes(version):
            assert before.homes(version) == after.homes(version)
        else:
            assert gone not in after.homes(version)
    assert homes(place(demand, left, bound=LOOSE, hot=LOOSE), demand) == homes(after, demand)


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 60))
def test_a_new_engine_gets_versions_and_nothing_else_moves(count: int, versions: int) -> None:
    demand = zipf(versions, 0.0)
    before = place(demand, fleet(count), bound=LOOSE, hot=LOOSE)
    after = place(demand, fleet(count + 1), before, bound=LOOSE, hot=LOOSE)
    (new,) = set(after.engines) - set(before.engines)
    moved = [version for version in demand if before.homes(version) != after.homes(version)]
    assert all((new,) == after.homes(version) for version in moved)
    assert homes(place(demand, fleet(count + 1), bound=LOOSE, hot=LOOSE), demand) == homes(after, demand)


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_engines_that_join_and_leave_move_little_more_than_their_share(exponent: float) -> None:
    demand, engines = zipf(3000, exponent), fleet(30)
    placed = place(demand, engines)
    for event in range(6):
        joined = engines | fleet(1, begin=100 + event)
        after = place(demand, joined, placed)
        assert new_pairs(placed, after, demand) <= 1.45 / 31 * 3000
        engines = {name: 1.0 for name in joined if name != f"engine-{event}:8000"}
        placed = place(demand, engines, after)
        assert new_pairs(after, placed, demand) <= 1.45 / 31 * 3000


def test_all_engines_may_be_others_than_before() -> None:
    demand = zipf(50, 1.0)
    placed = place(demand, fleet(3, begin=10), place(demand, fleet(4)))
    assert homes(place(demand, fleet(3, begin=10)), demand) == homes(placed, demand)


def test_without_engines_there_are_no_homes_until_some_come() -> None:
    nobody = place({"a": 1.0}, {})
    assert () == nobody.homes("a")
    assert 1 <= len(place({"a": 1.0}, fleet(3), nobody).homes("a"))


def test_versions_may_come_after_none_and_go_again() -> None:
    none = place({}, fleet(3))
    some = place({"a": 1.0, "b": 2.0}, fleet(3), none)
    assert 1 <= len(some.homes("a"))
    assert 1 == len(place({}, fleet(3), some).homes("a"))


# --- load ---


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 10), st.lists(st.floats(0.01, 100), min_size=40, max_size=80))
def test_no_engine_has_more_than_the_bound_when_no_version_brings_much_to_one_home(
    count: int, loads: list[float]
) -> None:
    demand = {f"adapter-{number}": load for number, load in enumerate(loads)}
    placed = place(demand, fleet(count), hot=0.15)
    assert max(carried(placed, demand).values()) <= 1.25 + 1e-9


@settings(deadline=None)
@given(demands, engine_sets)
def test_the_loads_that_a_placement_tells_are_the_loads(demand: dict[str, float], engines: set[str]) -> None:
    placed = place(demand, dict.fromkeys(engines, 1.0))
    if sum(demand.values()) > 1e-6:
        assert pytest.approx(carried(placed, demand), abs=1e-6) == dict(placed.loads)


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_a_bound_costs_few_versions_their_first_choice(exponent: float) -> None:
    demand, engines = zipf(3000, exponent), fleet(30)
    placed = place(demand, engines)
    assert max(carried(placed, demand).values()) <= 1.25
    away = [version for version in demand if placed.homes(version)[0] != order(version, list(engines))[0]]
    assert len(away) <= 0.02 * 3000


def test_a_heavier_engine_gets_more_and_one_that_starts_gets_little() -> None:
    demand = zipf(4000, 0.0)
    engines = fleet(8) | {"large": 2.0, "starting": 0.1}
    placed = place(demand, engines)
    counts = Counter(placed.homes(version)[0] for version in demand)
    share = 4000 / 10.1
    assert 0.8 * 2 * share < counts["large"] < 1.25 * 2 * share
    assert 0.5 * 0.1 * share < counts["starting"] < 1.6 * 0.1 * share


def test_a_weight_that_grows_draws_versions_and_moves_no_others() -> None:
    demand = zipf(1000, 0.0)
    before = place(demand, fleet(5) | {"starting": 0.2}, bound=LOOSE)
    after = place(demand, fleet(5) | {"starting": 0.6}, before, bound=LOOSE)
    moved = [version for version in demand if before.homes(version) != after.homes(version)]
    assert len(moved) > 30
    assert all(("starting",) == after.homes(version) for version in moved)


def test_below_the_floor_nothing_is_spread_or_moved_for_balance() -> None:
    engines = list(fleet(4))
    demand = {"busy": 3.0} | {f"adapter-{number}": 0.01 for number in range(20)}
    calm = place(demand, fleet(4), floor=8.0)
    assert all(order(version, engines)[:1] == calm.homes(version) for version in demand)
    assert pytest.approx(carried(calm, demand)) == dict(calm.loads)
    assert 4 == len(place(demand, fleet(4)).homes("busy"))


def test_when_nobody_asks_for_anything_versions_are_dealt_out_evenly() -> None:
    demand = dict.fromkeys(zipf(1200, 0.0), 0.0)
    placed = place(demand, fleet(40))
    counts = Counter(placed.homes(version)[0] for version in demand)
    assert max(counts.values()) <= 1.25 * 30


def test_engines_whose_caches_hold_all_versions_are_not_given_more_than_that() -> None:
    demand, engines, keeps = zipf(64, 0.0), fleet(2), dict.fromkeys(fleet(2), 32)
    free, placed = place(demand, engines), place(demand, engines, keeps=keeps)
    assert 32 < max(Counter(free.homes(version)[0] for version in demand).values())
    assert {32} == set(Counter(placed.homes(version)[0] for version in demand).values())
    assert homes(placed, demand) == homes(place(demand, engines, placed, keeps=keeps), demand)


def test_caches_that_are_far_too_small_make_no_difference() -> None:
    demand, engines = zipf(200, 0.0), fleet(2)
    placed = place(demand, engines, keeps=dict.fromkeys(engines, 4))
    assert homes(place(demand, engines), demand) == homes(placed, demand)


# --- hot versions ---


def background(load: float) -> dict[str, float]:
    """300 versions that bring 10 engines an even load of 1 each, and one that brings `load`."""
    return {f"adapter-{number}": 10 / 300 for number in range(300)} | {"hot": load}


def test_a_hot_version_has_homes_for_its_load_and_the_first_is_the_one_it_had() -> None:
    cold = place(background(0.1), fleet(10))
    hot = place(background(4.0), fleet(10), cold)
    assert 1 == len(cold.homes("hot"))
    assert 4.0 / len(hot.homes("hot")) <= 0.5 * 14.0 / 10
    assert cold.homes("hot") == hot.homes("hot")[:1]


@given(st.lists(st.floats(0.05, 60), min_size=2, max_size=8))
@settings(deadline=None, max_examples=50)
def test_homes_are_nested_when_a_version_gets_hotter_or_cooler(loads: list[float]) -> None:
    placed = place(background(loads[0]), fleet(10), bound=LOOSE)
    for load in loads[1:]:
        following = place(background(load), fleet(10), placed, bound=LOOSE)
        before, after = set(placed.homes("hot")), set(following.homes("hot"))
        assert before <= after or after <= before
        placed = following


def test_a_load_that_wavers_about_a_threshold_moves_homes_once_at_most() -> None:
    placed = place(background(0.2), fleet(10))
    seen = []
    for step in range(40):
        placed = place(background(1.0 if step % 2 else 1.15), fleet(10), placed)
        seen.append(placed.homes("hot"))
    assert {seen[-1]} == set(seen[1:])


def test_a_version_that_cools_down_gives_its_homes_up_again() -> None:
    hot = place(background(8.0), fleet(10))
    warm = place(background(7.0), fleet(10), hot)
    cold = place(background(0.1), fleet(10), warm)
    assert hot.homes("hot") == warm.homes("hot")
    assert 1 == len(cold.homes("hot")) < len(hot.homes("hot"))


def test_a_version_that_is_all_there_is_lives_everywhere() -> None:
    assert sorted(fleet(6)) == sorted(place({"only": 3.0}, fleet(6)).homes("only"))


# --- calm, and gateways that agree ---


@given(st.randoms(use_true_random=False), st.sampled_from([0.0, 1.0]))
@settings(deadline=None, max_examples=20)
def test_the_order_in_which_versions_are_told_makes_no_difference(
    shuffle: random.Random, exponent: float
) -> None:
    demand, engines = zipf(400, exponent), fleet(20)
    shuffled = list(demand.items())
    shuffle.shuffle(shuffled)
    assert homes(place(demand, engines), demand) == homes(place(dict(shuffled), engines), demand)


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_the_same_demand_again_moves_nothing(exponent: float) -> None:
    demand, engines = zipf(1000, exponent), fleet(12)
    first = place(demand, engines)
    again = place(dict(reversed(demand.items())), engines, first)
    assert homes(first, demand) == homes(again, demand)


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_two_samples_of_the_same_traffic_give_nearly_the_same_homes(exponent: float) -> None:
    demand, engines = zipf(2000, exponent), fleet(20)
    one, other = (place(sample(demand, 20_000, seed), engines) for seed in (1, 2))
    differ = [version for version in demand if set(one.homes(version)) != set(other.homes(version))]
    assert len(differ) <= 0.02 * 2000


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_a_gateway_with_a_past_nearly_agrees_with_one_that_has_just_started(exponent: float) -> None:
    demand, engines = zipf(2000, exponent), fleet(20)
    old = place(dict.fromkeys(demand, 1.0), fleet(24))
    for step in range(10):
        old = place(sample(demand, 20_000, step), engines if step > 3 else fleet(22), old)
    new = place(sample(demand, 20_000, 99), engines)
    differ = [version for version in demand if set(old.homes(version)) != set(new.homes(version))]
    assert len(differ) <= 0.03 * 2000


def test_another_sample_moves_less_when_the_last_homes_are_known() -> None:
    demand, engines = zipf(2000, 0.7), fleet(20)
    placed = place(sample(demand, 10_000, 0), engines)
    moved = anew = 0
    for step in range(1, 8):
        seen = sample(demand, 10_000, step)
        following = place(seen, engines, placed)
        moved += new_pairs(placed, following, demand)
        anew += new_pairs(placed, place(seen, engines), demand)
        placed = following
    assert moved < anew / 2
    assert moved / 7 < 0.005 * 2000


# --- versions that were not placed ---


@given(names, st.integers(1, 60))
@settings(deadline=None)
def test_an_unknown_version_has_the_home_that_it_would_be_given(version: str, count: int) -> None:
    demand, engines = zipf(100, 0.0), fleet(count)
    placed = place(demand, engines, bound=LOOSE)
    assert order(version, list(engines))[:1] == placed.homes(version)
    assert placed.homes(version) == place(demand | {version: 1e-6}, engines, placed, bound=LOOSE).homes(
        version
    )


def test_an_unknown_version_does_not_go_to_an_engine_that_is_full() -> None:
    placed = place(zipf(300, 1.0), fleet(20))
    full = {engine for engine, load in placed.loads.items() if load > 1.2}
    assert full
    assert full.isdisjoint(placed.homes(f"unknown-{number}")[0] for number in range(500))


# --- one engine ---


def test_the_only_engine_is_home_to_all_until_another_comes() -> None:
    demand = {f"v{number}": 1.0 for number in range(50)}
    two = {"a": 1.0, "b": 1.0}
    alone = place(demand, {"a": 1.0})
    assert {alone.homes(name) for name in [*demand, "unknown"]} == {("a",)}
    assert alone.loads == {"a": 1.0}
    again = place(demand, two, alone)
    assert {name: again.homes(name) for name in demand} == {
        name: place(demand, two).homes(name) for name in demand
    }
    assert place(demand, {"b": 1.0}, again).homes("v1") == ("b",)


def test_a_gateway_of_one_engine_does_without_numpy() -> None:
    script = (
        "import sys; from gateway.fleet.placement import place; "
        "p = place({'v': 1.0}, {'e': 1.0}); p.homes('v'), p.homes('unknown'); "
        "place({'v': 1.0}, {'e': 1.0}, p); sys.exit('numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (({"a": -1.0}, {"e": 1.0}), "demand of 'a' is -1"),
        (({"a": float("nan")}, {"e": 1.0}), "demand of 'a' is nan"),
        (({"a": float("inf")}, {"e": 1.0}), "demand of 'a' is inf"),
        (({"a": -1.0}, {"e": 1.0, "f": 1.0}), "demand of 'a' is -1"),
        (({"a": 1.0}, {"e": 0.0}), "weight of engine 'e' is 0"),
        (({"a": 1.0}, {"e": float("nan")}), "weight of engine 'e' is nan"),
    ],
)
def test_a_number_that_is_none_is_named(
    arguments: tuple[dict[str, float], dict[str, float]], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        place(*arguments)


@pytest.mark.parametrize("options", [{"bound": 1.0}, {"bound": float("nan")}, {"hot": 0.0}, {"floor": -1.0}])
def test_an_option_that_cannot_be_is_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        place({"a": 1.0}, fleet(2), **options)
