"""64 adapters over two engines with 4 slots each: Hotswap against requests dealt out in turn."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.plan import Plan, plan
from loadtests.run import Asked, run
from loadtests.sample import Outcome, Sample
from loadtests.scenario import parse
from loadtests.target import Target
from loadtests.window import Window
from tests.house import House
from tests.proofs.adapters import variants
from tests.proofs.closed import DRAIN_S, crowd
from tests.proofs.raw import WITH_KEY, counters, house_engines, raw_engines
from tests.proofs.result import Result, median, percentile

ROUNDS = int(os.environ.get("THRASH_ROUNDS", "5"))
CELL_S = float(os.environ.get("THRASH_S", "12"))
WARM_S = float(os.environ.get("THRASH_WARM_S", "5"))
OPEN_S = float(os.environ.get("THRASH_OPEN_S", "60"))
LIMIT_S = float(os.environ.get("THRASH_LIMIT_S", "1600"))
"""After this much time no further round begins; the page says how many there were. What follows takes
6 minutes more."""
ENGINES, SLOTS, ADAPTERS, CLIENTS = 2, 4, 64, 64
CACHES = (32, 4)
MIXES: Mapping[str, float] = {"zipf": 1.0, "uniform": 0.0}
"""The exponent s of adapter k's share, k^-s. All rounds of one come before those of the next, and the first
round of each is thrown away: adapters are loaded for the first time then, and the gateway learns the mix."""
PROMPT, TOKENS = 16, 24
PATIENCE_S = 120.0
"""vLLM lets requests wait for ever, so ours may for as long as a window takes."""
SHARES = (0.5, 0.7)
"""Of the requests a second that Hotswap did when full: rates at which time to first token is measured. The
first is judged: above it slots are taken so much of the time that only more slots would help."""
OURS, TURNS = "Hotswap", "round-robin"


@dataclass(frozen=True, slots=True)
class Cell:
    """What one side did in one window. `counted` is over both engines."""

    tokens_per_s: float
    requests: int
    seconds: float
    counted: Counter[str]
    waits_s: tuple[float, ...]
    failures: Mapping[str, int]

    def each(self, what: str) -> float:
        """Of `what` (disk_loads, activations, …), a request."""
        return self.counted[what] / max(1, self.requests)


@dataclass(frozen=True, slots=True)
class Side:
    """Where a side's requests go, and the engines behind."""

    targets: Sequence[Target]
    engines: Sequence[str]

    def counted(self) -> Counter[str]:
        return sum((counters(url) for url in self.engines), Counter())


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "thrash",
        f"{ENGINES} engines (NF4, one core each), max_loras = {SLOTS}, {ADAPTERS} adapters of rank 8, "
        f"{CLIENTS} clients that ask again as soon as they were answered, {TOKENS} tokens an answer. "
        f"{TURNS}: two more vLLM with the same flags and our kernel, admission off, every adapter registered "
        "on both, requests dealt out in turn by the driver itself, without a gateway, which favours it. Both "
        f"sides get the same requests in the same order, in windows of {CELL_S:g} s after {WARM_S:g} s of "
        "the same load, by turns, both orders; a round before them, in which all is new to both sides, does "
        "not count. Medians (lowest to highest). Time to first token: open loop, "
        f"Poisson, at {SHARES[0]:.0%} of what Hotswap did when full, against the same plan on a house of "
        f"the same engines with {ADAPTERS} slots each, where no request waits for one.",
    )
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    adapters = {f"adapter-{i}": path for i, path in enumerate(variants(base, folder / "adapters", ADAPTERS))}
    full: dict[str, float] = {}
    contended: dict[tuple[str, float], list[float]] = {}
    for at, cache in enumerate(CACHES):
        with _house(folder / f"cache-{cache}", base, adapters, slots=SLOTS, cache=cache) as house:
            ours = Side([Target(house.url, house.key)], house_engines(house))
            with raw_engines(house) as raws:
                for raw in raws:
                    raw.load(adapters)
                turns = Side([raw.target for raw in raws], [raw.target.url for raw in raws])
                _tell(f"max_cpu_loras = {cache}: all {2 * ENGINES} engines are up", began)
                left_s = (LIMIT_S - (time.monotonic() - began)) / (len(CACHES) - at)
                done = _by_turns({OURS: ours, TURNS: turns}, left_s, began)
            _judge(result, cache, done)
            if cache == CACHES[0]:
                for mix in MIXES:
                    full[mix] = median([cell.requests / cell.seconds for cell in done[mix][OURS]])
                    for share in SHARES:
                        waits = _open(house, mix, share * full[mix], result, f"{mix}, {SLOTS} slots")
                        contended[mix, share] = waits
                    _tell(f"open loop, {mix}", began)
    with _house(folder / "enough", base, adapters, slots=ADAPTERS, cache=ADAPTERS) as house:
        for (mix, share), waits in contended.items():
            calm = _open(house, mix, share * full[mix], result, f"{mix}, {ADAPTERS} slots")
            worst, usual = percentile(waits, 0.99), percentile(calm, 0.99)
            said = (
                f"{worst * 1e3:.0f} ms against {usual * 1e3:.0f} ms, {worst / usual:.1f} x (n={len(waits)})"
            )
            called = f"{mix}, {share:.0%} of full: TTFT p99 ≤ 4 x the p99 with enough slots"
            if share == SHARES[0]:
                result.must(called, worst <= 4 * usual, said)
            else:
                result.figure(called, said)
    result.figure("took", f"{(time.monotonic() - began) / 60:.0f} minutes")
    return result


