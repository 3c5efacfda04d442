import os
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.plan import Plan, Request, plan
from loadtests.scenario import Scenario, ScenarioError, load, parse

POISSON = {"kind": "poisson", "rate": 5}
ZIPF = {"mix": "zipf", "count": 3}

GOLDEN = "f98d0ffe0679fc03206a50a696cbd1354b0e2f780924fdabf28c5d35f168f229"


def scenario(**given: Any) -> Scenario:
    return parse(
        {"name": "test", "seconds": 10, "arrivals": POISSON, "routes": ZIPF, "output": 8} | given, "test"
    )


def requests(**given: Any) -> tuple[Request, ...]:
    return plan(scenario(**given)).requests


def column(made: tuple[Request, ...], name: str) -> list[Any]:
    return [getattr(request, name) for request in made]


def test_the_same_seed_gives_the_same_plan_and_another_gives_another():
    assert plan(scenario()) == plan(scenario())
    assert plan(scenario()).digest != plan(scenario(seed=2)).digest


def test_two_processes_with_different_hash_seeds_write_the_same_bytes(tmp_path):
    code = "import sys, pathlib; from loadtests.plan import plan; from loadtests.scenario import load\n"
    code += "plan(load('agents')).save(pathlib.Path(sys.argv[1]))"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / hash_seed)], env=environment, check=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_small_plan_is_the_one_that_it_has_always_been():
    # Changes when a field joins the scenario or numpy changes how it draws; then, and only then, renew it.
    assert GOLDEN == plan(scenario()).digest


def test_the_digest_is_that_of_the_saved_bytes(tmp_path):
    made = plan(scenario())
    made.save(tmp_path / "plan.jsonl")
    assert made.digest == sha256((tmp_path / "plan.jsonl").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["steady", "storm", "agents", "slow-clients"])
def test_a_plan_reads_back_as_it_was_saved(tmp_path, name):
    made = plan(load(name))
    made.save(tmp_path / "plan.jsonl")
    assert made == Plan.read(tmp_path / "plan.jsonl")


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"routes": {"mix": "round_robin", "count": 7}}, ["at", "messages", "max_tokens", "slow"]),
        ({"prompts": {"kind": "lengths", "tokens": 9}}, ["at", "route", "max_tokens", "slow"]),
        ({"output": {"kind": "uniform", "low": 1, "high": 9}}, ["at", "route", "messages", "slow"]),
        ({"client": {"slow_share": 0.9}}, ["at", "route", "messages", "max_tokens"]),
    ],
)
def test_changing_one_part_leaves_the_others_as_they_were(change, kept):
    before, after = (
        requests(client={"slow_share": 0.5}),
        requests(**({"client": {"slow_share": 0.5}} | change)),
    )
    assert before != after
    assert [column(before, name) for name in kept] == [column(after, name) for name in kept]


def test_a_constant_rate_is_constant_to_the_microsecond():
    made = requests(arrivals={"kind": "constant", "rate": 7}, seconds=3)
    assert [round(k / 7, 6) for k in range(21)] == column(made, "at")


def test_a_time_that_rounds_up_to_the_end_is_left_out():
    assert [0.0] == column(requests(arrivals={"kind": "constant", "rate": 1.0000001}, seconds=1), "at")


def test_requests_before_the_end_of_the_warm_up_are_of_that_phase():
    made = requests(arrivals={"kind": "constant", "rate": 1}, warmup_s=3, seconds=2)
    assert ["warmup", "warmup", "warmup", "run", "run"] == column(made, "phase")
    assert [0, 1, 2, 3, 4] == column(made, "at")


def test_a_ramp_begins_when_the_warm_up_ends():
    ramp = {"kind": "ramp", "rate": 1, "to_rate": 3, "process": "constant"}
    assert {"warmup": 5, "run": 20} == Counter(column(requests(arrivals=ramp, warmup_s=5), "phase"))


