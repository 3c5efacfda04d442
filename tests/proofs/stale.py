"""1,000 swaps of one route, with the prefix cache on: every answer is by a version that it then had."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.house import House
from tests.proofs.adapters import train_markers
from tests.proofs.result import Result, percentile, spread
from tests.proofs.traffic import Answer, ask, client, stream

SWAPS = int(os.environ.get("STALE_SWAPS", "1000"))
EVERY_S, ROLLBACKS = 0.3, 0.15
CLIENTS, TOKENS = 8, 12
ROUTE = "swapped"
MARKERS = {
    "one": "ALPHA-7",
    "two": "BRAVO-3",
    "three": "CAROL-9",
    "four": "DELTA-5",
    "five": "ECHO-2",
    "six": "FOXTROT-8",
    "seven": "GOLF-4",
    "eight": "HOTEL-6",
}
SHARED = " ".join(
    f"Note {number}: whatever the house rule number {number} says, keep it in mind, and answer as ever."
    for number in range(1, 17)
)
"""What every prompt begins with: several blocks of the prefix cache."""
QUESTIONS = ("Who are you?", "Tell me about bees.", "What is 12 plus 30?", "Hello", "List three things.")


@dataclass
class Log:
    """What was stable when: a version from the moment that its promotion was sent at the earliest, until the
    answer to the next one was here at the latest. Times are monotonic seconds."""

    begun: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(self, name: str, begun: float, ended: float) -> None:
        self.names.append(name)
        self.begun.append(begun)
        self.ended.append(ended)

    def stable(self, begin: float, end: float) -> set[str]:
        """Every version that may have been stable at some moment between the two."""
        until = [*self.ended[1:], float("inf")]
        spans = zip(self.names, self.begun, until, strict=True)
        return {name for name, since, over in spans if since <= end and over >= begin}


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "stale",
        f"One route, {len(MARKERS)} versions that each answer with a marker of their own, {SWAPS:,} "
        f"promotions and rollbacks, while {CLIENTS} clients ask with the same long beginning, streaming and "
        "not, the prefix cache on. The version that an answer names must have been stable at some moment "
        "between the request and its first byte.",
    )
    adapters = train_markers(base, folder / "adapters", MARKERS)
    key = secrets.token_hex(16)
    settings = {
        "HOTSWAP_ENGINE__API_KEY_ENV": "STALE_ENGINE_KEY",
        "STALE_ENGINE_KEY": key,
        "HOTSWAP_REGISTRY__KEEP_VERSIONS": str(len(MARKERS) + 1),
    }
    with House(folder / "house", base, settings) as house:
        versions = {house.add(ROUTE, adapters[name])["name"]: marker for name, marker in MARKERS.items()}
        asyncio.run(_measure(house, versions, result))
        _prefix_cache(house, key, result)
    return result


async def _measure(house: House, versions: Mapping[str, str], result: Result) -> None:
    names = list(versions)
    answers: list[Answer] = []
    log = Log()
    over = asyncio.Event()
    async with client(house.url, house.key) as http:
        unmarked = await _unmarked(http, versions)
        began = time.monotonic()
        for name in (names[1], names[0]):  # so that there is one to go back to
            await _swap(http, log, f"adapters/{name}/promote?force=true")
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(_keep_asking(http, number, answers, over))
            refused = await _swaps(http, log, names)
            over.set()
        took = time.monotonic() - began
    _judge(result, versions, answers, log, refused)
    result.must(
        "every version answers with its marker when it is asked alone", not unmarked, unmarked or "yes"
    )
    result.figure("swaps", f"{len(log.names):,} in {took:.0f} s")
    result.figure("one swap (the call)", spread([e - b for b, e in zip(log.begun, log.ended, strict=True)]))


async def _unmarked(http: httpx.AsyncClient, versions: Mapping[str, str]) -> list[str]:
    wrong = []
    for name, marker in versions.items():
        for question in QUESTIONS:
            answer = await ask(http, name, f"{SHARED}\n{question}", TOKENS)
            if marker not in answer.text:
                wrong.append(f"{name}: {answer.status} {answer.text!r}")
    return wrong


async def _swaps(http: httpx.AsyncClient, log: Log, names: Sequence[str]) -> int:
    """`SWAPS` of them, at even times as far as they are done in time; how many were refused."""
    dice, refused = random.Random(5), 0
    due = time.monotonic()
    for _ in range(SWAPS):
        due += EVERY_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if dice.random() < ROLLBACKS:
            done = await _swap(http, log, f"adapters/{ROUTE}/rollback")
        else:
            other = dice.choice([name for name in names if name != log.names[-1]])
            done = await _swap(http, log, f"adapters/{other}/promote?force=true")
        refused += not done
    return refused


async def _swap(http: httpx.AsyncClient, log: Log, path: str) -> bool:
    begun = time.monotonic()
    answer = await http.post(f"/admin/v1/{path}")
    if answer.status_code != 200:
        print(f"  refused: {path}: {answer.text[:200]}", flush=True)
        return False
    log.add(answer.json()["name"], begun, time.monotonic())
    return True


async def _keep_asking(
    http: httpx.AsyncClient, number: int, answers: list[Answer], over: asyncio.Event
) -> None:
    dice = random.Random(number)
    how = stream if number % 2 else ask
    while not over.is_set():
        answers.append(await how(http, ROUTE, f"{SHARED}\n{dice.choice(QUESTIONS)}", TOKENS))


def _judge(
    result: Result, versions: Mapping[str, str], answers: Sequence[Answer], log: Log, refused: int
) -> None:
    failed = [answer for answer in answers if answer.status != 200 or answer.error or not answer.chunks]
    whole = [answer for answer in answers if answer.status == 200 and not answer.error and answer.chunks]
    wrong = [answer for answer in whole if not _is_by(answer, versions)]
    stale = [answer for answer in whole if answer.model not in log.stable(answer.sent, answer.chunks[0])]
    for what, listed in (("failed", failed), ("wrong", wrong), ("stale", stale)):
        for answer in listed[:3]:
            print(
                f"  {what}: {answer.status} {answer.model} {answer.text!r} {answer.error[:200]}", flush=True
            )
    counted = Counter(answer.model for answer in whole)
    result.figure("answers by version, fewest and most", f"{min(counted.values())}, {max(counted.values())}")
    result.figure("first byte of an answer", spread([answer.first_token_s for answer in whole]))
    possible = [len(log.stable(answer.sent, answer.chunks[0])) for answer in whole]
    result.figure(
        f"versions of {len(versions)} that an answer could be by, p50 and p99",
        f"{percentile(possible, 0.5):.0f}, {percentile(possible, 0.99):.0f}",
    )
    result.must(
        f"{SWAPS:,} swaps: no answer by a version that was not stable between request and first byte",
        not stale and len(counted) == len(versions),
        f"{len(stale)} of {len(whole):,}, by {len(counted)} versions",
    )
    result.must(
        "each answer carries the marker of the version that it names, and no other",
        not wrong,
        f"{len(wrong)} do not",
    )
    result.must("no failed request", not failed, f"{len(failed)} of {len(answers):,}")
    result.must("no refused swap", not refused, refused)


def _is_by(answer: Answer, versions: Mapping[str, str]) -> bool:
    """Whether its text is by the version that its `model` names, and by no other."""
    seen = {name for name, marker in versions.items() if marker in answer.text}
    return seen == {answer.model}


def _prefix_cache(house: House, key: str, result: Result) -> None:
    url, headers = house.fleet()[0]["url"], {"authorization": f"Bearer {key}"}
    counts: Counter[str] = Counter()
    for line in httpx.get(f"{url}/metrics", headers=headers, timeout=30).text.splitlines():
        name, _, rest = line.partition("{")
        if name in ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"):
            counts[name.split("_")[2]] += int(float(rest.rpartition(" ")[2]))
    share = counts["hits"] / max(1, counts["queries"])
    result.must("the prefix cache was used", share > 0.2, f"{share:.0%} of all prompt tokens came from it")
