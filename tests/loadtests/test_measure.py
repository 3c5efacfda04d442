import json
import time

import numpy as np
import pytest

from loadtests.measure import blocks, measure, met
from loadtests.sample import Outcome, Sample
from tests.loadtests.samples_made import Slo, answered, failed, queued


def test_latencies_are_of_good_requests_only() -> None:
    group = measure([answered(), failed(1.0, first=9.0, last=9.9, arrivals=(9.0, 9.9))], None, 10.0).all
    assert (1, 1, 1, 4) == (group.ttft.n, group.e2e.n, group.tpot.n, group.gap.n)


def test_errors_are_counted_under_their_name_and_against_the_share() -> None:
    samples = [answered(), failed(), failed(), failed(outcome=Outcome.DROPPED, sent=None)]
    group = measure(samples, None, 10.0).all
    assert (4, 1, {"status_5xx": 2, "dropped": 1}, 0.75) == (
        group.requests,
        group.ok,
        dict(group.errors),
        group.error_share,
    )


def test_both_clocks_are_kept() -> None:
    group = measure([answered(1.0, sent=1.05)], None, 10.0).all
    assert (pytest.approx(0.1), pytest.approx(0.05)) == (group.ttft.p50, group.ttft_from_send.p50)
    assert (pytest.approx(0.14), pytest.approx(0.09)) == (group.e2e.p50, group.e2e_from_send.p50)


def test_warm_up_is_its_own_phase_and_nothing_else() -> None:
    samples = [answered(0.0, phase="warmup", route="early"), answered(2.0)]
    measures = measure(samples, None, 10.0)
    assert (1, ["support"], 1) == (
        measures.all.requests,
        list(measures.routes),
        measures.phases["warmup"].requests,
    )


def test_slow_clients_are_a_group_of_their_own() -> None:
    measures = measure([answered(), answered(1.0, slow=True)], None, 10.0)
    assert measures.slow is not None
    assert (1, 1, 1) == (measures.all.requests, measures.slow.requests, measures.phases["run"].requests)


def test_without_slow_clients_there_is_no_such_group() -> None:
    assert measure([answered()], None, 10.0).slow is None


def test_groups_are_by_route_version_phase_and_route_and_phase() -> None:
    samples = [
        answered(0.0, route="a", version="a@1", phase="x"),
        answered(1.0, route="a", version="a@2", phase="y"),
        answered(2.0, route="b", version="b@1", phase="y"),
        failed(3.0, route="b", phase="y"),
    ]
    measures = measure(samples, None, 10.0)
    assert {"a": 2, "b": 2} == {name: group.requests for name, group in measures.routes.items()}
    assert {"a@1": 1, "a@2": 1, "b@1": 1} == {
        name: group.requests for name, group in measures.versions.items()
    }
    assert {"x": 1, "y": 3} == {name: group.requests for name, group in measures.phases.items()}
    assert {"a": {"x": 1, "y": 1}, "b": {"y": 2}} == {
        route: {phase: group.requests for phase, group in phases.items()}
        for route, phases in measures.route_phases.items()
    }


def test_a_gap_is_within_one_answer_never_between_two() -> None:
    samples = [
        answered(0.0, arrivals=(0.1, 0.2)),
        failed(0.3, arrivals=(0.4, 0.9)),
        answered(1.0, arrivals=()),
        answered(2.0, arrivals=(2.1, 2.4, 2.5)),
    ]
    group = measure(samples, None, 10.0).all
    assert (3, pytest.approx(0.3), pytest.approx(0.5 / 3)) == (group.gap.n, group.gap.max, group.gap.mean)


def test_gaps_of_each_route_are_its_own() -> None:
    samples = [
        answered(0.0, route="a", arrivals=(0.1, 0.2)),
        answered(1.0, route="b", arrivals=(1.0, 1.5)),
        answered(2.0, route="a", arrivals=(2.1, 2.2)),
    ]
    routes = measure(samples, None, 10.0).routes
    assert (pytest.approx(0.1), pytest.approx(0.5)) == (routes["a"].gap.max, routes["b"].gap.max)


