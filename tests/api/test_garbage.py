"""What a request leaves behind: nothing that only the collector could free."""

from __future__ import annotations

import asyncio
import gc
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