def test_phases_have_arrivals_and_routes_of_their_own_or_the_scenarios():
    made = requests(
        arrivals={"kind": "constant", "rate": 1},
        routes={"mix": "round_robin", "names": ["calm"]},
        warmup_s=2,
        seconds=9,
        phases=[
            {"name": "before", "seconds": 3},
            {"name": "storm", "seconds": 2, "arrivals": {"kind": "constant", "rate": 4}},
            {"name": "after", "seconds": 4, "routes": {"mix": "round_robin", "names": ["a", "b"]}},
        ],
    )
    assert {"warmup": 2, "before": 3, "storm": 8, "after": 4} == Counter(column(made, "phase"))
    assert ["calm"] * 13 + ["a", "b", "a", "b"] == column(made, "route")
    assert [5.0, 5.25] == [request.at for request in made if request.phase == "storm"][:2]


def test_the_rate_and_the_mix_come_out_as_asked():
    made = requests(arrivals={"kind": "poisson", "rate": 100}, seconds=200)
    assert 20_000 == pytest.approx(len(made), abs=4 * 20_000**0.5)
    shares = [count / len(made) for _, count in sorted(Counter(column(made, "route")).items())]
    assert [6 / 11, 3 / 11, 2 / 11] == pytest.approx(shares, abs=0.015)


def test_a_closed_loop_is_a_list_in_order_without_times():
    made = requests(arrivals={"kind": "closed", "concurrency": 2, "requests": 3, "warmup_requests": 1})
    assert [0, 0, 0, 0] == column(made, "at")
    assert ["warmup", "run", "run", "run"] == column(made, "phase")


def test_slow_clients_are_as_many_as_asked():
    made = requests(arrivals={"kind": "constant", "rate": 1000}, client={"slow_share": 0.2})
    assert 0.2 == pytest.approx(sum(column(made, "slow")) / 10_000, abs=0.016)


def test_a_trace_gives_times_prompts_and_lengths(tmp_path):
    file = tmp_path / "trace.jsonl"
    file.write_text(
        '{"timestamp": 0, "input_length": 9, "output_length": 26, "hash_ids": [4]}\n'
        '{"timestamp": 1500, "input_length": 12, "output_length": 52, "hash_ids": [4]}\n'
        '{"timestamp": 20000, "input_length": 1, "output_length": 1}\n'
    )
    arrivals = {"kind": "trace", "file": str(file), "format": "mooncake", "speed": 0.5}
    made = requests(arrivals=arrivals, output=None)
    assert [(0, 26), (3, 52)] == [(request.at, request.max_tokens) for request in made]
    first, second = (request.text.split() for request in made)
    assert (9, 12, first) == (len(first), len(second), second[:9])
    assert [8, 8] == column(requests(arrivals=arrivals), "max_tokens")


def test_without_an_output_64_tokens_are_asked_for():
    assert {64} == set(column(requests(output=None), "max_tokens"))


SESSIONS = {"turns": 3, "think_s": 2}
ONE_A_SECOND = {"kind": "constant", "rate": 1}


def test_the_rate_of_sessions_counts_those_that_begin():
    made = requests(arrivals=ONE_A_SECOND, sessions=SESSIONS, seconds=20)
    assert 20 == sum(request.turn == 0 for request in made)


def test_a_session_stays_on_its_route_and_its_turns_follow_their_think_time():
    made = requests(arrivals=ONE_A_SECOND, sessions=SESSIONS)
    turns = [request for request in made if request.session == "s3"]
    assert [(3, 0), (5, 1), (7, 2)] == [(request.at, request.turn) for request in turns]
    assert 1 == len({request.route for request in turns})


def test_each_turn_says_all_that_was_said_before_and_a_planned_answer():
    made = requests(arrivals=ONE_A_SECOND, sessions=SESSIONS, prompts={"kind": "lengths", "system": "Hi"})
    first, second, third = [request for request in made if request.session == "s0"]
    roles = [message["role"] for message in third.messages]
    assert ["system", "user", "assistant", "user", "assistant", "user"] == roles
    assert (first.messages, second.messages) == (second.messages[:2], third.messages[:4])
    assert [8, 8] == [len(third.messages[i]["content"].split()) for i in (2, 4)]


def test_turns_due_after_the_end_are_left_out():
    made = requests(arrivals=ONE_A_SECOND, sessions=SESSIONS)
    assert [0] == [request.turn for request in made if request.session == "s8"]
    assert max(column(made, "at")) < 10


