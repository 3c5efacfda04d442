"""How often a rollout's evidence is wrong, and how often it finds what is there: simulated rollouts."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gateway.rollout.evidence import Evidence
from gateway.rollout.goal import Goal
from tests.proofs.result import Result

ROLLOUTS = int(os.environ.get("ROLLOUTS", "2000"))
SEED = 1
GUARDRAILS = {"errors": 0.01, "empty": 0.02, "refused": 0.03, "slow": 0.05, "slow_tokens": 0.05, "long": 0.05}
"""How often each outcome is bad while nothing is wrong."""
DAY_S = 86_400.0


@dataclass(frozen=True)
class World:
    """`units` come over `days`, each asks `requests` times; unit by unit the chance that an answer is liked
    is drawn about the arm's (Beta, `alike`: the less, the more alike are requests of one unit). By day that
    chance swings by `drift`; what is thought of an answer is known `late_h` hours later on average."""

    candidate: float = 0.88
    stable: float = 0.88
    units: int = 4000
    horizon: int = 2000
    days: float = 7.0
    requests: int = 1
    alike: float = math.inf
    drift: float = 0.0
    late_h: float = 0.0
    shares: Sequence[float] = (0.5,)


SCENES = {
    "one request a unit": World(),
    "5 requests a unit, alike": World(requests=5, alike=1.5),
    "a daily drift, and stages of 5, 25 and 50 %": World(drift=0.1, shares=(0.05, 0.25, 0.5)),
    "what is thought comes 6 hours late": World(late_h=6.0, drift=0.1, shares=(0.05, 0.25, 0.5)),
    "all of it": World(requests=5, alike=1.5, drift=0.1, late_h=6.0, shares=(0.05, 0.25, 0.5)),
}


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "rollout_statistics",
        f"{ROLLOUTS:,} simulated rollouts a line (seeds {SEED} and on), with the evidence's own code, looked "
        "at after every unit that comes and every opinion that arrives. Six guardrails and the goal; a false "
        "decision is a guardrail that says harm, or a goal with a verdict, while both are alike.",
    )
    with ProcessPoolExecutor(2) as pool:
        for name, world in SCENES.items():
            found = list(pool.map(partial(_false, world), range(SEED, SEED + ROLLOUTS), chunksize=20))
            rate = sum(any(each) for each in found) / ROLLOUTS
            goal, guards = (sum(each[at] for each in found) / ROLLOUTS for at in (0, 1))
            error = math.sqrt(rate * (1 - rate) / ROLLOUTS)
            result.must(
                f"A/A, {name}: false decisions ≤ 5 %",
                rate <= 0.05,
                f"{rate:.1%} ± {error:.1%} (goal {goal:.1%}, guardrails {guards:.1%})",
            )
        alike = World(requests=5, alike=1.5)
        naive = list(pool.map(partial(_naive, alike), range(SEED, SEED + ROLLOUTS), chunksize=20))
        result.figure("the same with requests taken for units, the goal alone", f"{np.mean(naive):.1%}")
        better = World(candidate=0.90, stable=0.88, units=10_500, horizon=5000)
        for name, world in (
            ("0.90 against 0.88", better),
            ("0.88 against 0.90", replace(better, candidate=0.88, stable=0.90)),
        ):
            verdicts = list(pool.map(partial(_verdict, world), range(SEED, SEED + ROLLOUTS), chunksize=20))
            wanted = "better" if world.candidate > world.stable else "worse"
            right = verdicts.count(wanted) / ROLLOUTS
            result.must(f"{name}, 5,000 units an arm: found in ≥ 80 %", right >= 0.80, f"{right:.1%}")
    return result


def _false(world: World, seed: int) -> tuple[bool, bool]:
    """Whether the goal, and whether a guardrail, was wrong."""
    evidence = Evidence(world.horizon, list(GUARDRAILS))
    _live(world, seed, evidence)
    return evidence.goal.verdict != "none", bool(evidence.harmed())


def _verdict(world: World, seed: int) -> str:
    evidence = Evidence(world.horizon, ())
    _live(world, seed, evidence)
    return evidence.goal.verdict


def _naive(world: World, seed: int) -> bool:
    """Every request as if it were a unit."""
    goal = Goal(world.horizon * world.requests, 0.05)
    draw = np.random.default_rng(seed)
    for at, (mine, opinions) in enumerate(zip(*_drawn(world, draw)[1:3], strict=True)):
        for number, liked in enumerate(opinions):
            goal.seen((at, number), 0, candidate=bool(mine))
            goal.said((at, number), float(liked))
        goal.look()
    return goal.verdict != "none"


def _live(world: World, seed: int, evidence: Evidence) -> None:
    draw = np.random.default_rng(seed)
    times, mine, liked, stages = _drawn(world, draw)
    bad = {
        name: draw.random(world.units) < rate for name, rate in GUARDRAILS.items() if name in evidence.guards
    }
    events: list[tuple[float, int, int]] = [(time, 0, unit) for unit, time in enumerate(times)]
    for number in range(world.requests):
        asked = times + number * 600.0
        late = draw.exponential(world.late_h * 3600, world.units) if world.late_h else np.zeros(world.units)
        events += [(time, 1 + number, unit) for unit, time in enumerate((asked + late).tolist())]
    for _, kind, unit in sorted(events):
        candidate = bool(mine[unit])
        if kind == 0:
            stratum = (int(times[unit] // 3600), int(stages[unit]))
            said = {name: float(each[unit]) for name, each in bad.items()}
            evidence.exchange(unit, stratum, said, candidate=candidate)
        else:
            evidence.said(unit, float(liked[unit, kind - 1]), candidate=candidate)
            evidence.look()


def _drawn(world: World, draw: Any) -> tuple[Any, Any, Any, Any]:
    """Of every unit: when it comes, if it is the candidate's, what it thinks of each answer, its stage."""
    when = np.sort(draw.random(world.units))
    times = when * world.days * DAY_S
    stages = (when * len(world.shares)).astype(int)
    mine = draw.random(world.units) < np.array(world.shares)[stages]
    chance = np.where(mine, world.candidate, world.stable) + world.drift * np.sin(2 * math.pi * times / DAY_S)
    chance = np.clip(chance, 0.001, 0.999)
    if math.isfinite(world.alike):
        chance = draw.beta(chance * world.alike, (1 - chance) * world.alike)
    liked = draw.random((world.units, world.requests)) < chance[:, None]
    return times, mine, liked, stages
