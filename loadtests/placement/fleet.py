"""Requests through a fleet of engines, step by step: tokens a second, loads, activations, waiting.

A closed loop: so many clients, each sends its next request when the last one is answered. What a way to deal
out is worth then shows as tokens a second. Times are simulated; nothing here depends on this machine's speed.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from loadtests.placement import traffic
from loadtests.placement.dispatch import Dispatch, Homes, RoundRobin
from loadtests.placement.engine import Counts, Proportions, Request

SPILL_AFTER_S = 0.5
"""The gateway's own default (`fleet.spill_after_s`)."""
Way = Literal["round robin", "round robin, turns", "homes", "homes, spill"]
WAYS: tuple[Way, ...] = ("round robin", "round robin, turns", "homes", "homes, spill")


@dataclass(frozen=True)
class Scene:
    """`clients` are those of the whole fleet. `tokens` is the mean length of an answer: geometric, cut at
    four times that. `warm` requests come before those that are measured. The last two are for `Homes`.
    """

    proportions: Proportions
    engines: int
    versions: int
    exponent: float
    clients: int
    tokens: int
    requests: int
    warm: int
    place_every_s: float = 5.0
    keep: float = 0.9

    def roomy(self) -> Scene:
        """The same with a slot and a place in the cache for every version: no contention."""
        enough = replace(self.proportions, max_loras=self.versions, max_cpu_loras=self.versions)
        return replace(self, proportions=enough)


@dataclass(frozen=True)
class Outcome:
    """Of the requests after `warm`. `rows` is the mean number of requests in a step; `stalled` the share of
    its time in which an engine loads or activates; `moved` the placements that were new, all told.
    """

    tokens_per_s: float
    loads_per_request: float
    activations_per_request: float
    ttft_p50_s: float
    ttft_p99_s: float
    rows: float
    stalled: float
    moved: int


def simulate(scene: Scene, way: Way, seed: int) -> Outcome:
    """The same requests for every way, as `seed` draws them."""
    dispatch = _dispatch(scene, way)
    draws = traffic.draws(traffic.shares(scene.versions, scene.exponent), seed)
    random = np.random.default_rng(seed + 1)
    drawn = np.minimum(random.geometric(1 / scene.tokens, size=65_536), 4 * scene.tokens)
    lengths = itertools.cycle(drawn.tolist())
    steps: list[tuple[float, int]] = []  # which engine's step ends when
    stepping = [False] * scene.engines
    now, began = 0.0, 0.0
    before = [Counts() for _ in dispatch.engines]
    measured: list[Request] = []
    finished = 0

    def wake(engines: set[int]) -> None:
        for each in sorted(engines):
            if not stepping[each] and not dispatch.engines[each].idle:
                stepping[each] = True
                heapq.heappush(steps, (now + dispatch.engines[each].begin_step(), each))

    def send() -> int:
        return dispatch.arrived(Request(next(draws), next(lengths), now))

    wake({send() for _ in range(scene.clients)})
    while finished < scene.warm + scene.requests:
        now, at = heapq.heappop(steps)
        stepping[at] = False
        touched = {at} | dispatch.passed(now)
        for request in dispatch.engines[at].end_step(now):
            finished += 1
            if finished > scene.warm:
                measured.append(request)
            elif finished == scene.warm:
                began = now
                before = [replace(engine.counts) for engine in dispatch.engines]
            dispatch.left(at, request)
            touched.add(send())
        wake(touched)
    return _outcome(dispatch, before, measured, now - began)


def _outcome(
    dispatch: Dispatch, before: Sequence[Counts], measured: Sequence[Request], seconds: float
) -> Outcome:
    def grown(name: str) -> float:
        now = sum(getattr(engine.counts, name) for engine in dispatch.engines)
        return float(now - sum(getattr(each, name) for each in before))

    ttft = np.sort([request.first - request.arrived for request in measured])
    return Outcome(
        tokens_per_s=grown("tokens") / seconds,
        loads_per_request=grown("loads") / len(measured),
        activations_per_request=grown("activations") / len(measured),
        ttft_p50_s=float(ttft[len(ttft) // 2]),
        ttft_p99_s=float(ttft[int(len(ttft) * 0.99)]),
        rows=grown("tokens") / max(1.0, grown("steps")),
        stalled=grown("stalled_s") / max(1e-9, grown("busy_s")),
        moved=dispatch.moved,
    )


def _dispatch(scene: Scene, way: Way) -> Dispatch:
    if way.startswith("round robin"):
        return RoundRobin(scene.proportions, scene.engines, turns=way.endswith("turns"))
    return Homes(
        scene.proportions,
        scene.engines,
        scene.versions,
        place_every_s=scene.place_every_s,
        keep=scene.keep,
        spill_after_s=SPILL_AFTER_S if way.endswith("spill") else None,
    )
