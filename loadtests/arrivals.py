"""When requests are due: seconds from the start of a phase, ascending, all below its length.

Open loop: what the server does changes nothing here. `Closed` is the one exception, and only where it is
asked for; it has no times.

With sessions, arrivals are those of sessions: `rate` counts sessions that begin, not their turns.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from loadtests.percentiles import Floats
from loadtests.section import Section

Rate = Annotated[float, Field(gt=0)]


class Constant(Section):
    """Number k is due at exactly k / rate."""

    kind: Literal["constant"] = "constant"
    rate: Rate

    def offsets(self, rng: np.random.Generator, seconds: float, hold_s: float = 0.0) -> Floats:
        times = np.arange(math.ceil(self.rate * seconds) + 1) / self.rate
        return times[times < seconds]


class Poisson(Section):
    """Independent of each other, `rate` a second: gaps are exponential."""

    kind: Literal["poisson"] = "poisson"
    rate: Rate

    def offsets(self, rng: np.random.Generator, seconds: float, hold_s: float = 0.0) -> Floats:
        return _unit_poisson(rng, self.rate * seconds) / self.rate


class Gamma(Section):
    """Gaps are gamma with mean 1 / rate and coefficient of variation cv (shape 1/cv^2, scale cv^2/rate).

    cv 1 is Poisson, above it comes in bursts, below it is more regular.
    """

    kind: Literal["gamma"] = "gamma"
    rate: Rate
    cv: float = Field(gt=0)

    def offsets(self, rng: np.random.Generator, seconds: float, hold_s: float = 0.0) -> Floats:
        shape, scale = self.cv**-2, self.cv**2 / self.rate
        batch = math.ceil(self.rate * seconds * 1.1) + 100
        times = np.cumsum(rng.standard_gamma(shape, batch) * scale)
        while times[-1] < seconds:
            more = times[-1] + np.cumsum(rng.standard_gamma(shape, batch) * scale)
            times = np.concatenate([times, more])
        return times[times < seconds]


class Ramp(Section):
    """From `rate` to `to_rate`, linearly over the phase; the warm-up before it stays at `rate`.

    With R(t) the integral of the rate up to t, arrivals are R^-1 of the points of a Poisson process of rate 1
    (a non-homogeneous Poisson process by inversion; Cinlar, 1975), or R^-1(k) for `process = "constant"`.
    """

    kind: Literal["ramp"] = "ramp"
    rate: float = Field(ge=0)
    to_rate: float = Field(ge=0)
    process: Literal["poisson", "constant"] = "poisson"

    @model_validator(mode="after")
    def _some(self) -> Ramp:
        if self.rate == self.to_rate == 0:
            raise ValueError("rate and to_rate are both 0, which sends nothing; give one of them")
        return self

    def offsets(self, rng: np.random.Generator, seconds: float, hold_s: float = 0.0) -> Floats:
        held, ramped = self.rate * hold_s, (self.rate + self.to_rate) / 2 * (seconds - hold_s)
        total = max(0.0, held + ramped)  # of nearly no time, rounding can leave less than none
        if self.process == "constant":
            points = np.arange(math.ceil(total) + 1, dtype=np.float64)
            points = points[points < total]
        else:
            points = _unit_poisson(rng, total)
        still = points[points < held] / self.rate if held else np.empty(0)
        moving = self._inverse(points[points >= held] - held, seconds - hold_s)
        times = np.concatenate([still, hold_s + moving])
        return times[times < seconds]

    def _inverse(self, points: Floats, seconds: float) -> Floats:
        """t with rate * t + slope * t^2 / 2 = point, in the form that does not cancel when slope is near
        0."""
        if not points.size:
            return points
        slope = (self.to_rate - self.rate) / seconds
        under = np.sqrt(np.maximum(self.rate**2 + 2 * slope * points, 0))
        times: Floats = np.divide(2 * points, self.rate + under, out=np.zeros_like(points), where=points > 0)
        return times


class Trace(Section):
    """When a recorded service got its requests, and how long their prompts and answers were.

    The first row is due at 0; `speed` 2 replays twice as fast. Rows due after the end are not read. A trace
    that ends early leaves the rest of the window empty.
    """

    kind: Literal["trace"] = "trace"
    file: Path
    format: Literal["azure", "mooncake"]
    speed: float = Field(1.0, gt=0)


class Closed(Section):
    """Closed loop: `concurrency` clients, each of which sends its next request `think_s` after its last
    ended.

    A slow server gets less load, so its latencies look better than its users' would (coordinated omission).
    The plan is then a list in order with every `at` 0: `requests` that count, after `warmup_requests` that do
    not.
    """

    kind: Literal["closed"] = "closed"
    concurrency: int = Field(ge=1)
    requests: int = Field(ge=1)
    warmup_requests: int = Field(0, ge=0)
    think_s: float = Field(0.0, ge=0)


Arrivals = Annotated[Constant | Poisson | Gamma | Ramp | Trace | Closed, Field(discriminator="kind")]


def _unit_poisson(rng: np.random.Generator, total: float) -> Floats:
    """The points of a Poisson process of rate 1 on [0, total)."""
    batch = math.ceil(total + 6 * math.sqrt(total)) + 20
    points = np.cumsum(rng.standard_exponential(batch))
    while points[-1] < total:
        points = np.concatenate([points, points[-1] + np.cumsum(rng.standard_exponential(batch))])
    return points[points < total]
