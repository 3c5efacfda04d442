"""The highest rate that a server holds, by bisection over open-loop runs.

A *probe* is one run at one rate. It passes when enough of its requests met the SLO **and** the backlog was
stable **and** the generator kept up. What to probe next is a pure function of the answers so far (`decide`),
so the search is tested without a server; `judge` turns one run's samples into an answer.

Probes are noisy near the knee. The two ends of the final bracket are probed again, and where two answers
differ a third decides; a majority that overturns an end moves the bracket and the search goes on.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Any

from loadtests.sample import Sample
from loadtests.window import ended

MOST_ANSWERS = 3
"""Probes of one rate: two, and a third where they differ."""

BLOCKS = 10
STUDENT_T = 2.896
"""One-sided 99 % point of Student's t with BLOCKS - 2 degrees of freedom."""

INSTANTS = 500
"""Moments of the second half at which the requests in flight are counted."""


class Limit(StrEnum):
    """What ended the search."""

    SERVER = "server"  # above `rate` the server no longer meets the SLO
    GENERATOR = "generator"  # above `rate` the generator cannot keep up: the server may hold more
    CEILING = "ceiling"  # `to_rate` passes: the server may hold more
    FLOOR = "floor"  # not even the lowest rate passes
    PROBES = "probes"  # `max_probes` ran out before the bracket was narrow


@dataclass(frozen=True, slots=True)
class Search:
    """Rates in requests a second. `precision`: width of the final bracket as a share of its lower end."""

    from_rate: float = 1.0
    to_rate: float = 10_000.0
    precision: float = 0.05
    slo_share: float = 0.99
    max_probes: int = 40

    def __post_init__(self) -> None:
        if not 0 < self.from_rate <= self.to_rate:
            raise ValueError(f"from_rate {self.from_rate:g} must be above 0 and at most {self.to_rate:g}")
        if not 0 < self.precision < 1:
            raise ValueError(f"precision {self.precision:g} must be between 0 and 1")
        if not 0 < self.slo_share <= 1:
            raise ValueError(f"slo_share {self.slo_share:g} must be above 0 and at most 1")

    @property
    def least_rate(self) -> float:
        """Below it the search gives up: a sixty-fourth of where it began."""
        return self.from_rate / 64


@dataclass(frozen=True, slots=True)
class Backlog:
    """Requests in flight over the second half of a run: their mean, and by how many they grew."""

    mean: float
    growth: float
    stable: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """One run at `rate`. `share` of its requests met the SLO; `why` says what it failed on."""

    rate: float
    share: float
    backlog: Backlog
    saturated: bool
    passed: bool
    why: str = ""
    requests: int = 0
    figures: Mapping[str, float | None] = field(default_factory=dict)
    folder: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Found:
    """`rate` is the highest that passed (None: none did), `above` the lowest that did not."""

    rate: float | None
    above: float | None
    limit: Limit
    probes: tuple[Probe, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "rate": self.rate,
            "above": self.above,
            "limit": str(self.limit),
            "probes": [probe.to_json() for probe in self.probes],
        }


def search(
    probe: Callable[[float], Probe], options: Search, tell: Callable[[Probe], None] | None = None
) -> Found:
    """Probes until the bracket is narrow and its ends are confirmed. `tell` hears each probe as it ends."""
    probes: list[Probe] = []
    while len(probes) < options.max_probes:
        answers = _answers(probes)
        rate = decide(answers, options)
        if rate is None:
            return _found(probes, options)
        probes.append(probe(rate))
        if tell:
            tell(probes[-1])
    return _found(probes, options, exhausted=decide(_answers(probes), options) is not None)


def decide(answers: Mapping[float, Sequence[bool]], options: Search) -> float | None:
    """The rate to probe next, from every answer so far (rate -> passed, in order); None when all is said.

    A rate whose answers are tied is probed again. Then the bracket: doubled or halved until it has two ends,
    split at its geometric mean until it is narrow enough, and each end asked a second time (its only end,
    where the highest rate passes or the lowest fails).
    """
    if not answers:
        return _round(options.from_rate)
    for rate, said in answers.items():
        if 2 * sum(said) == len(said):
            return rate
    low, high = _bracket(answers)
    if high is None:
        assert low is not None
        further = None if low >= _round(options.to_rate) else _round(min(2 * low, options.to_rate))
    elif low is None:
        further = None if high / 2 < options.least_rate else _round(high / 2)
    else:
        middle = _round(math.sqrt(low * high))
        further = middle if high > low * (1 + options.precision) and middle not in answers else None
    if further is not None:
        return further
    ends = [end for end in (low, high) if end is not None]
    return next((end for end in ends if len(answers[end]) < MOST_ANSWERS - 1), None)


