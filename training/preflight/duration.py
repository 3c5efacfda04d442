"""How long, and for how much money: from what was measured on this machine, else from a formula that says so.

Time of a step is tokens (rows padded to the longest of their batch) by tokens a second. A run or a trial
measures that; before the first one it is guessed from the operations: forward 2 x parameters a token, and
backward 2 x again for the gradient through frozen layers, which have no weight gradient of their own (Kaplan
et al., 2020, count 6 where the weights train); 2 more when activations are computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from training.preflight.machine import Machine, Speed
from training.preflight.prices import Prices
from training.recipe import Recipe
from training.recipe.resolve import Tokens
from training.shape import Shape

CPU_TOKENS_PER_S, CPU_PARAMETERS = 260.0, 134_515_008
"""FACTS: SmolLM2-135M in NF4, batch 8 short rows, 1.8 to 2.0 s a step on two cores."""
START_S = 25.0
"""Importing torch and trl, loading and quantizing a small base; larger bases add `LOAD_BYTES_PER_S`."""
LOAD_BYTES_PER_S = 300e6
PADDING = 1.15
"""Tokens computed for one that counts, where rows of like length are batched together."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of the run on this machine, whence they are known, and what each machine of the table takes.

    `costs` maps a machine's name to (hours, USD); `here_usd` is this machine's price, None: not given.
    """

    steps: int
    step_s: float
    seconds: float
    source: str
    measured: bool
    here_usd: float | None
    costs: Mapping[str, tuple[float, float]]

    @property
    def summary(self) -> str:
        """One line."""
        return f"{spoken(self.seconds)} here: {self.steps:,} steps of {self.step_s:.2f} s ({self.source})"

    def lines(self) -> Iterator[str]:
        """The costs."""
        yield "what it costs (prices and speeds: --price FILE; the others are estimated from operations):"
        if self.here_usd is not None:
            yield f"  {'this machine':<16}  {spoken(self.seconds):>10}  {self.here_usd:8.4f} USD"
        for name, (hours, usd) in self.costs.items():
            yield f"  {name:<16}  {spoken(hours * 3600):>10}  {usd:8.4f} USD"

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self) | {"costs": {k: {"hours": h, "usd": u} for k, (h, u) in self.costs.items()}}


def estimate(
    base: Shape, recipe: Recipe, tokens: Tokens, rows: int, machine: Machine, prices: Prices
) -> Estimate:
    """Of training `rows` rows, of which `tokens` counts all with those held out."""
    steps = recipe.steps(rows)
    mean = tokens.total / max(1, rows / (1 - recipe.validation_share))
    step_tokens = recipe.batch_size * mean * PADDING
    speed, source, measured = _speed(base, recipe, machine)
    step_s = step_tokens / speed
    start_s = START_S + base.parameters * 2 / LOAD_BYTES_PER_S
    seconds = start_s + steps * step_s
    operations = steps * step_tokens * base.parameters * per_token(recipe)
    costs = {}
    for host in prices.machine:
        busy = start_s + operations / (host.bf16_tflops * 1e12 * host.utilization)
        costs[host.name] = (busy / 3600, busy / 3600 * host.usd_per_hour)
    here = None if prices.here is None else seconds / 3600 * prices.here
    return Estimate(steps, step_s, seconds, source, measured, here, costs)


def per_token(recipe: Recipe) -> int:
    """Operations a token and parameter."""
    return 6 if recipe.gradient_checkpointing else 4


def spoken(seconds: float) -> str:
    """ "45 s", "12 min", "3.4 h"."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _speed(base: Shape, recipe: Recipe, machine: Machine) -> tuple[float, str, bool]:
    """Tokens a second, whence, and whether it was measured here with this base."""
    known = [speed for speed in machine.speeds if speed.device == machine.device]
    same = [speed for speed in known if speed.base == base.name]
    factor = 4 / per_token(recipe)
    if same:
        return same[-1].tokens_per_s * factor, f"measured here on {same[-1].at}", True
    if known:
        near = min(known, key=lambda speed: _apart(speed, base))
        speed = near.tokens_per_s * near.parameters / base.parameters * factor
        return speed, f"from {near.base}, measured here on {near.at}", False
    if machine.device == "cuda":
        return (
            70e12 * 0.25 / (4 * base.parameters) * factor,
            "guessed: as an A10G; a trial measures it",
            False,
        )
    guess = CPU_TOKENS_PER_S * CPU_PARAMETERS / base.parameters * factor
    return guess, "guessed: as two CPU cores; a trial measures it", False


def _apart(speed: Speed, base: Shape) -> float:
    return abs(math.log(speed.parameters / base.parameters))
