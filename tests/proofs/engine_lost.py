"""kill -9 of one of two engines under load, by turns: no whole answer is lost, and no stream goes silent."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from loadtests.plan import Plan, plan
from loadtests.sample import Outcome, Sample
from loadtests.scenario import parse
from loadtests.target import Target
from tests.house import House, wait_for
from tests.proofs.adapters import variants
from tests.proofs.closed import STREAMED, WHOLE, Crowd, crowd
from tests.proofs.raw import WITH_KEY, healthy, house_engines
from tests.proofs.result import Result, spread

KILLS = int(os.environ.get("LOST_KILLS", "6"))
ENGINES, ADAPTERS, CACHE, SLOTS, CLIENTS = 2, 100, 128, 4, 12
"""Adapters are dealt out to both engines, so that each has about 50 to recover."""
PROMPT, TOKENS = 16, 24
QUIET_S = 8.0
"""Of load before each kill: both engines have streams in mid-answer then."""
READY_WITHIN_S = 240.0
LIMIT_S = float(os.environ.get("LOST_LIMIT_S", "1500"))
RECOVERY_SLACK_S = 1.0
ANSWERED = (Outcome.OK, Outcome.NO_TOKENS)
"""An adapter of random weights may say nothing that is text; that is an answer all the same."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill. `at` it was done, then the new engine was `ready` (/health said 200), then it took requests
    again with everything loaded: seconds since 1970. `loads_ms`: what each load took, by the gateway."""

    engine: str
    at: float
    in_flight: int
    ready: float
    recovered: float
    loads_ms: tuple[float, ...]

    @property
    def recovery_s(self) -> float:
        return self.recovered - self.ready


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "engine_lost",
        f"{ENGINES} engines (NF4, one core each), max_loras = {SLOTS}, max_cpu_loras = {CACHE}, {ADAPTERS} "
        f"adapters of rank 8, of which each engine is the home of about half. {CLIENTS} clients ask again as "
        f"soon as they were answered, uniformly over the adapters, {TOKENS} tokens each, every second one "
        "not streamed. Now one engine, now the other is killed with all its processes (SIGKILL), and the "
        "next kill waits until it serves again. Ready is its first /health with 200, asked for every 20 ms.",
    )
    settings = {
        "HOTSWAP_ENGINE__COUNT": str(ENGINES),
        "HOTSWAP_ENGINE__MAX_LORAS": str(SLOTS),
        "HOTSWAP_ENGINE__MAX_CPU_LORAS": str(CACHE),
        **WITH_KEY,
    }
    with House(folder / "house", base, settings) as house:
        for number, path in enumerate(variants(base, folder / "adapters", ADAPTERS)):
            house.add(f"adapter-{number}", path)
        house_engines(house)
        kills, samples = asyncio.run(_load_and_kill(house))
    _judge_answers(result, kills, samples)
    _judge_recovery(result, kills)
    return result


async def _load_and_kill(house: House) -> tuple[list[Kill], list[Sample]]:
    began, kills = time.monotonic(), []
    async with crowd(_plan(), [Target(house.url, house.key)], CLIENTS, whole_every=2) as seen:
        await asyncio.sleep(QUIET_S)
        for number in range(KILLS):
            if time.monotonic() - began > LIMIT_S:
                print(f"  no time for more than {number} kills", flush=True)
                break
            before = len(seen.samples)
            kills.append(await _kill(house, f"local-{number % ENGINES + 1}", seen))
            await asyncio.sleep(QUIET_S)
            print(
                f"  {time.monotonic() - began:4.0f} s  {kills[-1].engine} killed, ready after "
                f"{kills[-1].ready - kills[-1].at:.1f} s, {len(kills[-1].loads_ms)} adapters recovered "
                f"{kills[-1].recovery_s:.2f} s later; since the kill {_kinds(seen.samples[before:])}",
                flush=True,
            )
    return kills, seen.samples


async def _kill(house: House, name: str, seen: Crowd) -> Kill:
    victim = await asyncio.to_thread(_engine, house, name)
    last = await asyncio.to_thread(_last_event, house)
    in_flight, at = seen.in_flight, time.time()
    for process in _family(victim["pid"]):
        process.kill()
    return await asyncio.to_thread(_recovery, house, victim, last, in_flight, at)


def _recovery(house: House, victim: dict[str, Any], last: int, in_flight: int, at: float) -> Kill:
    """Blocks until the engine is back, with all its adapters."""
    name = victim["engine"]
    url = wait_for(f"{name} starts again", lambda: _new_url(house, victim), 60, 0.1)
    ready = wait_for(f"{name} is healthy", lambda: _healthy_at(url), READY_WITHIN_S, 0.02)
    event: Callable[[], Any] = lambda: _recovered(house, name, last)  # noqa: E731
    recovered = wait_for(f"{name} has recovered", event, 120, 0.2)
    loads = [
        float(took[1])
        for event in _events(house, last)
        if event["kind"] == "loaded" and event["engine"] == name and event["at"] <= recovered["at"]
        and (took := re.search(r"took (\d+) ms", event["reason"]))
    ]  # fmt: skip
    return Kill(name, at, in_flight, ready, recovered["at"], tuple(loads))


def _engine(house: House, name: str) -> dict[str, Any]:
    return next(engine for engine in house.fleet() if engine["engine"] == name)


def _new_url(house: House, victim: dict[str, Any]) -> str | None:
    now = _engine(house, victim["engine"])
    return str(now["url"]) if now["pid"] not in (None, victim["pid"]) else None


def _healthy_at(url: str) -> float | None:
    return time.time() if healthy(url) else None


def _recovered(house: House, name: str, last: int) -> dict[str, Any] | None:
    found = (event for event in _events(house, last) if event["kind"] == "recovered")
    return next((event for event in found if event["engine"] == name), None)


def _events(house: House, since: int) -> list[dict[str, Any]]:
    answer = httpx.get(
        f"{house.url}/admin/v1/fleet/events", params={"since": since}, headers=house.headers, timeout=30
    )
    answer.raise_for_status()
    events: list[dict[str, Any]] = answer.json()["data"]
    return events


def _last_event(house: House) -> int:
    return max((int(event["id"]) for event in _events(house, 0)), default=0)


def _family(pid: int) -> list[psutil.Process]:
    """The server, its engine core and its worker."""
    server = psutil.Process(pid)
    return [server, *server.children(recursive=True)]


def _plan() -> Plan:
    requests = int(LIMIT_S * 40)
    return plan(
        parse(
            {
                "name": "engine lost",
                "seconds": LIMIT_S,
                "arrivals": {"kind": "closed", "concurrency": CLIENTS, "requests": requests},
                "routes": {"mix": "zipf", "count": ADAPTERS, "s": 0.0},
                "prompts": {"kind": "lengths", "tokens": {"kind": "fixed", "value": PROMPT}},
                "output": {"kind": "fixed", "value": TOKENS},
                "ignore_eos": True,
            },
            "engine lost",
        )
    )


def _judge_answers(result: Result, kills: Sequence[Kill], samples: Sequence[Sample]) -> None:
    whole = [sample for sample in samples if sample.phase == WHOLE]
    streams = [sample for sample in samples if sample.phase == STREAMED]
    begun = [sample for sample in streams if sample.status == 200]
    broken = [sample for sample in begun if sample.outcome not in ANSWERED]
    refused = [sample for sample in streams if sample.status != 200]
    result.figure("kills, requests in flight at each", f"{len(kills)}, {[kill.in_flight for kill in kills]}")
    result.figure("not streamed", _kinds(whole))
    result.figure("streamed", _kinds(streams))
    for kind, said in _said(samples):
        result.figure(f"said: {kind}", said)
    result.must(
        "no failed non-streaming request",
        all(sample.outcome in ANSWERED for sample in whole) and bool(whole),
        f"{sum(sample.outcome not in ANSWERED for sample in whole)} of {len(whole)}",
    )
    result.must(
        "streams that had begun end with an OpenAI error event, not silence",
        bool(broken) and all(sample.outcome is Outcome.ERROR_BODY for sample in broken),
        f"{len(broken)} of {len(begun)} broke: {_kinds(broken)}",
    )
    result.must(
        "no stream failed that had not begun",
        not refused,
        f"{len(refused)} of {len(streams)} {_kinds(refused)}",
    )


def _judge_recovery(result: Result, kills: Sequence[Kill]) -> None:
    loads = [took / 1e3 for kill in kills for took in kill.loads_ms] or [0.0]
    load_s = sum(loads) / len(loads)
    result.figure("one load, by the gateway: mean", f"{load_s * 1e3:.0f} ms")
    result.figure("one load: p50 / p90 / p99 / max", spread(loads))
    result.figure(
        "seconds from the kill until the new engine is ready",
        ", ".join(f"{kill.ready - kill.at:.1f}" for kill in kills),
    )
    shown = [
        f"{len(kill.loads_ms)} in {kill.recovery_s:.2f} s (≤ {_allowed(kill, load_s):.2f})" for kill in kills
    ]
    result.must(
        "n adapters recovered < n x load time + 1 s after the engine is ready",
        all(kill.loads_ms and kill.recovery_s < _allowed(kill, load_s) for kill in kills),
        "; ".join(shown),
    )


def _allowed(kill: Kill, load_s: float) -> float:
    return len(kill.loads_ms) * load_s + RECOVERY_SLACK_S


def _kinds(samples: Sequence[Sample]) -> str:
    counts = Counter(str(Outcome.OK if sample.outcome in ANSWERED else sample.outcome) for sample in samples)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "none"


def _said(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """What each kind of failure said most often."""
    said: dict[str, Counter[str]] = {}
    for sample in samples:
        if sample.outcome not in ANSWERED:
            said.setdefault(str(sample.outcome), Counter())[sample.detail] += 1
    return [(kind, f"{words.most_common(1)[0][0]} ({len(words)} wordings)") for kind, words in said.items()]
