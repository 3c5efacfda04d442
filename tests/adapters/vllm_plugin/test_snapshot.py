"""How often the engine loop is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.vllm_plugin.snapshot import FRESH_S, Snapshot


class Workers:
    def __init__(self) -> None:
        self.now = 10.0
        self.asked = 0
        self.takes_s = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.snapshot = Snapshot(self.ask, lambda: self.now)

    async def ask(self) -> dict[str, Any]:
        self.asked += 1
        number = self.asked
        await self.gate.wait()
        self.now += self.takes_s
        return {"number": number}


async def test_an_answer_is_given_again_while_it_is_fresh():
    workers = Workers()
    await workers.snapshot.get()
    workers.now += 0.9 * FRESH_S
    assert {"number": 1} == await workers.snapshot.get()
    workers.now += 0.2 * FRESH_S
    assert {"number": 2} == await workers.snapshot.get()


async def test_after_a_change_the_old_answer_is_not_given():
    workers = Workers()
    await workers.snapshot.get()
    workers.snapshot.stale()
    assert {"number": 2} == await workers.snapshot.get()
    assert {"number": 2} == await workers.snapshot.get()


async def test_a_change_during_a_question_makes_its_answer_old():
    workers = Workers()
    workers.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(workers.snapshot.get())
        await asyncio.sleep(0)
        workers.snapshot.stale()
        late = group.create_task(workers.snapshot.get())
        workers.gate.set()
    assert {"number": 2} == late.result()


async def test_however_many_wait_for_a_slow_engine_it_is_asked_once_more():
    workers = Workers()
    workers.takes_s = 3.0
    workers.gate.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(workers.snapshot.get())
        await asyncio.sleep(0)
        workers.now += 3.0
        others = [group.create_task(workers.snapshot.get()) for _ in range(20)]
        await asyncio.sleep(0)
        workers.gate.set()
    assert {"number": 1} == first.result()
    assert [{"number": 2}] * 20 == [other.result() for other in others]


async def test_a_failure_is_told_and_not_kept():
    workers = Workers()
    ask = workers.ask

    async def fail() -> dict[str, Any]:
        raise RuntimeError("no worker")

    workers.snapshot._ask = fail
    with pytest.raises(RuntimeError, match="no worker"):
        await workers.snapshot.get()
    workers.snapshot._ask = ask
    assert {"number": 1} == await workers.snapshot.get()


async def test_one_who_leaves_while_waiting_leaves_the_others_their_answer():
    workers = Workers()
    workers.gate.clear()
    impatient = asyncio.ensure_future(workers.snapshot.get())
    await asyncio.sleep(0)
    patient = asyncio.ensure_future(workers.snapshot.get())
    await asyncio.sleep(0)
    impatient.cancel()
    workers.gate.set()
    assert {"number": 2} == await patient
