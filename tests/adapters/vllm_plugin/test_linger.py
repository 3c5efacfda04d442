"""After a load the engine's loop waits a moment for the request that the load was for, and no longer."""

from __future__ import annotations

import inspect
import threading
import time
from queue import Queue
from typing import Any

import pytest

from adapters.vllm_plugin import linger

ADD, UTILITY = "add", "utility"


def core_class() -> type[Any]:
    """What vLLM's EngineCoreProc does of it."""

    class Core:
        def __init__(self) -> None:
            self.input_queue: Queue[tuple[str, Any]] = Queue()
            self.handled: list[tuple[str, Any]] = []

        def add_lora(self, name: str) -> str:
            return f"loaded {name}"

        def _process_input_queue(self) -> None:
            while not self.input_queue.empty():
                self._handle_client_request(*self.input_queue.get_nowait())

        def _handle_client_request(self, kind: str, message: Any) -> None:
            self.handled.append((kind, message))
            if kind == UTILITY:
                self.handled.append(("done", self.add_lora(message)))

    return Core


@pytest.fixture
def core() -> Any:
    kind = core_class()
    linger.install(kind, ADD)
    return kind()


def turn(core: Any) -> float:
    """Seconds of one turn of the engine's loop before its step."""
    began = time.monotonic()
    core._process_input_queue()
    return time.monotonic() - began


def test_a_request_that_comes_soon_after_its_load_is_in_the_next_step(
    core: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linger, "LINGER_S", 5.0)
    core.input_queue.put((UTILITY, "support"))
    later = threading.Timer(0.05, lambda: core.input_queue.put((ADD, "request")))
    later.start()
    assert turn(core) < 4
    later.join()
    assert [(UTILITY, "support"), ("done", "loaded support"), (ADD, "request")] == core.handled


def test_the_wait_ends_when_nobody_comes(core: Any) -> None:
    core.input_queue.put((UTILITY, "support"))
    assert linger.LINGER_S <= turn(core) < 2


def test_without_a_load_nobody_waits(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linger, "LINGER_S", 60.0)
    core.input_queue.put((ADD, "request"))
    assert turn(core) < 30


def test_it_waits_once_for_a_load(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    core.input_queue.put((UTILITY, "support"))
    turn(core)
    monkeypatch.setattr(linger, "LINGER_S", 60.0)
    assert turn(core) < 30


def test_another_load_is_done_meanwhile(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linger, "LINGER_S", 0.3)
    core.input_queue.put((UTILITY, "one"))
    later = threading.Timer(0.02, lambda: core.input_queue.put((UTILITY, "two")))
    later.start()
    turn(core)
    later.join()
    assert ("done", "loaded two") in core.handled


def test_a_load_keeps_the_types_that_vllm_decodes_by() -> None:
    kind = core_class()
    before = inspect.signature(kind.add_lora)
    linger.install(kind, ADD)
    assert before == inspect.signature(kind.add_lora)


def test_vllm_has_what_this_stands_on() -> None:
    from vllm.v1.engine import EngineCoreRequestType
    from vllm.v1.engine.core import EngineCoreProc

    assert EngineCoreRequestType.ADD
    assert "self._handle_client_request(*req)" in inspect.getsource(EngineCoreProc._process_input_queue)
    assert hasattr(EngineCoreProc, "add_lora")
