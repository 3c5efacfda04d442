"""Time from a freshly registered version to its first token, under load, 100 times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from tests.house import House
from tests.proofs.adapters import variants
from tests.proofs.result import Result, median, percentile, spread
from tests.proofs.traffic import client, stream
from tests.proofs.underload import PROMPT, STREAMS, Background, cold_then_warm, idle_costs

SWAPS = 100


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "swap",
        f"{SWAPS} times, under {STREAMS} background streams (half base, half adapter): register a new "
        "version, then time its first request to the first token. p50 / p90 / p99 / max.",
    )
    house = House(folder / "house", base, {"HOTSWAP_REGISTRY__KEEP_VERSIONS": "1000"})
    with house:
        asyncio.run(_measure(house, folder, base, result))
    return result


async def _measure(house: House, folder: Path, base: Path, result: Result) -> None:
    fresh = variants(base, folder / "variants", SWAPS + 25)
    resident = house.add("resident", next(fresh))["name"]
    async with client(house.url, house.key) as http:
        await stream(http, resident, PROMPT)

        async def idle() -> AsyncIterator[str]:
            for _ in range(20):
                yield (await asyncio.to_thread(house.add, "idle", next(fresh)))["name"]

        costs = await idle_costs(http, idle())
        load, prefill = costs.load, costs.prefill

        async with Background(http, [house_base(house), resident]) as quiet:
            await asyncio.sleep(30)
        quiet_gaps = quiet.gaps
        step = median(quiet_gaps)

        cold: list[float] = []
        warm: list[float] = []
        registering, failures = [], 0
        async with Background(http, [house_base(house), resident]) as busy:
            for _ in range(SWAPS):
                began = time.monotonic()
                name = (await asyncio.to_thread(house.add, "swap", next(fresh)))["name"]
                registering.append(time.monotonic() - began)
                failures += await cold_then_warm(http, name, cold, warm)
        failures += busy.failures + quiet.failures

    bound = median(warm) + load + step
    result.figure("first token of a new version", spread(cold))
    result.figure("first token, warm, under the same load", spread(warm))
    result.figure("registering (upload, preflight, store, database)", spread(registering))
    result.figure("one load (cold minus warm, idle engine, medians of 20)", f"{load * 1e3:.0f} ms")
    result.figure("one prefill (warm first token, idle engine, median)", f"{prefill * 1e3:.0f} ms")
    result.figure("one engine step (median gap of the background streams)", f"{step * 1e3:.0f} ms")
    result.figure("background gaps, no swaps", spread(quiet_gaps))
    result.figure("background gaps, swapping", spread(busy.gaps))
    result.must(
        "p50 ≤ warm first token under the same load + one load + one engine step",
        percentile(cold, 0.5) <= bound,
        f"{percentile(cold, 0.5) * 1e3:.0f} ms against {bound * 1e3:.0f} ms",
    )
    result.must(
        "p99 ≤ twice that",
        percentile(cold, 0.99) <= 2 * bound,
        f"{percentile(cold, 0.99) * 1e3:.0f} ms against {2 * bound * 1e3:.0f} ms",
    )
    result.must("no failed request", failures == 0, f"{failures} of {2 * SWAPS} and {busy.done} streams")
    allowed = percentile(quiet_gaps, 0.99) + load + prefill
    result.must(
        "background streams' p99 gap ≤ p99 without swaps + one load + one prefill",
        percentile(busy.gaps, 0.99) <= allowed,
        f"{percentile(busy.gaps, 0.99) * 1e3:.0f} ms against {allowed * 1e3:.0f} ms",
    )


def house_base(house: House) -> str:
    models = httpx.get(house.url + "/v1/models", headers=house.headers).json()["data"]
    return str(next(model["id"] for model in models if model["root"] is None))
