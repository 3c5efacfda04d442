"""Lengths and pauses that vary: a number, or a table with a `kind`.

    output = 64
    output = {kind = "uniform", low = 16, high = 128}
    output = {kind = "lognormal", median = 60, p95 = 300, max = 1024}
    output = {kind = "choice", values = [16, 256], weights = [9, 1]}

`draw` gives numbers, `whole` gives counts: rounded, and at least 1.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from loadtests.percentiles import Floats, Ints
from loadtests.section import Section

P95 = 1.6448536269514722
"""The 95 % point of the standard normal distribution."""


class Fixed(Section):
    """Always `value`."""

    kind: Literal["fixed"] = "fixed"
    value: float = Field(ge=0)

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        return np.full(n, self.value)

    def whole(self, rng: np.random.Generator, n: int) -> Ints:
        return _counts(self.draw(rng, n))


class Uniform(Section):
    """Anything from `low` to `high`, both included, equally often."""

    kind: Literal["uniform"] = "uniform"
    low: float = Field(ge=0)
    high: float = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}; swap them")
        return self

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        return rng.uniform(self.low, self.high, n)

    def whole(self, rng: np.random.Generator, n: int) -> Ints:
        low, high = math.ceil(self.low), math.floor(self.high)
        if low > high:  # 1.2 to 1.8: no count lies between
            return _counts(self.draw(rng, n))
        return np.maximum(1, rng.integers(low, high, n, endpoint=True))


class LogNormal(Section):
    """Many short, few very long: half are below `median`, one in twenty above `p95`. Cut to `max` where
    given."""

    kind: Literal["lognormal"] = "lognormal"
    median: float = Field(gt=0)
    p95: float = Field(gt=0)
    max: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> LogNormal:
        if self.p95 < self.median:
            raise ValueError(f"p95 {self.p95:g} is below the median {self.median:g}; swap them")
        return self

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """exp(ln median + sigma * N(0, 1)) with sigma = ln(p95 / median) / 1.645."""
        sigma = math.log(self.p95 / self.median) / P95
        values = self.median * np.exp(sigma * rng.standard_normal(n))
        return values if self.max is None else np.minimum(values, self.max)

    def whole(self, rng: np.random.Generator, n: int) -> Ints:
        return _counts(self.draw(rng, n))


class Choice(Section):
    """One of `values`, as often as its weight says; equally often without weights."""

    kind: Literal["choice"] = "choice"
    values: tuple[Annotated[float, Field(ge=0)], ...] = Field(min_length=1)
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _paired(self) -> Choice:
        if self.weights is not None and len(self.weights) != len(self.values):
            raise ValueError(
                f"{len(self.values)} values and {len(self.weights)} weights; give one weight a value"
            )
        if self.weights is not None and not sum(self.weights) > 0:
            raise ValueError("every weight is 0; give at least one value a weight above 0")
        return self

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        weights = self.weights or (1.0,) * len(self.values)
        return np.asarray(self.values)[pick(weights, rng, n)]

    def whole(self, rng: np.random.Generator, n: int) -> Ints:
        return _counts(self.draw(rng, n))


def _number(value: Any) -> Any:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return {"kind": "fixed", "value": value} if plain else value


Distribution = Annotated[
    Annotated[Fixed | Uniform | LogNormal | Choice, Field(discriminator="kind")], BeforeValidator(_number)
]
"""What a scenario writes as a number or as a table with a `kind`."""


def pick(weights: tuple[float, ...], rng: np.random.Generator, n: int) -> Ints:
    """n positions in `weights`, each as often as its weight says: one uniform each, through the cumulative
    sum."""
    edges = np.cumsum(weights)
    found: Ints = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
    return np.minimum(found, int(np.flatnonzero(weights)[-1]))


def _counts(values: Floats) -> Ints:
    return np.maximum(1, np.rint(values).astype(np.int64))
