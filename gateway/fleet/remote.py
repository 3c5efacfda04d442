"""An engine that somebody else runs: found by its address, watched, and never started or stopped by us."""

from __future__ import annotations

import asyncio

from gateway.fleet.client import Address, Lost
from gateway.fleet.engine import Engine, Rebooted, Unfit

UNFIT_POLL_S = 5.0
"""An unfit engine only becomes fit by being started anew, which takes longer than this."""


async def watch(engine: Engine, address: Address, again_in_s: float) -> None:
    """Serves from the engine whenever it is there and fit, until cancelled."""
    while True:
        engine.starting(address, pid=None)
        try:
            await engine.serve(address, give_up_after_s=None)
        except Rebooted as error:
            engine.down(str(error), 0.0)
        except Lost as error:
            engine.down(str(error), again_in_s)
            await asyncio.sleep(again_in_s)
        except Unfit as error:
            engine.down(str(error), UNFIT_POLL_S)
            await asyncio.sleep(UNFIT_POLL_S)
