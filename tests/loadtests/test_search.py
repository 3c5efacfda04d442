import random
from collections.abc import Callable, Mapping, Sequence

import pytest

from loadtests.sample import Outcome, Sample
from loadtests.search import Backlog, Found, Limit, Probe, Search, backlog, decide, judge, search
from tests.loadtests.samples_made import answered, failed, queued

STEADY = Backlog(1.0, 0.0, True)


def server(holds: Callable[[float], bool], *, generator: float = float("inf")) -> Callable[[float], Probe]:
    """A server that holds the rates for which `holds`, driven by a generator that reaches `generator`."""

    def probe(rate: float) -> Probe:
        saturated = rate > generator
        passed = holds(rate) and not saturated
        return Probe(rate, 1.0 if passed else 0.5, STEADY, saturated, passed)

    return probe


def rates(found: Found) -> list[float]:
    return [probe.rate for probe in found.probes]


@pytest.mark.parametrize("knee", [0.9, 3.0, 17.3, 100.0, 4321.0])
def test_the_knee_is_bracketed_to_the_precision_asked(knee: float) -> None:
    found = search(server(lambda rate: rate <= knee), Search(precision=0.05))
    assert found.rate is not None and found.above is not None
    assert found.rate <= knee < found.above <= found.rate * 1.0501
    assert Limit.SERVER is found.limit


def test_both_ends_are_asked_twice() -> None:
    found = search(server(lambda rate: rate <= 50), Search())
    assert (2, 2) == (rates(found).count(found.rate or 0), rates(found).count(found.above or 0))


def test_a_server_that_holds_everything_is_limited_by_the_ceiling_asked_twice() -> None:
    found = search(server(lambda rate: True), Search(from_rate=10, to_rate=35))
    assert (35, None, Limit.CEILING, [10, 20, 35, 35]) == (found.rate, found.above, found.limit, rates(found))


def test_a_server_that_holds_nothing_is_limited_by_the_floor() -> None:
    found = search(server(lambda rate: False), Search(from_rate=64))
    assert (None, 1, Limit.FLOOR) == (found.rate, found.above, found.limit)
    assert [64, 32, 16, 8, 4, 2, 1, 1] == rates(found)


def test_a_generator_that_cannot_keep_up_is_the_limit() -> None:
    found = search(server(lambda rate: rate < 1000, generator=70), Search())
    assert found.rate is not None and Limit.GENERATOR is found.limit
    assert found.rate <= 70 < (found.above or 0)


def test_a_generator_that_holds_no_rate_is_not_blamed_on_the_server() -> None:
    assert Limit.GENERATOR is search(server(lambda rate: True, generator=0), Search()).limit


def test_the_search_ends_when_its_probes_run_out() -> None:
    found = search(server(lambda rate: rate <= 100), Search(max_probes=5))
    assert (5, Limit.PROBES) == (len(found.probes), found.limit)


def test_a_search_that_needs_its_last_probe_is_no_search_that_ran_out() -> None:
    needed = len(search(server(lambda rate: rate <= 100), Search()).probes)
    assert Limit.SERVER is search(server(lambda rate: rate <= 100), Search(max_probes=needed)).limit


def test_a_pass_above_a_rate_that_failed_is_not_believed() -> None:
    assert 14.14 == decide({10: [True], 20: [False], 40: [True]}, Search())


@pytest.mark.parametrize("seed", range(20))
def test_noise_near_the_knee_moves_the_answer_little(seed: int) -> None:
    draw = random.Random(seed)
    found = search(server(lambda rate: rate * draw.gauss(1, 0.03) <= 100), Search(max_probes=100))
    assert found.rate is not None and 85 <= found.rate <= 115
    assert len(found.probes) < 40


def test_what_ends_overturned_by_a_majority_moves_the_bracket() -> None:
    options = Search(from_rate=10, precision=0.2)
    answers: dict[float, list[bool]] = {10: [True], 20: [False], 14.14: [True], 16.82: [False]}
    assert 14.14 == decide(answers, options)
    answers[14.14] += [False]
    assert 14.14 == decide(answers, options)  # a third decides
    answers[14.14] += [False]
    assert 11.89 == decide(answers, options)  # between 10 and 14.14, which now fails


