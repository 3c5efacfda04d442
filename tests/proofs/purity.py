"""No answer by another version, none by the base, and base answers untouched by the adapters beside them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.house import House
from tests.proofs.adapters import train_markers
from tests.proofs.result import Result
from tests.proofs.swap import house_base
from tests.proofs.traffic import Answer, ask, at_once, client

MARKERS = {"alpha": "ALPHA-7", "bravo": "BRAVO-3", "carol": "CAROL-9", "delta": "DELTA-5"}
REQUESTS, BASE_PROMPTS = 2000, 100
REQUESTS_OFF, BASE_PROMPTS_OFF = 300, 40
CONCURRENCY, TOKENS = 16, 16


@dataclass(frozen=True)
class Count:
    requests: int
    failed: int
    wrong_marker: int
    wrong_model: int
    base_marked: int
    beside_base_differs_from_alone: int
    beside_adapters_differs_from_beside_base: int


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "purity",
        "Base and 4 adapters, each trained to answer with its own marker, interleaved at concurrency 16; "
        "then the same with our plugin switched off, where the same checks fail.",
    )
    adapters = train_markers(base, folder / "adapters", MARKERS)
    with _house(folder / "on", base, plugin=True) as house:
        with_plugin = asyncio.run(_measure(house, adapters, REQUESTS, BASE_PROMPTS))
    with _house(folder / "off", base, plugin=False) as house:
        without = asyncio.run(_measure(house, adapters, REQUESTS_OFF, BASE_PROMPTS_OFF))
    for name, count in (("plugin on", with_plugin), ("plugin off", without)):
        result.figure(name, count)
    result.must(
        f"{REQUESTS} answers: each carries its version's marker and its exact version in `model`",
        with_plugin.failed
        == with_plugin.wrong_marker
        == with_plugin.wrong_model
        == with_plugin.base_marked
        == 0,
        f"{with_plugin.failed} failed, {with_plugin.wrong_marker} without their marker, "
        f"{with_plugin.wrong_model} with another model, {with_plugin.base_marked} base answers with a marker",
    )
    result.must(
        "base beside adapters differs from base beside base in no more cases than that differs from alone",
        _as_pure(with_plugin),
        f"{with_plugin.beside_adapters_differs_from_beside_base} against "
        f"{with_plugin.beside_base_differs_from_alone} of {BASE_PROMPTS} prompts",
    )
    result.must(
        "the check fails when the plugin is switched off",
        not _as_pure(without) or without.base_marked > 0,
        f"{without.base_marked} base answers with a marker; base beside adapters differs in "
        f"{without.beside_adapters_differs_from_beside_base} of {BASE_PROMPTS_OFF}, beside base in "
        f"{without.beside_base_differs_from_alone}",
    )
    return result


def _as_pure(count: Count) -> bool:
    return count.beside_adapters_differs_from_beside_base <= count.beside_base_differs_from_alone


def _house(folder: Path, base: Path, plugin: bool) -> House:
    settings = {
        "HOTSWAP_ENGINE__PLUGIN": str(plugin).lower(),
        "HOTSWAP_FLEET__REQUIRE_PLUGIN": str(plugin).lower(),
        "HOTSWAP_ENGINE__MAX_LORAS": "4",  # every slot is filled, the last one too
    }
    return House(folder, base, settings)


async def _measure(house: House, adapters: dict[str, Path], requests: int, base_prompts: int) -> Count:
    names = {name: house.add(name, path)["name"] for name, path in adapters.items()}
    base = house_base(house)
    dice = random.Random(7)
    async with client(house.url, house.key) as http:
        prompts = [f"Tell me one thing about the number {number}." for number in range(base_prompts)]
        for name in names:
            await ask(http, name, "Hello")
        alone = [await ask(http, base, prompt, TOKENS) for prompt in prompts]
        beside_base = await at_once(CONCURRENCY, [ask(http, base, prompt, TOKENS) for prompt in prompts])
        beside_adapters = await _beside(http, base, prompts, list(names), dice)
        targets = [dice.choice([base, *names]) for _ in range(requests)]
        answers = await at_once(
            CONCURRENCY,
            [
                ask(http, target, f"Question {index}: what is new?", TOKENS)
                for index, target in enumerate(targets)
            ],
        )
    paired = list(zip(targets, answers, strict=True))
    failed = [answer for _, answer in paired if answer.status != 200]
    for answer in failed[:3]:
        print(f"  failed: {answer.status} {answer.error[:200]}", flush=True)
    return Count(
        requests=requests,
        failed=len(failed),
        wrong_marker=sum(t != base and MARKERS[t] not in a.text for t, a in paired),
        wrong_model=sum(a.model != names.get(t, base) for t, a in paired),
        base_marked=sum(t == base and _marked(a) for t, a in paired) + sum(map(_marked, beside_adapters)),
        beside_base_differs_from_alone=_differ(alone, beside_base),
        beside_adapters_differs_from_beside_base=_differ(beside_base, beside_adapters),
    )


async def _beside(
    http: httpx.AsyncClient, base: str, prompts: list[str], names: list[str], dice: random.Random
) -> list[Answer]:
    """The base prompts again, each batch shared with as many adapter requests."""
    jobs, places = [], []
    for prompt in prompts:
        places.append(len(jobs))
        jobs.append(ask(http, base, prompt, TOKENS))
        jobs.append(ask(http, dice.choice(names), prompt, TOKENS))
    answers = await at_once(CONCURRENCY, jobs)
    return [answers[place] for place in places]


def _marked(answer: Answer) -> bool:
    return any(marker in answer.text for marker in MARKERS.values())


def _differ(one: list[Answer], other: list[Answer]) -> int:
    return sum(a.text != b.text for a, b in zip(one, other, strict=True))
