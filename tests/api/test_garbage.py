"""What a request leaves behind: nothing that only the collector could free."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections import Counter

import pytest

from tests.api.conftest import Service


def left_behind() -> Counter[str]:
    """Objects of ours that nothing reaches any more, and that reach each other."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        found = Counter(type(each).__name__ for each in gc.garbage if "gateway" in type(each).__module__)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_over_is_freed_at_once(service: Service, stream: bool) -> None:
    """Those in flight at a pass of the collector grow old, and the old are looked at once in hours."""
    await service.chat(stream=stream, max_tokens=3)
    service.ended.clear()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await service.chat(stream=stream, max_tokens=3)
        service.ended.clear()
        await asyncio.sleep(0.01)
        assert left_behind() == Counter()
    finally:
        gc.enable()


def test_the_old_generation_is_looked_at_though_the_start_left_much() -> None:
    """In a process of its own: the collector's counters are the process's."""
    program = """
import gc
from gateway.memory import settle_heap
start = [[] for _ in range(400_000)]
settle_heap()
before = gc.get_stats()[2]["collections"]
for _ in range(200_000):
    one, other = [], []
    one.append(other)
    other.append(one)
print(gc.get_stats()[2]["collections"] - before, gc.get_freeze_count() > 400_000)
"""
    words = [sys.executable, "-c", program]
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert int(said[0]) >= 1 and said[1] == "True"