@contextmanager
def _house(folder: Path, base: Path, adapters: Mapping[str, Path], *, slots: int, cache: int) -> Any:
    settings = {
        "HOTSWAP_ENGINE__COUNT": str(ENGINES),
        "HOTSWAP_ENGINE__MAX_LORAS": str(slots),
        "HOTSWAP_ENGINE__MAX_CPU_LORAS": str(cache),
        "HOTSWAP_FLEET__QUEUE_TIMEOUT_S": str(PATIENCE_S),
        **WITH_KEY,
    }
    with House(folder, base, settings) as house:
        for name, path in adapters.items():
            house.add(name, path)
        yield house


def _by_turns(sides: Mapping[str, Side], left_s: float, began: float) -> dict[str, dict[str, list[Cell]]]:
    """mix -> side -> its cells, one a round. Every round has requests of its own: no prompt comes twice."""
    done: dict[str, dict[str, list[Cell]]] = {mix: {side: [] for side in sides} for mix in MIXES}
    for mix in MIXES:
        until = time.monotonic() + left_s / len(MIXES)
        for number in range(ROUNDS + 1):
            if number > 1 and time.monotonic() > until:
                _tell(f"no time for more than {number - 1} rounds of {mix}", began)
                break
            made = _plan(mix, seed=number + 1)
            for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                cell = asyncio.run(_cell(sides[side], made, last=number == ROUNDS))
                if number > 0:
                    done[mix][side].append(cell)
                _tell(
                    f"round {number}, {mix}, {side}: {cell.tokens_per_s:.0f} tok/s, {cell.requests} "
                    f"requests, {dict(cell.counted)}, {dict(cell.failures)}",
                    began,
                )
    return done


async def _cell(side: Side, made: Plan, *, last: bool) -> Cell:
    """After the `last` one all that were asked may end; else clients hang up, for 64 answers take half a
    minute."""
    async with crowd(made, side.targets, CLIENTS, drain_s=DRAIN_S if last else 0.0) as seen:
        await asyncio.sleep(WARM_S)
        before, start = await asyncio.to_thread(side.counted), seen.clock()
        await asyncio.sleep(CELL_S)
        after, end = await asyncio.to_thread(side.counted), seen.clock()
    window = Window(start, end - start)
    ended = [sample for sample in seen.samples if sample.ok and window.holds(sample.last)]
    return Cell(
        tokens_per_s=sum(map(window.output_tokens, seen.samples)) / window.seconds,
        requests=len(ended),
        seconds=window.seconds,
        counted=Counter({name: after[name] - before[name] for name in after}),
        waits_s=tuple(wait for sample in ended if (wait := sample.ttft) is not None),
        failures=Counter(str(sample.outcome) for sample in seen.samples if _failed(sample, last)),
    )


def _failed(sample: Sample, last: bool) -> bool:
    """An adapter of random weights may say nothing that is text; that is an answer all the same."""
    hung_up = sample.outcome is Outcome.UNFINISHED and not last
    return not sample.ok and sample.outcome is not Outcome.NO_TOKENS and not hung_up


