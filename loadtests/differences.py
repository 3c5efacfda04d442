"""How one figure differs between two runs, and how sure that is.

Each figure is compared by draws of the difference B - A: what it would have come to, had the runs been made
again. 95 % of them lie in the interval shown; p is twice the share on the other side of zero.

- Percentiles: draws of each run's percentile, independent of each other, by the bootstrap of
  `loadtests.percentiles`, which knows of sessions and of neighbours in time.
- Shares (errors, SLO): Beta(x + 1/2, n - x + 1/2) for x of n (Jeffreys; Brown, Cai and DasGupta, 2001),
  with x and n divided by the same design effect.
- Tokens a second: the window is cut into blocks (batch means; Law, 1983): mean + standard error *
  Student's t.
  Where both runs drove the same plan, block is compared with block.
- USD per million tokens: machine price / draws of input and output tokens a second.

The larger design effect of the two runs counts for both: a run in which nothing bunched says little of how it
bunches. Percentiles for which either run has too few samples to bound them are not judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loadtests.measure import BLOCKS, blocks, measured, met, sessions
from loadtests.percentiles import Floats, Ints, bounded, largest_effect, quantile, resampled
from loadtests.sample import Sample
from loadtests.window import Window

DRAWS = 40_000
LEVEL = 0.05
QUANTILES = (("ttft", 0.5), ("ttft", 0.99), ("tpot", 0.5), ("e2e", 0.5), ("e2e", 0.99))
HIGHER = ("SLO met", "tokens/s")
"""Of these more is better; of all others less."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of both runs. `low` and `high` bound `difference` (b - a) by 95 %; `p` is adjusted.

    `verdict` is of B: "better", "worse", "no difference" (none that these runs can show) or "too few".
    """

    group: str
    metric: str
    unit: str
    a: float | None
    b: float | None
    difference: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    verdict: str = "too few"


class Side:
    """A run, and what of it every group needs."""

    def __init__(self, report: Mapping[str, Any], samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.window = Window(report["starts"], report["seconds"])
        asked = slo_bounds(report)
        self.slo = None if asked is None else _Slo(*asked)
        cost = report["cost"]
        self.usd_per_s = None if cost is None else cost["usd_per_hour"] / 3600

    def cut(self, chosen: Callable[[Sample], bool]) -> Cut:
        around = [sample for sample in self.samples if chosen(sample) and not sample.slow]
        samples = [sample for sample in around if measured(sample)]
        together = sessions(samples)
        time = blocks(np.asarray([sample.at for sample in samples], np.float64))
        return Cut(self, samples, (time,) if together is None else (time, together), around)


@dataclass(frozen=True, slots=True)
class Cut:
    """One run's part in one group."""

    side: Side
    samples: list[Sample]  # that were due in the window
    clusters: tuple[Ints, ...]
    around: list[Sample]  # whose tokens came in it, warm-up included


@dataclass(frozen=True, slots=True)
class _Slo:
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None


def figures(group: str, a: Cut, b: Cut, *, rng: np.random.Generator, paired: bool) -> list[Difference]:
    """Every figure of one group, judged by itself: see `judged` for many. `paired`: both drove one plan."""
    found = []
    for latency, q in QUANTILES:
        if any(_values(cut, latency)[0].size for cut in (a, b)):
            found.append(_percentile(group, latency, q, a, b, rng))
    found.append(_share(group, "error share", a, b, lambda sample: not sample.ok, rng))
    slo = a.side.slo
    if slo is not None and slo == b.side.slo:
        found.append(_share(group, "SLO met", a, b, lambda sample: met(sample, slo), rng))
    if not group.startswith("phase"):
        found.append(_tokens(group, a, b, rng, paired))
    if group == "all" and a.side.usd_per_s and b.side.usd_per_s:
        found.append(_cost(group, a, b, rng))
    return found


def _values(cut: Cut, latency: str) -> tuple[Floats, list[Ints]]:
    """A latency of the good requests, ascending, and its clusters. Whole answers have no time per token."""
    there = [
        i for i, s in enumerate(cut.samples)
        if s.ok and getattr(s, latency) is not None and (latency != "tpot" or s.arrivals)
    ]  # fmt: skip
    values = np.asarray([getattr(cut.samples[i], latency) for i in there], np.float64)
    order = np.argsort(values)
    return values[order], [codes[there][order] for codes in cut.clusters]


def _percentile(group: str, latency: str, q: float, a: Cut, b: Cut, rng: np.random.Generator) -> Difference:
    sides = [_values(cut, latency) for cut in (a, b)]
    points = [quantile(ordered, q) if ordered.size else None for ordered, _ in sides]
    effect = max(largest_effect(ordered, clusters, q) for ordered, clusters in sides)
    draws = None
    if all(all(bounded(ordered.size / effect, q)) for ordered, _ in sides):
        ours, theirs = (resampled(ordered, effect, q, rng, DRAWS) for ordered, _ in sides)
        draws = theirs - ours
    return _difference(group, f"{latency} p{q * 100:g}", "s", points[0], points[1], draws)