def test_an_answer_that_came_whole_has_no_time_per_token() -> None:
    assert 0 == measure([answered(arrivals=())], None, 10.0).all.tpot.n


def test_answers_after_the_window_are_no_throughput_of_it() -> None:
    # Ten requests in 10 s, of which the server answers half in time and half in the drain.
    samples = [answered(float(i), first=i * 2 + 1.0, last=i * 2 + 1.5, arrivals=()) for i in range(10)]
    group = measure(samples, None, 10.0, starts=0.0).all
    assert (1.0, 0.5, 2.5) == (group.offered_per_s, group.requests_per_s, group.tokens_per_s)


def test_what_was_due_in_the_warm_up_and_came_in_the_window_is_its_throughput() -> None:
    early = answered(0.9, phase="warmup", arrivals=(0.95, 1.0, 1.1, 1.2, 1.3), last=1.3)
    group = measure([early, answered(2.0)], None, 10.0, starts=1.0).all
    assert (1, 0.2, 0.9) == (group.requests, group.requests_per_s, group.tokens_per_s)


def test_phases_follow_each_other_for_the_seconds_given() -> None:
    samples = [answered(1.5, phase="a"), answered(3.5, phase="b"), answered(3.6, phase="b")]
    phases = measure(samples, None, 5.0, starts=1.0, phase_seconds={"a": 2.0, "b": 3.0}).phases
    assert (0.5, pytest.approx(2 / 3)) == (phases["a"].requests_per_s, phases["b"].requests_per_s)


def test_a_phase_of_unknown_length_lasts_to_its_last_answer() -> None:
    samples = [answered(0.0, phase="warmup", last=2.0), answered(3.0)]
    assert 2.0 == measure(samples, None, 5.0).phases["warmup"].seconds


def test_goodput_counts_failures_against_it() -> None:
    slo = Slo(ttft_s=0.2)
    group = measure([answered(), answered(1.0, first=1.5), failed(2.0), answered(3.0)], slo, 4.0).all
    assert (2, 0.5, 0.5) == (group.met, group.goodput_share, group.goodput_per_s)


@pytest.mark.parametrize("slo", [None, Slo()])
def test_without_a_bound_there_is_no_goodput(slo: Slo | None) -> None:
    group = measure([answered()], slo, 4.0).all
    assert (None, None, None) == (group.met, group.goodput_share, group.goodput_per_s)


@pytest.mark.parametrize(
    ("expected", "slo", "sample"),
    [
        (True, Slo(ttft_s=0.11), answered()),
        (False, Slo(ttft_s=0.09), answered()),
        (False, Slo(ttft_s=0.11), answered(1.0, sent=1.05, first=1.15)),  # from the schedule, not the send
        (True, Slo(e2e_s=0.15), answered()),
        (False, Slo(e2e_s=0.13), answered()),
        (True, Slo(tpot_s=0.0101), answered()),
        (False, Slo(tpot_s=0.0099), answered()),
        (True, Slo(tpot_s=0.0101), answered(usage_known=False, output_tokens=0)),  # chunks stand in
        (True, Slo(tpot_s=0.001), answered(output_tokens=1)),  # one token has no time per token
        (True, Slo(tpot_s=0.001), answered(arrivals=())),  # nor has an answer that came whole
        (False, Slo(ttft_s=0.11), answered(first=None, arrivals=())),  # whose first token is its end
        (False, Slo(ttft_s=9.0), failed()),
        (False, Slo(ttft_s=9.0), answered(last=None)),
    ],
)
def test_the_slo_is_met_by_good_requests_within_every_bound(expected: bool, slo: Slo, sample: Sample) -> None:
    assert expected is met(sample, slo)


