import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.percentiles import (
    QUANTILES,
    Floats,
    Ints,
    Spread,
    design_effect,
    few,
    interval,
    largest_effect,
    quantile,
    rank,
    resampled,
    spread,
)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=300), st.sampled_from([0.05, 0.25, *QUANTILES.values()])
)
def test_a_quantile_is_numpys_inverted_cdf(values: list[float], q: float) -> None:
    ordered = np.sort(values)
    n = ordered.size
    if (
        abs(q * n - round(q * n)) < 1e-9
    ):  # exact ranks: numpy multiplies in floating point; the definition decides
        assert ordered[max(1, round(q * n)) - 1] == quantile(ordered, q)
    else:
        assert np.quantile(ordered, q, method="inverted_cdf") == quantile(ordered, q)


@pytest.mark.parametrize(
    ("expected", "n", "q"),
    [(1, 1, 0.99), (1, 2, 0.5), (2, 3, 0.5), (99, 100, 0.99), (100, 101, 0.99), (7, 100, 0.07)],
)
def test_the_rank_is_the_nearest_above(expected: int, n: int, q: float) -> None:
    assert expected == rank(n, q)


@pytest.mark.parametrize(
    ("expected", "n", "q"),
    [(True, 99, 0.99), (False, 100, 0.99), (True, 999, 0.999), (False, 1000, 0.999), (True, 1, 0.5)],
)
def test_few_means_that_the_percentile_is_the_largest(expected: bool, n: int, q: float) -> None:
    assert expected is few(n, q)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_the_beta_draw_is_distributed_like_resampling_every_value(q: float) -> None:
    rng = np.random.default_rng(1)
    ordered = np.sort(rng.exponential(size=400))
    brute = np.sort(rng.choice(ordered, (20_000, 400)), axis=1)[:, rank(400, q) - 1]
    drawn = resampled(ordered, 1.0, q, rng, 20_000)
    for share in (0.025, 0.25, 0.5, 0.75, 0.975):
        # Where a quantile of one lies among the others: the same share, up to the noise of 20,000 draws.
        at = np.quantile(brute, share, method="inverted_cdf")
        assert np.mean(brute <= at) == pytest.approx(np.mean(drawn <= at), abs=0.015)


def test_the_interval_is_the_brute_force_bootstraps() -> None:
    rng = np.random.default_rng(2)
    ordered = np.sort(rng.lognormal(size=1000))
    brute = np.sort(np.sort(rng.choice(ordered, (4000, 1000)), axis=1)[:, 499])
    low, high = interval(ordered, (), 0.5, rng)
    assert brute[99] == pytest.approx(low, rel=0.02)
    assert brute[3899] == pytest.approx(high, rel=0.02)


def clustered(rng: np.random.Generator, clusters: int, size: int, together: float) -> tuple[Floats, Ints]:
    """Values of clusters with an effect of their own, ascending, and their cluster numbers."""
    own = rng.normal(size=clusters) * math.sqrt(together)
    values = (own[:, None] + rng.normal(size=(clusters, size)) * math.sqrt(1 - together)).ravel()
    order = np.argsort(values)
    return values[order], np.repeat(np.arange(clusters), size)[order]


def test_the_design_effect_of_identical_members_is_their_number() -> None:
    values = np.repeat(np.arange(200.0), 10)
    assert pytest.approx(10 * 200 / 199) == design_effect(values, np.repeat(np.arange(200), 10), 1000)


def test_independent_members_have_almost_no_design_effect() -> None:
    ordered, codes = clustered(np.random.default_rng(3), 500, 10, 0.0)
    assert 1 <= design_effect(ordered, codes, 2500) < 1.2


def test_resampling_whole_clusters_gives_the_interval() -> None:
    rng = np.random.default_rng(4)
    ordered, codes = clustered(rng, 100, 20, 0.5)
    by_cluster = [ordered[codes == c] for c in range(100)]
    brute = np.sort(
        [np.median(np.concatenate([by_cluster[c] for c in rng.integers(0, 100, 100)])) for _ in range(2000)]
    )
    low, high = interval(ordered, (codes,), 0.5, rng)
    assert low is not None and high is not None
    assert brute[1949] - brute[49] == pytest.approx(high - low, rel=0.15)
    alone = interval(ordered, (), 0.5, rng)
    assert alone[0] is not None and alone[1] is not None and high - low > 2 * (alone[1] - alone[0])


def test_the_largest_of_several_design_effects_counts() -> None:
    rng = np.random.default_rng(5)
    ordered, codes = clustered(rng, 100, 20, 0.5)
    alone = np.arange(ordered.size)
    effect = largest_effect(ordered, (codes,), 0.5)
    assert (True, effect) == (effect > 5, largest_effect(ordered, (alone, codes), 0.5))


def test_the_order_of_ties_does_not_matter() -> None:
    values, codes = np.ones(1000), np.arange(1000) // 100
    assert design_effect(values, codes, 500) == design_effect(values, codes[::-1].copy(), 500) == 1.0


def test_one_cluster_says_nothing_about_the_noise() -> None:
    ordered = np.arange(1000.0)
    assert (None, None) == interval(ordered, (np.zeros(1000, np.int64),), 0.5, np.random.default_rng(6))


@pytest.mark.parametrize(("expected", "n"), [(False, 367), (True, 368)])
def test_p99_has_an_upper_bound_from_368_samples(expected: bool, n: int) -> None:
    assert expected is (spread(np.arange(float(n))).p99_high is not None)


@pytest.mark.parametrize("q", [0.5, 0.99])
def test_the_interval_holds_the_true_quantile_in_about_95_of_100_runs(q: float) -> None:
    rng = np.random.default_rng(7)
    true = -math.log(1 - q)
    held = 0
    for _ in range(400):
        low, high = interval(np.sort(rng.exponential(size=1000)), (), q, rng)
        assert low is not None and high is not None
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.985


def test_no_values_make_an_empty_spread() -> None:
    assert Spread() == spread(np.zeros(0))


def test_one_value_is_every_percentile_and_bounds_only_p99_from_below() -> None:
    one = spread(np.asarray([2.0]), np.asarray([0]))
    assert (2.0, 2.0, 2.0, 2.0) == (one.p50, one.p999, one.max, one.mean)
    assert (None, None, 2.0, None) == (one.p50_low, one.p50_high, one.p99_low, one.p99_high)


def test_the_order_of_the_values_does_not_matter() -> None:
    values = np.random.default_rng(8).exponential(size=500)
    codes = np.arange(500) % 7
    assert spread(values, codes) == spread(values[::-1].copy(), codes[::-1].copy())
