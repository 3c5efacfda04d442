"""One hot adapter and fifteen cold ones in four slots: what the hot one costs the others."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtests.plan import plan
from loadtests.run import Asked, Run, run
from loadtests.sample import Outcome, Sample
from loadtests.scenario import parse
from loadtests.target import Target
from tests.house import House
from tests.proofs.adapters import variants
from tests.proofs.closed import crowd
from tests.proofs.raw import AUTHORIZED, WITH_KEY, house_engines, raw_engines
from tests.proofs.result import Result, median, percentile, spread

HOT, COLD, HOT_WEIGHT = "hot", 15, 15
SLOTS, CACHE = 4, 32
EACH = int(os.environ.get("FAIRNESS_EACH", "36"))
"""Requests that a cold adapter gets on average; Poisson, so that hardly one gets fewer than `FEWEST`."""
FEWEST = min(20, EACH // 2)
LONGEST_S = float(os.environ.get("FAIRNESS_LONGEST_S", "600"))
SHARE, RUSH = 0.65, 2.0
"""Of what the engine can do, measured first: the rate of the run; and of the rush, in which requests must be
refused in time."""
RUSH_S, FULL_S, WARM_S, CLIENTS = 40.0, 20.0, 5.0, 24
DEADLINE_S, SLACK_S = 10.0, 0.5
"""fleet.queue_timeout_s, which is for the turn: what an engine takes from there to the first token is its own
time, and told by its own histogram. Refusals may be so much later on a machine that is this busy."""
PROMPT, TOKENS = {"kind": "uniform", "low": 16, "high": 48}, 24
ANSWERED = (Outcome.OK, Outcome.NO_TOKENS)
"""An adapter of random weights may say nothing that is text; that is an answer all the same."""
REFUSED = (Outcome.RATE_LIMITED, Outcome.UNAVAILABLE)


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "fairness",
        f"One engine (NF4), max_loras = {SLOTS}, {COLD + 1} adapters of rank 8, all in its CPU cache. Open "
        f"loop, Poisson, at {SHARE:.0%} of what {CLIENTS} clients that ask again at once get of this mix; "
        f"every second request is for the hot adapter, the rest is dealt out evenly to {COLD} cold ones. "
        "Latency is from the scheduled send to the last byte; p99 by nearest rank, which for a cold adapter "
        f"is its worst request. Then a rush of {RUSH:g} times what the engine can do, for {RUSH_S:g} s: no "
        f"request waits more than its deadline, {DEADLINE_S:g} s here, for its turn. For contrast the same "
        "plan on vLLM with the same flags and kernel, no gateway, admission off.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    names = [HOT, *(f"cold-{number}" for number in range(COLD))]
    adapters = dict(zip(names, variants(base, folder / "adapters", len(names)), strict=True))
    settings = {
        "HOTSWAP_ENGINE__MAX_LORAS": str(SLOTS),
        "HOTSWAP_ENGINE__MAX_CPU_LORAS": str(CACHE),
        "HOTSWAP_FLEET__QUEUE_TIMEOUT_S": str(DEADLINE_S),
        **WITH_KEY,
    }
    house = House(folder / "house", base, settings)
    with house:
        for name, path in adapters.items():
            house.add(name, path)
        ours = Target(house.url, house.key)
        full = asyncio.run(_full(ours))
        rate = SHARE * full
        seconds = min(LONGEST_S, EACH * (COLD + HOT_WEIGHT) / rate)
        result.figure("full, 24 clients", f"{full:.2f} requests/s")
        result.figure("offered", f"{rate:.2f} requests/s for {seconds:.0f} s")
        mine = _run("Hotswap", ours, rate, seconds, seed=1)
        _latencies(result, "Hotswap", mine)
        _judge(result, mine)
        [engine] = house_engines(house)
        before = _first_tokens(engine)
        rush = _run("rush", ours, RUSH * full, RUSH_S, seed=2)
        _rush(result, rush, _slowest(before, _first_tokens(engine)))
    with raw_engines(house) as [raw]:
        raw.load(adapters)
        _latencies(result, "raw vLLM", _run("raw vLLM", raw.target, rate, seconds, seed=1))
    return result


async def _full(target: Target) -> float:
    """Requests a second that end when the engine always has `CLIENTS` of them."""
    most = int((FULL_S + WARM_S) * 50)
    arrivals = {"kind": "closed", "concurrency": CLIENTS, "requests": most}
    async with crowd(plan(parse(_scenario(arrivals, most, seed=3), "fairness")), [target], CLIENTS) as seen:
        await asyncio.sleep(WARM_S)
        before, began = len(seen.samples), seen.clock()
        await asyncio.sleep(FULL_S)
        return (len(seen.samples) - before) / (seen.clock() - began)


def _run(called: str, target: Target, rate: float, seconds: float, seed: int) -> Run:
    scenario = _scenario({"kind": "poisson", "rate": rate}, seconds, seed)
    told = time.monotonic()

    def tell(progress: Any) -> None:
        nonlocal told
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(
                f"  {called}: {progress.at:.0f} of {seconds:.0f} s, {progress.answered} answered, "
                f"{progress.in_flight} in flight, {progress.errors} errors",
                flush=True,
            )

    return run(parse({**scenario, "warmup_s": WARM_S}, "fairness"), Asked(target), tell)


def _scenario(arrivals: Mapping[str, Any], seconds: float, seed: int) -> dict[str, Any]:
    return {
        "name": "fairness",
        "seed": seed,
        "seconds": seconds,
        "arrivals": dict(arrivals),
        "routes": {
            "mix": "weights",
            "weights": {HOT: HOT_WEIGHT, **{f"cold-{number}": 1 for number in range(COLD)}},
        },
        "prompts": {"kind": "lengths", "tokens": PROMPT},
        "output": {"kind": "fixed", "value": TOKENS},
        "ignore_eos": True,
    }


def _judge(result: Result, done: Run) -> None:
    samples = _measured(done)
    by_route = _by_route(samples)
    fewest = min(len(times) for times in by_route.values())
    overall = median([time for times in by_route.values() for time in times])
    worst = max(by_route, key=lambda route: percentile(by_route[route], 0.99))
    p99 = percentile(by_route[worst], 0.99)
    result.must(
        "the worst adapter's p99 / overall median < 3",
        p99 < 3 * overall and len(by_route) == COLD + 1,
        f"{p99 / overall:.2f}: {worst} {p99 * 1e3:.0f} ms, all {overall * 1e3:.0f} ms",
    )
    result.must(f"every adapter had ≥ {FEWEST} requests", fewest >= FEWEST, f"{fewest} at least")
    failed = [sample for sample in samples if sample.outcome not in ANSWERED]
    others = [sample for sample in failed if sample.outcome not in REFUSED]
    result.must("every request answered or refused in time", not others, f"{len(others)} {_kinds(others)}")
    result.figure("refused at the deadline, before the rush", f"{len(failed)} of {len(samples)}")


def _rush(result: Result, done: Run, engines_own_s: float) -> None:
    samples = _measured(done)
    answered = [s for s in samples if s.outcome in ANSWERED]
    refused = [s for s in samples if s.outcome in REFUSED]
    waits = [end - s.at for s in samples if (end := s.first if s.first is not None else s.last) is not None]
    refusals = [s.last - s.at for s in refused if s.last is not None]
    result.figure("rush: answered, refused in time", f"{len(answered)}, {len(refused)} of {len(samples)}")
    result.figure("rush: time to the first token or the refusal", spread(waits))
    if refusals:
        result.figure("rush: time to a refusal", spread(refusals))
    others = [s for s in samples if s.outcome not in (*ANSWERED, *REFUSED)]
    result.must(
        "no request waits more than its deadline without an answer",
        not others
        and len(waits) == len(samples)
        and max(refusals, default=0) < DEADLINE_S + SLACK_S
        and max(waits) < DEADLINE_S + engines_own_s + SLACK_S,
        f"the latest refusal after {max(refusals, default=0):.1f} s, the latest first token after "
        f"{max(waits):.1f} s, of which up to {engines_own_s:g} s within the engine; {len(others)} of "
        f"{len(samples)} neither answered nor refused {_kinds(others)}",
    )


def _first_tokens(engine: str) -> dict[float, float]:
    """vLLM's histogram of the time to the first token: up to so many seconds -> requests."""
    page = httpx.get(f"{engine}/metrics", headers=AUTHORIZED, timeout=60, trust_env=False)
    page.raise_for_status()
    found: defaultdict[float, float] = defaultdict(float)
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            if sample.name == "vllm:time_to_first_token_seconds_bucket":
                found[float(sample.labels["le"])] += sample.value
    assert found, "the engine has no histogram of first tokens"
    return dict(found)