def test_tokens_cold_starts_compression_and_missing_usage_are_counted() -> None:
    samples = [
        answered(cached_tokens=16, loaded_s=0.3),
        answered(1.0, usage_known=False, compressed=True, loaded_s=0.0),
        failed(2.0, output_tokens=3),
    ]
    group = measure(samples, None, 10.0).all
    assert (40, 16, 13) == (group.input_tokens, group.cached_tokens, group.output_tokens)
    assert (1, 1, 0.5) == (group.cold_starts, group.compressed, group.usage_missing_share)


def test_no_samples_measure_to_nothing() -> None:
    group = measure([], Slo(ttft_s=1.0), 10.0).all
    assert (0, None, None, 0.0) == (group.requests, group.error_share, group.ttft.p50, group.requests_per_s)


def test_the_measures_are_json_without_nan() -> None:
    samples = [answered(), failed(1.0), answered(2.0, first=None, sent=None)]
    assert json.dumps(measure(samples, Slo(ttft_s=0.1), 10.0).to_json(), allow_nan=False)


def test_the_same_samples_measure_the_same() -> None:
    samples = queued(1, n=500)
    assert measure(samples, None, 10.0) == measure(samples, None, 10.0)


def test_intervals_are_wider_where_neighbours_waited_together() -> None:
    calm, busy = (measure(queued(1, servers=n), None, 40.0).all.ttft for n in (40, 8))
    mixed = queued(1, servers=8)
    order = np.random.default_rng(1).permutation(len(mixed))
    times = sorted(sample.at for sample in mixed)
    # The same latencies, but in no order: what an interval that knows nothing of queues would say.
    shuffled = [
        answered(at, first=at + (mixed[i].ttft or 0.0), last=at + (mixed[i].e2e or 0.0), arrivals=())
        for at, i in zip(times, order, strict=True)
    ]
    blind = measure(shuffled, None, 40.0).all.ttft
    assert (
        busy.p50_low and busy.p50_high and blind.p50_low and blind.p50_high and calm.p50_low and calm.p50_high
    )
    assert busy.p50 == pytest.approx(blind.p50)
    assert busy.p50_high - busy.p50_low > 1.5 * (blind.p50_high - blind.p50_low)
    assert calm.p50_high - calm.p50_low < 0.002


def test_turns_of_a_session_are_not_independent() -> None:
    def samples(session: bool) -> list[Sample]:
        draw = np.random.default_rng(1)
        waits = draw.exponential(size=100)
        return [
            answered(
                float(turn * 100 + i), first=turn * 100 + i + waits[i], session=f"s{i}" if session else None
            )
            for turn in range(10)
            for i in range(100)
        ]

    together, apart = (measure(samples(session), None, 1000.0).all.ttft for session in (True, False))
    assert together.p50_high and together.p50_low and apart.p50_high and apart.p50_low
    assert together.p50_high - together.p50_low > 2 * (apart.p50_high - apart.p50_low)


def test_blocks_are_equal_stretches_of_time() -> None:
    assert [0, 0, 10, 19, 19] == blocks(np.asarray([10.0, 11.9, 40.0, 68.5, 70.0])).tolist()


def test_moments_that_are_all_the_same_are_one_block() -> None:
    assert [0, 0] == blocks(np.asarray([3.0, 3.0])).tolist()


def test_ten_thousand_streams_are_measured_in_well_under_two_seconds() -> None:
    # A twelfth of 120,000 requests of 64 chunks, for which 20 s are allowed.
    steps = tuple(0.01 * i for i in range(64))
    samples = [
        answered(i * 0.005, i, route=f"r{i % 8}", arrivals=tuple(i * 0.005 + step for step in steps))
        for i in range(10_000)
    ]
    began = time.process_time()
    assert 630_000 == measure(samples, Slo(ttft_s=0.2), 50.0).all.gap.n
    assert time.process_time() - began < 20 / 12
