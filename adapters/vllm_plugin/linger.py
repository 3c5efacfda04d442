"""After a load the engine waits a moment for the request that the load was for.

A request for a version that is not resident comes to the engine some milliseconds after its load has ended:
the answer has to reach the gateway first. By then an engine with other streams has begun its next step, and
the request waits for all of it, a tenth of a second on a CPU, though the load has held up those streams
anyway. So, when a load has ended, the engine's loop looks into its queue for at most `LINGER_S` more before
it goes on, and less when the request is there sooner.
"""

from __future__ import annotations

import functools
import time
from queue import Empty
from typing import Any

LINGER_S = 0.015
"""An HTTP answer, a request, its tokens and two hops between processes, on busy cores. Every load may cost
other streams this."""
_LOADED = "hotswap_loaded"


def install(core: type[Any], add: Any, clock: Any = time.monotonic) -> None:
    """Let `core` (vLLM's EngineCoreProc) linger. `add` is its kind of message that is a request
    (EngineCoreRequestType.ADD)."""
    load, process = core.add_lora, core._process_input_queue

    @functools.wraps(load)  # vLLM decodes what it is given by the types of its own parameters
    def add_lora(self: Any, *arguments: Any, **options: Any) -> Any:
        done = load(self, *arguments, **options)
        setattr(self, _LOADED, True)
        return done

    def _process_input_queue(self: Any) -> None:
        process(self)
        if getattr(self, _LOADED, False):
            setattr(self, _LOADED, False)
            _linger(self, add, clock)

    core.add_lora = add_lora
    core._process_input_queue = _process_input_queue


def _linger(core: Any, add: Any, clock: Any) -> None:
    until = clock() + LINGER_S
    while (left := until - clock()) > 0:
        try:
            kind, message = core.input_queue.get(timeout=left)
        except Empty:
            return
        core._handle_client_request(kind, message)
        if kind == add:
            until = 0.0
    while not core.input_queue.empty():
        core._handle_client_request(*core.input_queue.get_nowait())
