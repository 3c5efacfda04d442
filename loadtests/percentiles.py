"""Percentiles that are samples, and how sure they are.

The q-quantile is the *nearest rank*: the smallest value with at least a share q of the samples at or below it
(Hyndman & Fan, 1996, type 1; what HDR histograms report). It is always one of the samples; nothing is
interpolated. All samples are kept, so nothing is binned either.

Intervals are 95 % percentile-bootstrap intervals (Efron, 1979). The k-th smallest of n draws with replacement
from n ordered samples is sample ceil(n * U), with U the k-th smallest of n uniforms, which is Beta(k, n + 1 -
k). So a resample costs one draw from that distribution instead of n, and is not approximate. Where samples
come in clusters (the turns of a session, the gaps of a request, what was due in the same stretch of time and
met the same queue) they are not independent: both parameters are divided by the design effect of the clusters
on the share of samples at or below the quantile (Kish, 1965; for quantiles Woodruff, 1952), which is what
resampling whole clusters tends to. Samples can be clustered in several ways; the largest effect counts.

An interval has no bound (None) on a side where even the most extreme sample is too likely on the wrong side
of the true quantile: for an upper bound of p99 that takes 368 independent samples (0.99^368 = 2.5 %).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
"""The percentiles of a `Spread`, by field name."""

DRAWS = 1000
TAIL = 0.025


def rank(n: int, q: float) -> int:
    """Which of n ordered samples, counted from 1, is the q-quantile. The product is rounded to 9 digits:
    0.07 * 100 is above 7 in floating point, and is meant to be 7."""
    return max(1, math.ceil(round(q * n, 9)))


def quantile(ordered: Floats, q: float) -> float:
    """The q-quantile of ascending `ordered` [n], n >= 1."""
    return float(ordered[rank(ordered.size, q) - 1])


def few(n: int, q: float) -> bool:
    """Whether n samples are too few for the q-quantile to be more than the largest of them: n < 1 / (1 - q).
    p99 needs 100, p99.9 needs 1,000. Such a percentile is given, and marked in tables."""
    return n < round(1 / (1 - q))


@dataclass(frozen=True, slots=True)
class Spread:
    """How n values (seconds) spread. None: no values, or no such bound."""

    n: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None
    p50_low: float | None = None
    p50_high: float | None = None
    p99_low: float | None = None
    p99_high: float | None = None


def design_effect(ordered: Floats, codes: Ints, k: int) -> float:
    """How many times larger clusters make the variance of the share of samples at or below the k-th.

    `codes` [n] are the cluster numbers of ascending `ordered` [n], n >= 2. With t_j the samples of cluster j
    at or below, m_j its size, p = k / n and c clusters: c / (c - 1) * sum((t_j - p * m_j)^2) / (n * p * (1 -
    p)). Samples equal to the k-th count by the same part each, so that the order of ties does not matter.

    At least 1: clusters that happen to look more even than chance prove nothing. Infinite with one cluster:
    then nothing is known about the variance.
    """
    n = ordered.size
    k = min(max(k, 1), n - 1)
    sizes = np.bincount(codes)
    clusters = int(np.count_nonzero(sizes))
    if clusters < 2:
        return math.inf
    first, after = (int(np.searchsorted(ordered, ordered[k - 1], side)) for side in ("left", "right"))
    below = np.bincount(codes[:first], minlength=sizes.size)
    tied = np.bincount(codes[first:after], minlength=sizes.size)
    share = k / n
    excess = below + tied * ((k - first) / (after - first)) - share * sizes
    variance = clusters / (clusters - 1) * float(excess @ excess)
    return max(1.0, variance / (n * share * (1 - share)))


def largest_effect(ordered: Floats, clusters: Sequence[Ints], q: float) -> float:
    """The largest design effect on the q-quantile of ascending `ordered` [n].

    `clusters` holds the cluster numbers [n] of each way in which the samples hang together; none when every
    sample stands alone.
    """
    n = ordered.size
    return max((design_effect(ordered, codes, rank(n, q)) for codes in clusters if n > 1), default=1.0)


def resampled(
    ordered: Floats, effect: float, q: float, rng: np.random.Generator, draws: int = DRAWS
) -> Floats:
    """The q-quantile in each of `draws` resamples of ascending `ordered` [n], n >= 1, by a design effect."""
    n = ordered.size
    k = rank(n, q)
    if math.isinf(effect):
        return np.full(draws, ordered[k - 1])
    positions = np.ceil(n * rng.beta(k / effect, (n + 1 - k) / effect, draws)).astype(np.int64)
    return ordered[np.clip(positions, 1, n) - 1]


def bounded(size: float, q: float) -> tuple[bool, bool]:
    """Whether `size` independent samples give the q-quantile a lower and an upper bound."""
    return (1 - q) ** size <= TAIL, q**size <= TAIL


def interval(
    ordered: Floats, clusters: Sequence[Ints], q: float, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    """95 % interval of the q-quantile: (low, high), each None where the samples give no such bound."""
    effect = largest_effect(ordered, clusters, q)
    values = np.sort(resampled(ordered, effect, q, rng))
    below, above = bounded(ordered.size / effect, q)
    return quantile(values, TAIL) if below else None, quantile(values, 1 - TAIL) if above else None


def spread(values: Floats, *clusters: Ints, seed: int = 1) -> Spread:
    """The `Spread` of `values` [n], in any order. `clusters`: as for `largest_effect`, in the same order."""
    if values.size == 0:
        return Spread()
    order = np.argsort(values)
    ordered, clusters = values[order], tuple(codes[order] for codes in clusters)
    rng = np.random.default_rng(seed)
    p50_low, p50_high = interval(ordered, clusters, 0.5, rng)
    p99_low, p99_high = interval(ordered, clusters, 0.99, rng)
    return Spread(
        n=int(ordered.size),
        mean=float(ordered.mean()),
        **{name: quantile(ordered, q) for name, q in QUANTILES.items()},
        max=float(ordered[-1]),
        p50_low=p50_low,
        p50_high=p50_high,
        p99_low=p99_low,
        p99_high=p99_high,
    )