def _share(
    group: str, metric: str, a: Cut, b: Cut, counts: Callable[[Sample], bool], rng: np.random.Generator
) -> Difference:
    """The share of samples that `counts`."""
    points: list[float | None] = []
    effects = []
    for cut in (a, b):
        values = np.asarray([counts(sample) for sample in cut.samples], np.float64)
        order = np.argsort(values)
        points.append(float(values.mean()) if values.size else None)
        clusters = [codes[order] for codes in cut.clusters]
        effects.append(
            largest_effect(values[order], clusters, 1 - (points[-1] or 0.0)) if values.size else math.inf
        )
    effect = max(effects)
    ours, theirs = points
    if ours is None or theirs is None or math.isinf(effect):
        return _difference(group, metric, "share", ours, theirs, None)
    draws = [
        rng.beta(
            len(cut.samples) * share / effect + 0.5, len(cut.samples) * (1 - share) / effect + 0.5, DRAWS
        )
        for cut, share in ((a, ours), (b, theirs))
    ]
    return _difference(group, metric, "share", ours, theirs, draws[1] - draws[0])


def _tokens(group: str, a: Cut, b: Cut, rng: np.random.Generator, paired: bool) -> Difference:
    ours, theirs = (_by_block(cut.side.window, cut.around, prompts=False) for cut in (a, b))
    paired = paired and a.side.window == b.side.window
    draws = _mean(theirs - ours, rng) if paired else _mean(theirs, rng) - _mean(ours, rng)
    return _difference(group, "tokens/s", "1/s", float(ours.mean()), float(theirs.mean()), draws)


def _cost(group: str, a: Cut, b: Cut, rng: np.random.Generator) -> Difference:
    points: list[float | None] = []
    draws: list[Floats] = []
    for cut in (a, b):
        made = _by_block(cut.side.window, cut.side.samples, prompts=True)
        price = (cut.side.usd_per_s or 0.0) * 1e6
        points.append(price / float(made.mean()) if made.any() else None)
        draws.append(price / np.maximum(_mean(made, rng), float(made.mean()) / 1000 or 1.0))
    difference = None if None in points else draws[1] - draws[0]
    return _difference(group, "USD per million tokens", "usd", points[0], points[1], difference)


def _by_block(whole: Window, samples: Sequence[Sample], *, prompts: bool) -> Floats:
    """Output tokens a second in each of `BLOCKS` parts of the window [BLOCKS], and `prompts`' too."""
    length = whole.seconds / BLOCKS
    made = np.zeros(BLOCKS)
    for sample in samples:
        times = sample.arrivals or ((sample.last,) if sample.last is not None else ())
        if not times or times[-1] < whole.start or times[0] >= whole.end:
            continue
        for i in range(max(0, int((times[0] - whole.start) // length)), BLOCKS):
            block = Window(whole.start + i * length, length)
            if block.start > times[-1]:
                break
            made[i] += block.output_tokens(sample)
            made[i] += block.input_tokens(sample) if prompts else 0
    return made / length


def _mean(values: Floats, rng: np.random.Generator) -> Floats:
    """Draws of the mean of independent `values` [n]."""
    error = float(values.std(ddof=1)) / values.size**0.5
    return np.asarray(float(values.mean()) + error * rng.standard_t(values.size - 1, DRAWS), np.float64)


def _difference(
    group: str, metric: str, unit: str, a: float | None, b: float | None, draws: Floats | None
) -> Difference:
    """The figure, its interval and p, where there are draws of the difference."""
    known = a is not None and b is not None
    difference = b - a if a is not None and b is not None else None
    ratio = b / a if a and b is not None else None
    found = Difference(group, metric, unit, a, b, difference, ratio)
    if draws is None or not known:
        return found
    ordered = np.sort(draws)
    n = ordered.size
    below, above = int(np.searchsorted(ordered, 0.0, "right")), n - int(np.searchsorted(ordered, 0.0, "left"))
    p = min(1.0, 2 * (min(below, above) + 1) / (n + 1))
    return replace(found, low=quantile(ordered, 0.025), high=quantile(ordered, 0.975), p=p)


def judged(d: Difference, p: float) -> Difference:
    """`d` with an adjusted p and the verdict that follows from it."""
    assert d.difference is not None
    better = (d.difference > 0) == (d.metric in HIGHER)
    verdict = "no difference" if p >= LEVEL or d.difference == 0 else "better" if better else "worse"
    return replace(d, p=p, verdict=verdict)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: the i-th smallest of m times m - i + 1, never falling."""
    adjusted, least = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, p[i] * (len(p) - place)))
        adjusted[i] = least
    return adjusted


def slo_bounds(report: Mapping[str, Any]) -> list[Any] | None:
    """The bounds of a report's SLO (TTFT, per token, whole answer; seconds or None)."""
    slo = report["slo"]
    return None if slo is None else [slo["ttft_s"], slo["tpot_s"], slo["e2e_s"]]