def test_turns_are_of_the_phase_that_they_are_due_in():
    phases = [{"name": "a", "seconds": 4}, {"name": "b", "seconds": 6}]
    made = requests(arrivals=ONE_A_SECOND, sessions=SESSIONS, phases=phases)
    assert ["a", "b", "b"] == [request.phase for request in made if request.session == "s3"]


arrivals = st.one_of(
    st.fixed_dictionaries({"kind": st.just("constant"), "rate": st.floats(0.1, 20)}),
    st.fixed_dictionaries({"kind": st.just("poisson"), "rate": st.floats(0.1, 20)}),
    st.fixed_dictionaries({"kind": st.just("gamma"), "rate": st.floats(0.1, 20), "cv": st.floats(0.2, 4)}),
    st.fixed_dictionaries({"kind": st.just("ramp"), "rate": st.floats(0.1, 20), "to_rate": st.floats(0, 20)}),
)
phase = st.fixed_dictionaries({"seconds": st.floats(0.1, 10)}, optional={"arrivals": arrivals})
sessions = st.none() | st.fixed_dictionaries({"turns": st.integers(1, 4), "think_s": st.floats(0, 5)})


@settings(max_examples=60, deadline=None)
@given(arrivals, st.lists(phase, max_size=3), st.floats(0, 5), sessions, st.integers(0, 2**40))
def test_every_plan_is_in_order_numbered_inside_the_run_and_divided_by_phases(
    given, parts, warmup, talks, seed
):
    phases = [{"name": f"p{i}"} | part for i, part in enumerate(parts)]
    lengths = {"seconds": sum(part["seconds"] for part in parts)} if parts else {}
    offered = scenario(arrivals=given, phases=phases, warmup_s=warmup, sessions=talks, seed=seed, **lengths)
    made = plan(offered).requests
    times = column(made, "at")
    assert list(range(len(made))) == column(made, "index")
    assert sorted(times) == times == [round(at, 6) for at in times]
    assert [] == [at for at in times if not 0 <= at < offered.total_s]
    bounds, at = {}, 0.0
    for name, seconds in offered.phase_seconds.items():
        bounds[name] = (at, at + seconds)
        at += seconds
    slack = 2e-6  # bounds are rounded to the microsecond, as times are
    outside = [r for r in made if not bounds[r.phase][0] - slack <= r.at < bounds[r.phase][1] + slack]
    assert [] == outside


@settings(max_examples=40, deadline=None)
@given(arrivals, st.integers(1, 5), st.floats(0, 3), st.integers(0, 2**40))
def test_the_turns_of_every_session_are_in_order_and_none_but_the_last_is_missing(given, turns, think, seed):
    made = plan(scenario(arrivals=given, sessions={"turns": turns, "think_s": think}, seed=seed)).requests
    for name in {request.session for request in made}:
        own = [request for request in made if request.session == name]
        assert list(range(len(own))) == column(tuple(own), "turn")
        assert 1 == len({request.route for request in own})


def test_a_hundred_and_twenty_thousand_requests_are_planned_in_time():
    begin = time.process_time()
    made = requests(arrivals={"kind": "constant", "rate": 2000}, seconds=60)
    assert 120_000 == len(made)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1"),
        (b'{"plan": 2, "scenario": {}}\n', "not a plan of version 1"),
        (b'{"plan": 1, "scenario": {"name": "x"}}\n', "seconds is missing"),
    ],
)
def test_what_is_not_a_plan_is_refused(tmp_path: Path, content, says):
    (tmp_path / "plan.jsonl").write_bytes(content)
    with pytest.raises(ScenarioError, match=rf"plan\.jsonl.*{says}"):
        Plan.read(tmp_path / "plan.jsonl")


def test_a_plan_with_a_broken_line_names_it(tmp_path):
    plan(scenario(arrivals=ONE_A_SECOND)).save(tmp_path / "plan.jsonl")
    lines = (tmp_path / "plan.jsonl").read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:20] + b"\n"
    (tmp_path / "plan.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(ScenarioError, match=r"plan\.jsonl, line 4: .*make it again"):
        Plan.read(tmp_path / "plan.jsonl")


def test_a_plan_that_is_not_there_is_an_error_with_its_name(tmp_path):
    with pytest.raises(ScenarioError, match=r"nowhere\.jsonl cannot be read"):
        Plan.read(tmp_path / "nowhere.jsonl")