@pytest.mark.parametrize(
    ("expected", "answers"),
    [
        (1.0, {}),
        (2.0, {1.0: [True]}),
        (0.5, {1.0: [False]}),
        (1.414, {1.0: [True], 2.0: [False]}),
        (1.0, {1.0: [True], 1.04: [False]}),
        (1.04, {1.0: [True, True], 1.04: [False]}),
        (None, {1.0: [True, True], 1.04: [False, False]}),
        (1.04, {1.0: [True, True], 1.04: [False, True]}),
        (None, {1.0: [True, True], 1.04: [False, True, False]}),
    ],
)
def test_what_is_probed_next(expected: float | None, answers: Mapping[float, Sequence[bool]]) -> None:
    assert expected == decide(answers, Search())


@pytest.mark.parametrize(
    "fields",
    [{"from_rate": 0}, {"from_rate": 5, "to_rate": 4}, {"precision": 0}, {"precision": 1}, {"slo_share": 0}],
)
def test_a_search_that_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Search(**fields)  # type: ignore[arg-type]


def test_probes_are_told_as_they_end() -> None:
    told: list[Probe] = []
    found = search(server(lambda rate: rate <= 5), Search(), told.append)
    assert list(found.probes) == told


def test_a_search_is_json() -> None:
    shown = search(server(lambda rate: rate <= 5), Search()).to_json()
    assert ("server", 1.0) == (shown["limit"], shown["probes"][0]["rate"])


def spread_evenly(rate: float, seconds: float, wait: Callable[[float], float]) -> list[Sample]:
    return [
        answered(i / rate, first=i / rate + wait(i / rate), last=i / rate + wait(i / rate))
        for i in range(int(rate * seconds))
    ]


def test_a_backlog_that_stays_is_stable() -> None:
    found = backlog(spread_evenly(20, 60, lambda at: 0.5), 60)
    assert (True, pytest.approx(10, abs=0.5)) == (found.stable, found.mean)


def test_a_backlog_that_grows_is_not() -> None:
    # Each second adds 0.05 s of wait: 1 request of 20 a second is left behind.
    found = backlog(spread_evenly(20, 60, lambda at: 0.5 + 0.05 * at), 60)
    assert (False, pytest.approx(0.05 / 1.05 * 20 * 30, rel=0.05)) == (found.stable, found.growth)


@pytest.mark.parametrize("wait", [0.5, 10.0])
def test_growth_that_does_not_matter_is_stable(wait: float) -> None:
    # As steady as can be, but by less than one request, or less than a tenth of what is in flight.
    found = backlog(spread_evenly(20, 60, lambda at: wait + 0.001 * wait * at), 60)
    assert (True, True) == (found.stable, found.growth > 0)


def test_the_backlog_is_of_the_second_half_after_the_warm_up() -> None:
    # 60 s of warm-up in which it grows, then 60 s in which it stays.
    found = backlog(spread_evenly(20, 120, lambda at: 0.5 + 0.05 * min(at, 60)), 60, warmup=60)
    assert found.stable


def test_requests_that_never_end_are_a_backlog() -> None:
    samples = [failed(i / 20, Outcome.UNFINISHED) for i in range(1200)]
    assert not backlog(samples, 60).stable


def test_requests_that_were_refused_at_once_are_none() -> None:
    samples = [failed(i / 20, Outcome.CONNECT) for i in range(1200)]
    assert Backlog(0.0, 0.0, True) == backlog(samples, 60)


@pytest.mark.parametrize("rate", [50.0, 62.0])
def test_a_queue_with_room_is_stable_in_almost_every_run(rate: float) -> None:
    # Ten places that each hold a request for 0.15 s on average: 66 a second.
    stable = sum(backlog(queued(seed, n=int(rate * 60), rate=rate), 60).stable for seed in range(20))
    assert stable >= 18


def test_a_queue_without_room_is_unstable_in_almost_every_run() -> None:
    unstable = sum(not backlog(queued(seed, n=80 * 60, rate=80.0), 60).stable for seed in range(20))
    assert unstable >= 19


@pytest.mark.parametrize(
    ("why", "share", "saturated", "growing"),
    [
        ("", 0.99, False, False),
        ("98.00% met the SLO", 0.98, False, False),
        ("the generator fell behind", 1.0, True, False),
        ("the backlog grew by", 1.0, False, True),
        ("the generator fell behind; 50.00% met the SLO; the backlog grew by", 0.5, True, True),
    ],
)
def test_a_run_passes_only_on_every_count(why: str, share: float, saturated: bool, growing: bool) -> None:
    samples = spread_evenly(20, 60, lambda at: 0.5 + 0.05 * at * growing)
    probe = judge(20, samples, share, saturated=saturated, seconds=60, slo_share=0.99, folder="runs/20")
    assert (not why, True, 1200, "runs/20") == (
        probe.passed,
        probe.why.startswith(why),
        probe.requests,
        probe.folder,
    )
