from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.compare import CompareError, Comparison, Run, compare, tables
from loadtests.differences import Difference, holm
from loadtests.sample import Sample
from loadtests.samples import save_samples
from loadtests.tables import terminal
from tests.loadtests.samples_made import Slo, answered, failed, queued, reported


def run(samples: Sequence[Sample], name: str = "a", **parts: Any) -> Run:
    return Run(name, reported(samples, parts.pop("seconds", 40.0), **parts), samples)


def found(comparison: Comparison, metric: str, group: str = "all") -> Difference:
    (one,) = (d for d in comparison.differences if (d.group, d.metric) == (group, metric))
    return one


def plain(seed: int, *, n: int = 600, slower: float = 1.0, bad: float = 0.0) -> list[Sample]:
    """Requests that do not wait for each other, a tenth of a second apart; a share `bad` of them fails."""
    draw = np.random.default_rng(seed)
    samples = []
    for i in range(n):
        at = i / 10
        first = at + float(draw.exponential(0.05)) * slower
        last = first + 0.1 * slower
        if draw.random() < bad:
            samples.append(failed(at))
        else:
            samples.append(answered(at, i, first=first, last=last, arrivals=(first, last)))
    return samples


def test_a_run_does_not_differ_from_itself() -> None:
    a = run(queued(1))
    compared = compare(a, a)
    assert {"no difference"} == {d.verdict for d in compared.differences}
    assert ((), {0.0}) == (compared.warnings, {d.difference for d in compared.differences})


def clean(sides: Sequence[Sequence[Sample]], seconds: float, seed: int) -> bool:
    """Whether a comparison finds nothing. Reports are cut down to what it reads, to be quick."""
    report = {
        "starts": 0.0,
        "seconds": seconds,
        "slo": {"ttft_s": 0.2, "tpot_s": None, "e2e_s": None},
        "cost": None,
        "plan_digest": "",
        "machine": {},
        "verdict": "ok",
        "measures": {"routes": {}, "phases": {}},
    }
    a, b = (Run(name, report, samples) for name, samples in zip("ab", sides, strict=True))
    return all(d.verdict in ("no difference", "too few") for d in compare(a, b, seed=seed).differences)


def test_two_draws_of_the_same_show_no_difference_in_95_of_100() -> None:
    found = [clean([plain(2 * seed + side, bad=0.02) for side in (0, 1)], 60.0, seed) for seed in range(100)]
    assert sum(found) >= 95


@pytest.mark.parametrize("rate", [40.0, 53.0])
def test_two_runs_of_the_same_queue_show_no_difference_in_95_of_100(rate: float) -> None:
    # Ten places that hold 66 requests a second: at 53 waits come in bursts. An interval that took them for
    # independent would see differences in one of four.
    found = [
        clean([queued(2 * seed + side, n=1200, rate=rate) for side in (0, 1)], 1200 / rate, seed)
        for seed in range(60)
    ]
    assert sum(found) >= 57


def test_a_slower_run_is_worse_by_about_as_much() -> None:
    compared = compare(run(plain(1, n=2000)), run(plain(2, n=2000, slower=1.3)))
    for metric, by in (("ttft p50", 0.3 * 0.05 * 0.693), ("tpot p50", 0.3 * 0.1 / 4)):
        d = found(compared, metric)
        assert d.low is not None and d.high is not None
        assert ("worse", True) == (d.verdict, d.low - 1e-9 <= by <= d.high + 1e-9)


def test_the_other_way_round_it_is_better() -> None:
    compared = compare(run(plain(1, n=2000, slower=1.3)), run(plain(2, n=2000)))
    assert "better" == found(compared, "ttft p50").verdict


def test_more_errors_are_worse_and_so_is_less_goodput() -> None:
    compared = compare(run(plain(1, n=2000)), run(plain(2, n=2000, bad=0.05)))
    assert ("worse", "worse") == (found(compared, "error share").verdict, found(compared, "SLO met").verdict)


def test_a_few_errors_more_prove_nothing() -> None:
    samples = plain(1)
    compared = compare(run(samples), run([*samples[:-2], failed(59.8), failed(59.9)]))
    assert "no difference" == found(compared, "error share").verdict


def test_more_tokens_a_second_are_better_and_cheaper() -> None:
    fewer, more = (
        [answered(float(i), i, output_tokens=tokens + i % 7) for i in range(400)] for tokens in (100, 120)
    )
    compared = compare(run(fewer, seconds=400.0), run(more, seconds=400.0))
    assert ("better", "better") == (
        found(compared, "tokens/s").verdict,
        found(compared, "USD per million tokens").verdict,
    )


