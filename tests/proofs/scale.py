"""10,000 registered versions: what they cost the gateway, its streams, its memory; how long a cold one takes.

They are registered once, for real, and then served twice from the same state: before a fake engine, whose
steps are even, and before vLLM.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx

from adapters.base.manifest import BaseManifest
from gateway.settings import Settings
from tests.fakes import Fake, before
from tests.house import House
from tests.proofs import lookup
from tests.proofs.adapters import variants
from tests.proofs.crowd import Link, register, smallest, tars
from tests.proofs.result import Result, median, percentile, spread
from tests.proofs.swap import house_base
from tests.proofs.traffic import client
from tests.proofs.underload import STREAMS, Background, cold_then_warm, first, idle_costs
from tests.proofs.watched import Watched

VERSIONS = int(os.environ.get("SCALE_VERSIONS", "10000"))
COLD = int(os.environ.get("SCALE_COLD", "200"))
EACH = 2
ROUNDS, SETTLE_S = 30, 0.7
ASKED, TURNS, TURN = 64, 10, 100
IDLE = 20
STALL_S = 0.020
"""More than this, on top of what streams show anyway, is a stall."""
KEEP = {"HOTSWAP_REGISTRY__KEEP_VERSIONS": str(COLD + IDLE + 100)}


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "scale",
        f"{VERSIONS:,} versions ({VERSIONS // EACH:,} adapters x {EACH}) registered over the admin API, real "
        f"Postgres. First before fake engines, then before vLLM with {STREAMS} background streams, where "
        f"{COLD} versions that were never loaded are asked twice. Times are p50 / p90 / p99 / max.",
    )
    name = Settings().base.name
    with Fake() as one, Fake(key=one.key) as other:
        costs = asyncio.run(lookup.measure([one, other], VERSIONS // EACH, EACH))
        _lookups(result, costs)
    with Fake(name) as crowded, Fake(name) as alone:
        house = House(folder / "house", base, before([crowded], name, **KEEP))
        with house, House(folder / "lone", base, before([alone], name)) as lone:
            _fill(house, folder, base, result)
            _beside(house, folder, base, name, result)
            for fake in (crowded, alone):
                fake.faults(token_delay_s=0)
            _added(house, lone, folder, base, result)
        result.figure("start with all of them registered", f"{house.start():.1f} s")
        _memory(house, "after a start", result)
        house.stop()
    with House(folder / "house", base, KEEP) as real:
        asyncio.run(_cold(real, folder, base, result))
        _memory(real, "before vLLM, at the end", result)
    return result


def _lookups(result: Result, costs: lookup.Costs) -> None:
    shown = ", ".join(f"{cost * 1e6:.1f}" for cost in costs.warm)
    result.figure("one look-up (resolve, lease, release), CPU time, by round", f"{shown} µs")
    result.figure("the same when homes must be found anew", f"{costs.fresh * 1e6:.1f} µs")
    worst = max(*costs.warm, costs.fresh)
    result.must("routing look-up < 20 µs, the slowest round", worst < 20e-6, f"{worst * 1e6:.1f} µs")


def _fill(house: House, folder: Path, base: Path, result: Result) -> None:
    names = [f"crowd-{number % (VERSIONS // EACH):05d}" for number in range(VERSIONS)]
    began = time.monotonic()
    taken = register(house, BaseManifest.read(base), folder / "crowd", names)
    result.figure(f"registering {VERSIONS:,} versions", f"{time.monotonic() - began:.0f} s")
    result.figure("registering one, 4 at once", spread(taken))
    _memory(house, "after registering all", result)


def _beside(house: House, folder: Path, base: Path, name: str, result: Result) -> None:
    """What one stream feels of one more registration, and of a listing of everything."""
    more = tars(smallest(BaseManifest.read(base)), folder / "more", range(VERSIONS, VERSIONS + ROUNDS))
    quiet: list[float] = []
    registering: list[float] = []
    listing: list[float] = []
    taken: list[float] = []
    size = 0
    link = Link(house)

    def models() -> None:
        nonlocal size
        began = time.monotonic()
        status, body = link.send("GET", "/v1/models")
        taken.append(time.monotonic() - began)
        assert status == 200
        size = len(body)

    def one_more() -> None:
        status, answer = link.send("POST", "/admin/v1/adapters/one-more/versions", next(more))
        assert status == 201, answer

    with Watched(house.url, house.key, name) as stream:
        for _ in range(ROUNDS):
            for gaps, work in ((quiet, None), (registering, one_more), (listing, models), (listing, models)):
                began = time.monotonic()
                if work is not None:
                    work()
                time.sleep(SETTLE_S)
                gaps.append(stream.longest_gap_s(began, time.monotonic()))
    assert stream.failure is None, stream.failure
    result.figure("GET /v1/models", f"{spread(taken, scale=1e3)}, {size / 1e6:.1f} MB")
    p99 = percentile(taken, 0.99)
    result.must("/v1/models < 200 ms (p99)", p99 < 0.2, f"{p99 * 1e3:.0f} ms")
    result.figure("longest gap of a stream within 0.7 s, nothing else happens", spread(quiet))
    for what, gaps in (("one more version is registered", registering), ("all models are listed", listing)):
        result.figure(f"longest gap while {what}", spread(gaps))
        stall = median(gaps) - median(quiet)
        result.must(
            f"a stream stalls for less than 20 ms while {what} (median over quiet)",
            stall < STALL_S,
            f"{stall * 1e3:.1f} ms",
        )


def _added(house: House, lone: House, folder: Path, base: Path, result: Result) -> None:
    """Latency over random names of thousands, against a gateway that has one; turn by turn."""
    [content] = tars(smallest(BaseManifest.read(base)), folder / "only", [0])
    status, answer = Link(lone).send("POST", "/admin/v1/adapters/only/versions", content)
    assert status == 201, answer
    dice = random.Random(3)
    chosen = [f"crowd-{number:05d}" for number in dice.sample(range(VERSIONS // EACH), ASKED)]
    among, one = [], []
    with _client(house) as crowded, _client(lone) as alone:
        _ask(crowded, chosen)
        for _ in range(TURNS):
            among += _ask(crowded, [dice.choice(chosen) for _ in range(TURN)])
            one += _ask(alone, ["only"] * TURN)
    added = median(among) - median(one)
    result.figure(f"a whole request, {ASKED} random names of all", spread(among, "µs", 1e6))
    result.figure("a whole request, one route", spread(one, "µs", 1e6))
    result.must("many names add less than 0.2 ms (medians)", added < 200e-6, f"{added * 1e6:.0f} µs")


def _client(house: House) -> httpx.Client:
    return httpx.Client(base_url=house.url, headers=house.headers, timeout=60)


def _ask(http: httpx.Client, names: list[str]) -> list[float]:
    taken = []
    for name in names:
        body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        began = time.monotonic()
        answer = http.post("/v1/chat/completions", json=body)
        taken.append(time.monotonic() - began)
        assert answer.status_code == 200, answer.text
    return taken


async def _cold(house: House, folder: Path, base: Path, result: Result) -> None:
    fresh = variants(base, folder / "variants", 2 + IDLE + COLD)
    resident = _add(house, "resident", next(fresh))
    _add(house, "cold", next(fresh))  # the first of a route may be loaded at once, those after it are not
    names = [_add(house, "cold", each) for each in fresh]
    random.Random(4).shuffle(names)
    async with client(house.url, house.key) as http:
        await first(http, resident)
        costs = await idle_costs(http, _each(names[:IDLE]))
        models = [house_base(house), resident]
        async with Background(http, models) as quiet:
            await asyncio.sleep(30)
        step = median(quiet.gaps)
        cold: list[float] = []
        warm: list[float] = []
        failures = 0
        async with Background(http, models) as busy:
            for name in names[IDLE:]:
                failures += await cold_then_warm(http, name, cold, warm)
        failures += busy.failures + quiet.failures
    result.figure("first token of a cold version", spread(cold))
    result.figure("first token, warm, under the same load", spread(warm))
    result.figure("one load (cold minus warm, idle engine, medians of 20)", f"{costs.load * 1e3:.0f} ms")
    result.figure("one engine step (median gap of the background streams)", f"{step * 1e3:.0f} ms")
    result.figure(
        "background gaps, without and with cold versions", f"{spread(quiet.gaps)}, {spread(busy.gaps)}"
    )
    bound = percentile(warm, 0.95) + costs.load + step
    result.must(
        "a cold version's TTFT p95 ≤ warm p95 under the same load + one load + one step",
        percentile(cold, 0.95) <= bound,
        f"{percentile(cold, 0.95) * 1e3:.0f} ms against {bound * 1e3:.0f} ms "
        f"({percentile(warm, 0.95) * 1e3:.0f} + {costs.load * 1e3:.0f} + {step * 1e3:.0f})",
    )
    result.must("no failed request", failures == 0, f"{failures} of {2 * COLD} and {busy.done} streams")


def _add(house: House, name: str, made: Path) -> str:
    added: str = house.add(name, made)["name"]
    shutil.rmtree(made)
    return added


async def _each(names: list[str]) -> AsyncIterator[str]:
    for name in names:
        yield name


def _memory(house: House, when: str, result: Result) -> None:
    """The most that the gateway's process ever had, and what it has."""
    assert house.process is not None
    told = dict(_status(house.process.pid))
    most, now = (int(told[key].split()[0]) * 1024 / 1e6 for key in ("VmHWM", "VmRSS"))
    result.must(f"gateway RSS < 300 MB {when}", most < 300, f"{most:.0f} MB at most, {now:.0f} MB now")


def _status(pid: int) -> Iterator[tuple[str, str]]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        yield key, value.strip()