def judge(
    rate: float,
    samples: Sequence[Sample],
    share: float,
    *,
    saturated: bool,
    seconds: float,
    warmup: float = 0.0,
    slo_share: float,
    **more: Any,
) -> Probe:
    """One run as an answer. `share` of its requests, those that failed included, met the SLO.

    `seconds` is the measured window, `warmup` what ran before it. `more` are further fields of the `Probe`.
    """
    grown = backlog(samples, seconds, warmup)
    reasons = []
    if saturated:
        reasons.append("the generator fell behind")
    if share < slo_share:
        reasons.append(f"{share:.2%} met the SLO")
    if not grown.stable:
        reasons.append(f"the backlog grew by {grown.growth:.1f} to {grown.mean + grown.growth / 2:.1f}")
    return Probe(rate, share, grown, saturated, not reasons, "; ".join(reasons), len(samples), **more)


def backlog(samples: Sequence[Sample], seconds: float, warmup: float = 0.0) -> Backlog:
    """Whether the requests in flight grew over the second half of the `seconds` after `warmup`.

    N(t) is the number of requests due by t (by the schedule, so that what a late generator holds back counts)
    and not ended by t. It is counted at 500 instants of the second half and averaged in 10 blocks, which
    takes most of the correlation between neighbours away. b is the least-squares slope over the block means
    y at times x, its standard error s = sqrt(sum((y - fit)^2) / (10 - 2) / sum((x - mean x)^2)), and the
    growth b times that half. The backlog is unstable when the growth is both

    - significant: b / s > 2.896 (Student's t, one-sided, 99 %, 8 degrees of freedom), and
    - material: more than 1 request and more than a tenth of the mean.
    """
    span = seconds / 2
    start = warmup + span
    due = sorted(sample.at for sample in samples)
    over = sorted(ended(sample) for sample in samples)
    instants = [start + span * (i + 0.5) / INSTANTS for i in range(INSTANTS)]
    counts = [bisect_right(due, t) - bisect_right(over, t) for t in instants]
    size = INSTANTS // BLOCKS
    y = [fmean(counts[i : i + size]) for i in range(0, INSTANTS, size)]
    x = [fmean(instants[i : i + size]) for i in range(0, INSTANTS, size)]
    x_mean, y_mean = fmean(x), fmean(y)
    spread = sum((value - x_mean) ** 2 for value in x)
    slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread
    residual = sum((b - y_mean - slope * (a - x_mean)) ** 2 for a, b in zip(x, y, strict=True))
    error = math.sqrt(residual / (BLOCKS - 2) / spread)
    growth = slope * span
    material = growth > 1 and growth > y_mean / 10
    return Backlog(y_mean, growth, not (material and slope > STUDENT_T * error))


def _answers(probes: Sequence[Probe]) -> dict[float, list[bool]]:
    answers: dict[float, list[bool]] = {}
    for probe in probes:
        answers.setdefault(probe.rate, []).append(probe.passed)
    return answers


def _bracket(answers: Mapping[float, Sequence[bool]]) -> tuple[float | None, float | None]:
    """The lowest rate whose majority failed, and the highest below it whose majority passed."""
    tried = sorted(answers)
    passed = [2 * sum(answers[rate]) > len(answers[rate]) for rate in tried]
    first = passed.index(False) if False in passed else len(tried)
    return (tried[first - 1] if first else None), (tried[first] if first < len(tried) else None)


def _found(probes: Sequence[Probe], options: Search, exhausted: bool = False) -> Found:
    low, high = _bracket(_answers(probes))
    refused = [probe for probe in probes if probe.rate == high and not probe.passed]
    if exhausted:
        limit = Limit.PROBES
    elif high is None:
        limit = Limit.CEILING
    elif any(probe.saturated for probe in refused):
        limit = Limit.GENERATOR
    elif low is None:
        limit = Limit.FLOOR
    else:
        limit = Limit.SERVER
    return Found(low, high, limit, tuple(probes))


def _round(rate: float) -> float:
    """Four significant digits: a rate that a person can type again."""
    return float(f"{rate:.4g}")