def test_the_same_plan_is_compared_second_by_second() -> None:
    # Answers of very different lengths, each a little longer in B: only the pairs show it.
    draw = np.random.default_rng(1)
    lengths = draw.integers(10, 1000, 400)
    a, b = (
        [answered(float(i), i, output_tokens=int(n) + more) for i, n in enumerate(lengths)] for more in (0, 8)
    )
    paired = compare(run(a, seconds=400.0), run(b, seconds=400.0))
    apart = compare(run(a, seconds=400.0), run(b, seconds=400.0, plan_digest="cd" * 32))
    assert ("better", "no difference") == (
        found(paired, "tokens/s").verdict,
        found(apart, "tokens/s").verdict,
    )


def test_too_few_samples_for_p99_are_not_judged() -> None:
    compared = compare(run(plain(1, n=200), seconds=20.0), run(plain(2, n=200, slower=9.0), seconds=20.0))
    d = found(compared, "ttft p99")
    assert ("too few", None, None) == (d.verdict, d.p, d.low)


def test_routes_are_compared_where_both_runs_have_them() -> None:
    a = [*queued(1), answered(39.0, route="only-in-a")]
    groups = {d.group for d in compare(run(a), run(queued(2))).differences}
    assert {"all", "route sql", "route support"} == groups


def test_phases_are_compared_where_there_are_several() -> None:
    samples = [answered(float(i), i, phase=("warmup", "x", "y")[i % 3]) for i in range(30)]
    groups = {d.group for d in compare(run(samples), run(samples)).differences}
    assert {"all", "phase x", "phase y"} == groups


def test_a_run_without_answers_is_compared_by_its_errors() -> None:
    compared = compare(run(plain(1)), run([failed(i / 10) for i in range(600)]))
    assert ("worse", None) == (found(compared, "error share").verdict, found(compared, "ttft p50").b)


def test_a_comparison_of_nothing_has_no_verdicts() -> None:
    compared = compare(run([]), run([]))
    assert {"too few", "no difference"} >= {d.verdict for d in compared.differences}


@pytest.mark.parametrize(
    ("expected", "parts"),
    [
        ("The plans differ (abababababab, cdcdcdcdcdcd)", {"plan_digest": "cd" * 32}),
        ("B is saturated (late)", {"generator": {"saturated": True, "why": "late"}}),
        ("different machines: cores 2 and 64", {"machine": {"host": "lab", "cores": 64}}),
        ("The SLOs differ", {"slo": Slo(ttft_s=0.5)}),
    ],
)
def test_what_makes_a_comparison_doubtful_is_said(expected: str, parts: dict[str, Any]) -> None:
    samples = plain(1, n=100)
    (warning,) = compare(run(samples), run(samples, **parts)).warnings
    assert expected in warning


def test_different_slos_leave_the_goodput_out() -> None:
    samples = plain(1, n=100)
    compared = compare(run(samples), run(samples, slo=Slo(ttft_s=0.5)))
    assert "SLO met" not in {d.metric for d in compared.differences}


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=30))
def test_holm_adjusts_upwards_between_p_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(one <= new <= min(1, one * len(p)) for one, new in zip(p, adjusted, strict=True))
    assert sorted(range(len(p)), key=lambda i: (p[i], i)) == sorted(
        range(len(p)), key=lambda i: (adjusted[i], p[i], i)
    )


def test_holm_is_the_textbooks() -> None:
    assert [0.03, 0.06, 0.06, 0.02] == pytest.approx(holm([0.01, 0.04, 0.03, 0.005]))


def test_the_tables_say_what_differs_and_by_how_much() -> None:
    shown = terminal(tables(compare(run(plain(1, n=2000)), run(plain(2, n=2000, slower=1.3), "b"))))
    assert "A = a, B = b" in shown
    assert [True] == [
        line.endswith("worse") for line in shown.splitlines() if line.startswith("all    ttft p50")
    ]
    assert "(Holm)" in shown


def test_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    import json

    samples = queued(1, n=100)
    save_samples(tmp_path / "samples.jsonl", samples)
    (tmp_path / "report.json").write_text(json.dumps(reported(samples, 2.0)))
    read = Run.read(tmp_path)
    assert (tmp_path.name, 100, "ab" * 32) == (read.name, len(read.samples), read.report["plan_digest"])


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompareError, match=r"holds no run: .*report\.json is missing"):
        Run.read(tmp_path)


def test_a_report_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(CompareError, match="is not a report"):
        Run.read(tmp_path)
