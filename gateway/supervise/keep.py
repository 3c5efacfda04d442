"""A child that runs for as long as we do, however often it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.supervise.backoff import Backoff
from gateway.supervise.child import Child


async def keep(
    make: Callable[[], Child], tell: Callable[[str], None], backoff: Backoff | None = None
) -> None:
    """Runs what `make` makes, again whenever it ends, until cancelled; `tell` hears of every end."""
    backoff = backoff or Backoff()
    while True:
        child = make()
        began = time.monotonic()
        reason = await _once(child)
        wait_s = backoff.next_s(time.monotonic() - began)
        tell(f"{child.name} {reason} (log: {child.log_path}); next try in {wait_s:.1f} s")
        await asyncio.sleep(wait_s)


async def _once(child: Child) -> str:
    """One life; how it ended. A machine that cannot start it now may later."""
    try:
        await child.start()
    except OSError as error:
        return f"cannot be started: {error}"
    try:
        return f"ended with status {await child.wait()}"
    finally:
        await child.stop()
