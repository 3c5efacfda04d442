"""Which route each request takes: by weights, Zipf over ranks, or in turn.

[routes]
mix = "weights"
weights = {support = 3, base = 1}

[routes]
mix = "zipf"          # or "round_robin"
names = ["a", "b"]    # or: pattern = "adapter-{}", count = 50 (adapter-0 to adapter-49)
s = 1.1
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from loadtests.distributions import pick
from loadtests.percentiles import Ints
from loadtests.section import Section

Name = Annotated[str, Field(min_length=1)]


class Weights(Section):
    """Each route as often as its weight says. Weights need not sum to 1."""

    mix: Literal["weights"] = "weights"
    weights: dict[Name, Annotated[float, Field(ge=0)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _some(self) -> Weights:
        if not sum(self.weights.values()) > 0:
            raise ValueError("every weight is 0; give at least one route a weight above 0")
        return self

    @property
    def routes(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def draw(self, rng: np.random.Generator, n: int) -> Ints:
        """n positions in `routes`."""
        return pick(tuple(self.weights.values()), rng, n)


class _Named(Section):
    """Routes listed in `names`, or made from `pattern` and `count`: `{}` counts from 0."""

    names: tuple[Name, ...] | None = Field(None, min_length=1)
    pattern: str = "adapter-{}"
    count: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _either(self) -> _Named:
        if (self.names is None) == (self.count is None):
            raise ValueError("give either names = [...] or count = N (with a pattern), one of the two")
        if self.names is not None and len(set(self.names)) < len(self.names):
            raise ValueError(f'names {list(self.names)} repeat one; use mix = "weights" to send it more')
        if self.names is None and (self.count or 0) > 1 and "{}" not in self.pattern:
            raise ValueError(f"pattern {self.pattern!r} has no {{}} for the number")
        return self

    @property
    def routes(self) -> tuple[str, ...]:
        if self.names is not None:
            return self.names
        return tuple(self.pattern.replace("{}", str(i)) for i in range(self.count or 0))


class Zipf(_Named):
    """Rank k (the first is 1) in proportion to k^-s: a few routes take most, a long tail takes the rest."""

    mix: Literal["zipf"] = "zipf"
    s: float = Field(1.0, ge=0)

    def draw(self, rng: np.random.Generator, n: int) -> Ints:
        """n positions in `routes`."""
        ranks = np.arange(1, len(self.routes) + 1, dtype=np.float64)
        return pick(tuple(ranks**-self.s), rng, n)


class RoundRobin(_Named):
    """One after the other, begun anew in each phase. Not random at all."""

    mix: Literal["round_robin"] = "round_robin"

    def draw(self, rng: np.random.Generator, n: int) -> Ints:
        """n positions in `routes`."""
        return np.arange(n) % len(self.routes)


Mix = Annotated[Weights | Zipf | RoundRobin, Field(discriminator="mix")]