def _slowest(before: Mapping[float, float], after: Mapping[float, float]) -> float:
    """The edge below which all first tokens between two readings came, in seconds."""
    grown = {edge: after[edge] - before.get(edge, 0) for edge in after}
    return min(edge for edge, count in grown.items() if count == grown[float("inf")])


def _latencies(result: Result, called: str, done: Run) -> None:
    samples = _measured(done)
    for what, by_route in (("latency", _by_route(samples)), ("TTFT", _by_route(samples, first=True))):
        everybody = [time for times in by_route.values() for time in times]
        worst = max(percentile(times, 0.99) for times in by_route.values())
        cold = [time for route, times in by_route.items() if route != HOT for time in times]
        result.figure(f"{called}: {what}, hot", spread(by_route.get(HOT, [0.0])))
        result.figure(f"{called}: {what}, cold", spread(cold))
        result.figure(f"{called}: {what}, worst p99 / overall median", f"{worst / median(everybody):.2f}")
    failed = [sample for sample in samples if sample.outcome not in ANSWERED]
    result.figure(f"{called}: failed", f"{len(failed)} of {len(samples)} {_kinds(failed)}")
    result.figure(f"{called}: the generator", done.driven.generator.why or "kept its schedule")


def _measured(done: Run) -> list[Sample]:
    return [sample for sample in done.driven.samples if sample.phase == "run"]


def _by_route(samples: Sequence[Sample], *, first: bool = False) -> dict[str, list[float]]:
    """Route -> seconds from the scheduled send to the last byte, or the first token, of what was answered."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        end = sample.first if first else sample.last
        if sample.outcome in ANSWERED and end is not None:
            found[sample.route].append(end - sample.at)
    return dict(found)


def _kinds(samples: Sequence[Sample]) -> str:
    kinds = sorted({str(sample.outcome) for sample in samples})
    return f"({', '.join(kinds)})" if kinds else ""