def _plan(mix: str, seed: int) -> Plan:
    most = int((WARM_S + CELL_S + 10) * 50)
    arrivals = {"kind": "closed", "concurrency": CLIENTS, "requests": most}
    return plan(parse(_scenario(mix, arrivals, most, seed), "thrash"))


def _scenario(mix: str, arrivals: Mapping[str, Any], seconds: float, seed: int) -> dict[str, Any]:
    return {
        "name": "thrash",
        "seed": seed,
        "seconds": seconds,
        "arrivals": dict(arrivals),
        "routes": {"mix": "zipf", "count": ADAPTERS, "s": MIXES[mix]},
        "prompts": {"kind": "lengths", "tokens": {"kind": "fixed", "value": PROMPT}},
        "output": {"kind": "fixed", "value": TOKENS},
        "ignore_eos": True,
    }


def _open(house: House, mix: str, rate: float, result: Result, called: str) -> list[float]:
    """Times to first token, from the scheduled send."""
    scenario = _scenario(mix, {"kind": "poisson", "rate": rate}, OPEN_S, seed=1000)
    done = run(parse({**scenario, "warmup_s": WARM_S}, "thrash"), Asked(Target(house.url, house.key)))
    group = done.measures.all
    waits = [s.ttft for s in done.driven.samples if s.phase == "run" and s.ok and s.ttft is not None]
    result.figure(
        f"open loop at {rate:.1f} requests/s: {called}",
        f"TTFT p50 {(group.ttft.p50 or 0) * 1e3:.0f}, p99 {(group.ttft.p99 or 0) * 1e3:.0f} ms, "
        f"{group.ok} of {group.requests} answered, {dict(group.errors)}; "
        f"the generator {done.driven.generator.why or 'kept its schedule'}",
    )
    return waits


def _judge(result: Result, cache: int, done: Mapping[str, Mapping[str, Sequence[Cell]]]) -> None:
    fewer = 10.0 if cache > SLOTS else 1.1
    for mix, sides in done.items():
        ours, turns = sides[OURS], sides[TURNS]
        called = f"{mix}, max_cpu_loras = {cache}"
        speeds = [mine.tokens_per_s / theirs.tokens_per_s for mine, theirs in zip(ours, turns, strict=True)]
        for what in ("disk_loads", "activations", "not_now"):
            said = " → ".join(_range([cell.each(what) for cell in cells]) for cells in (turns, ours))
            result.figure(f"{called}: {what} a request, {TURNS} → {OURS}", said)
        for what, share in (("p50", 0.5), ("p99", 0.99)):
            said = " → ".join(
                _range([percentile(cell.waits_s, share) for cell in cells]) for cells in (turns, ours)
            )
            result.figure(f"{called}: TTFT {what} when full, seconds, {TURNS} → {OURS}", said)
        said = " → ".join(_range([cell.tokens_per_s for cell in cells], 1) for cells in (turns, ours))
        result.must(
            f"{called}: ≥ 1.15 x tok/s",
            median(speeds) >= 1.15,
            f"{median(speeds):.2f} x ({min(speeds):.2f} to {max(speeds):.2f}), {len(speeds)} rounds: {said}",
        )
        theirs, mine = (_pooled(cells) for cells in (turns, ours))
        times = f"{theirs / mine:.1f} x" if mine else "none at all"
        loads = " → ".join(str(sum(cell.counted["disk_loads"] for cell in cells)) for cells in (turns, ours))
        result.must(
            f"{called}: disk loads a request ≥ {fewer:g} x fewer",
            mine * fewer <= theirs and theirs > 0,
            f"{times}: {theirs:.3f} → {mine:.3f} over all rounds ({loads} loads)",
        )
        failed = sum((Counter(cell.failures) for cells in sides.values() for cell in cells), Counter())
        result.must(f"{called}: every request answered", not failed, dict(failed) or "all")


def _pooled(cells: Sequence[Cell]) -> float:
    """Disk loads a request over all cells: a median would hide the few that a side has now and then."""
    return sum(cell.counted["disk_loads"] for cell in cells) / max(1, sum(cell.requests for cell in cells))


def _range(values: Sequence[float], digits: int = 3) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _tell(line: str, began: float) -> None:
    print(f"  {time.monotonic() - began:5.0f} s  {line}", flush=True)
