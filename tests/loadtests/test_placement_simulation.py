"""The simulations of placement, on small fleets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.settings import Fleet as FleetSettings
from loadtests.placement import spread, traffic
from loadtests.placement.__main__ import main
from loadtests.placement.dispatch import Homes, Queue
from loadtests.placement.engine import CPU, GPU, Engine, Proportions, Request
from loadtests.placement.fleet import SPILL_AFTER_S, WAYS, Outcome, Scene, Way, simulate
from loadtests.placement.scenes import run

SHAPE = Proportions(
    name="round figures",
    source="made up",
    step_s=0.010,
    row_s=0.001,
    adapter_s=0.002,
    adapter_row_s=0.0,
    prefill_s=0.005,
    load_s=0.100,
    activate_s=0.020,
    max_loras=2,
    max_cpu_loras=3,
    seats=4,
)
SMALL = spread.Spread(engines=20, versions=1000, events=3, replicas=2, samples=(200,), windows=2)


def asked(version: int, tokens: int = 2) -> Request:
    return Request(version, tokens, arrived=0.0)


def drain(engine: Engine) -> Iterator[tuple[float, list[int]]]:
    """Steps until nobody is left: how long each took, and which versions were done after it."""
    now = 0.0
    while not engine.idle:
        length = engine.begin_step()
        now += length
        yield length, [request.version for request in engine.end_step(now)]


# --- one engine ---


def test_a_first_step_loads_activates_prefills_and_steps() -> None:
    engine = Engine(SHAPE)
    engine.waiting.append(asked(1))
    (first, none), (second, done) = drain(engine)
    assert pytest.approx(0.100 + 0.020 + 0.005 + 0.010 + 0.001 + 0.002) == first
    assert ([], [1]) == (none, done)
    assert pytest.approx(0.010 + 0.001 + 0.002) == second
    assert (2, 1, 1) == (engine.counts.tokens, engine.counts.loads, engine.counts.activations)


def test_a_third_adapter_is_passed_over_while_two_run_and_a_later_request_of_theirs_is_not() -> None:
    engine = Engine(SHAPE)
    engine.waiting.extend([asked(1), asked(2), asked(3), asked(1)])
    assert [[], [1, 2, 1], [], [3]] == [done for _, done in drain(engine)]


def test_an_adapter_in_the_cache_is_only_activated_and_one_that_has_a_slot_costs_nothing() -> None:
    engine = Engine(SHAPE)
    for version in (1, 2, 3, 1, 1):
        engine.waiting.append(asked(version))
        list(drain(engine))
    assert (3, 4) == (engine.counts.loads, engine.counts.activations)


def test_the_least_recently_used_adapter_leaves_the_cache() -> None:
    engine = Engine(SHAPE)
    for version in (1, 2, 3, 1, 4, 2):  # 4 drives out 2
        engine.waiting.append(asked(version))
        list(drain(engine))
    assert [1, 4, 2] == list(engine.cache)
    assert 5 == engine.counts.loads


def test_no_more_requests_run_than_there_are_seats() -> None:
    engine = Engine(SHAPE)
    engine.waiting.extend(asked(1) for _ in range(6))
    assert [0, 4, 0, 2] == [len(done) for _, done in drain(engine)]


def test_loads_may_be_kept_to_one_a_step() -> None:
    engine = Engine(SHAPE, loads_a_step=1)
    engine.waiting.extend([asked(1), asked(2)])
    lengths = [length for length, _ in drain(engine)]
    assert [True, True, False] == [length > SHAPE.load_s for length in lengths]


def test_the_cpus_proportions_give_the_measured_speeds() -> None:
    plain = replace(CPU, adapter_s=0.0, adapter_row_s=0.0)
    assert pytest.approx(47, rel=0.01) == 1 / plain.step(1, 0)
    assert pytest.approx(460, rel=0.01) == 32 / plain.step(32, 0)
    assert pytest.approx(330, rel=0.02) == 32 / CPU.step(32, 1)
    assert pytest.approx(75, rel=0.02) == 8 / CPU.step(8, 5)


# --- the queue before an engine ---


def test_a_queue_lets_only_as_many_versions_in_as_there_are_slots() -> None:
    queue = Queue(Engine(SHAPE))
    for version in (1, 2, 3, 1):
        queue.add(asked(version))
    assert [1, 2, 1] == [request.version for request in queue.engine.waiting]
    assert (3, 1) == (queue.flights.total(), queue.waiting)


def test_a_version_that_used_up_its_turn_makes_room_for_one_that_waits() -> None:
    queue = Queue(Engine(replace(SHAPE, max_loras=1)), quantum=2)
    first = [asked(1) for _ in range(4)]
    for request in first[:2]:
        queue.add(request)
    queue.add(asked(2))
    for request in first[2:]:
        queue.add(request)
    queue.left(first[0])
    queue.left(first[1])
    assert [1, 1, 2] == [request.version for request in queue.engine.waiting]


def test_a_version_in_the_cache_goes_first_but_nobody_is_passed_over_twice() -> None:
    queue = Queue(Engine(replace(SHAPE, max_loras=1)))
    queue.engine.cache[8] = queue.engine.cache[9] = None
    for version in (1, 2, 8, 9):
        queue.add(asked(version))
    for version in (1, 8, 2):
        queue.left(asked(version))
    assert [1, 8, 2, 9] == [request.version for request in queue.engine.waiting]


# --- a fleet ---


def homes_of_two(spill_after_s: float | None) -> Homes:
    """Two engines with one slot each, and eight versions."""
    shape = replace(SHAPE, max_loras=1)
    return Homes(shape, 2, 8, place_every_s=5.0, keep=0.9, spill_after_s=spill_after_s)


def test_a_request_goes_home_and_waits_there_or_spills_to_an_engine_with_a_free_slot() -> None:
    at = {version: homes_of_two(None).arrived(asked(version)) for version in range(8)}
    one, other, third = [version for version in at if at[version] == at[0]][:3]
    patient, spills = homes_of_two(None), homes_of_two(0.5)
    for homes in (patient, spills):
        assert [at[0], at[0]] == [homes.arrived(asked(version)) for version in (one, other)]
        assert set() == homes.passed(0.4)
    assert set() == patient.passed(9.0)
    assert {1 - at[0]} == spills.passed(0.5)
    assert at[0] == spills.arrived(asked(third))
    assert set() == spills.passed(0.6), "a full fleet does not spill"


def test_it_spills_when_the_gateway_does() -> None:
    assert SPILL_AFTER_S == FleetSettings().spill_after_s


def scene(exponent: float, *, slots: int = 4, cache: int = 16) -> Scene:
    shape = replace(CPU, max_loras=slots, max_cpu_loras=cache)
    return Scene(shape, 2, 32, exponent, 16, 16, 600, 200)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_answers_everything_and_the_same_seed_gives_the_same_figures(way: Way) -> None:
    outcome = simulate(scene(1.0), way, seed=3)
    assert outcome == simulate(scene(1.0), way, seed=3)
    assert outcome.tokens_per_s > 0
    assert 0 <= outcome.ttft_p50_s <= outcome.ttft_p99_s


def test_with_room_for_everything_nothing_is_loaded_after_the_beginning() -> None:
    outcome = simulate(replace(scene(0.0), warm=900).roomy(), "round robin", seed=1)
    assert (0.0, 0.0) == (outcome.loads_per_request, outcome.activations_per_request)


def test_homes_cause_fewer_loads_than_round_robin_when_each_engines_share_fits_its_cache() -> None:
    ways = run(scene(0.0), WAYS, (1,), roomy=False)["ways"]
    assert 0.3 < ways["round robin"]["loads_per_request"]
    assert 10 * ways["homes"]["loads_per_request"] < ways["round robin"]["loads_per_request"]
    assert ways["homes, spill"]["ttft_p99_s"] <= ways["homes"]["ttft_p99_s"]


def test_affinity_pays_more_where_a_load_takes_longer() -> None:
    def gain(load_s: float) -> float:
        wide = Scene(replace(GPU, load_s=load_s), 4, 250, 1.0, 128, 32, 1500, 1500)
        outcomes: list[Outcome] = [simulate(wide, way, seed=1) for way in ("homes", "round robin")]
        return outcomes[0].tokens_per_s / outcomes[1].tokens_per_s

    assert 1.0 < gain(0.02) < gain(0.2)


# --- where versions are placed ---


@pytest.fixture(scope="module")
def studied() -> dict[str, Any]:
    return spread.study(SMALL)


def test_a_study_keeps_the_bound_and_moves_little(studied: dict[str, Any]) -> None:
    assert max(studied["loads"]) <= 1.25
    assert 6 == len(studied["events"])
    assert all(event["moved"] * event["engines"] < 1.6 for event in studied["events"])


def test_an_engine_that_joins_is_seen_to_move_what_it_holds(
    studied: dict[str, Any],
) -> None:
    joins = [event for event in studied["events"] if event["kind"] == "join"]
    assert all(event["its_own"] <= event["moved"] + 1e-9 for event in joins)


def test_gateways_with_the_same_homes_do_not_part_and_others_do() -> None:
    fleet = spread.Fleet(SMALL)
    names = fleet.engines[:20]
    one = fleet.look(fleet.place(fleet.popular, names))
    other = fleet.look(fleet.place(fleet.popular, fleet.engines[1:21]))
    same = spread.parting(one, one, fleet.popular)
    assert (0.0, 0.0, 0.0) == (same.first, same.any, same.first_by_traffic)
    assert pytest.approx(0.0, abs=1e-9) == same.requests
    assert 0.02 < spread.parting(one, other, fleet.popular).first < 0.2
    assert 0.0 == spread.moved(one, one)


def test_a_ramp_rises_and_falls_and_its_homes_are_nested() -> None:
    rows = spread.ramp(replace(SMALL, engines=10, versions=100), top=10.0, steps=12)
    counts = [row["homes"] for row in rows]
    assert 1 == counts[0] == counts[-1]
    assert counts[:12] == sorted(counts[:12])
    assert counts[12:] == sorted(counts[12:], reverse=True)
    assert np.mean([row["nested"] for row in rows]) > 0.9


def test_the_traffic_is_as_popular_as_asked_and_the_names_are_all_different() -> None:
    popular = traffic.shares(1000, 1.0)
    assert pytest.approx(1.0) == popular.sum()
    assert pytest.approx(2.0) == popular[0] / popular[1]
    assert all(before >= after for before, after in pairwise(popular))
    assert 1000 == len(set(traffic.versions(1000)))


# --- the command ---


def test_the_command_writes_results_tables_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["spread", "--engines", "12", "--versions", "300", "--events", "2", "--out", str(tmp_path)]
    assert 0 == main(words)
    assert {"spread", "ramp"} == json.loads((tmp_path / "results.json").read_text()).keys()
    assert "Zipf(0.7)" in (tmp_path / "tables.md").read_text()
    pictures = sorted(tmp_path.glob("*.svg"))
    assert ["placement-agreement.svg", "placement-hot.svg", "placement-load.svg"] == [
        p.name for p in pictures
    ]
    assert all(path.stat().st_size < 60_000 for path in pictures)
    assert "worst load" in capsys.readouterr().out


def test_the_command_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["placemnt", "--out", str(tmp_path)])
