"""The door before an engine's server. In process: an ASGI app behind it that a test holds open."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.vllm_plugin.admission import Admission
from adapters.vllm_plugin.answer import Answer
from adapters.vllm_plugin.door import Door

CHAT = "/v1/chat/completions"


class Behind:
    """The app behind the door: it notes what it got, and answers when it is let go."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.reached = asyncio.Event()
        self.awaited = 1
        self.go = asyncio.Event()
        self.go.set()
        self.fails = False

    def hold(self, more: int) -> None:
        """From now on nobody is answered; `reached` is set when `more` requests have come."""
        self.go.clear()
        self.reached.clear()
        self.awaited = len(self.bodies) + more

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.bodies.append(bytes(body))
        if len(self.bodies) == self.awaited:
            self.reached.set()
        if self.fails:
            raise RuntimeError("the app behind failed")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await self.go.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class House:
    def __init__(self, slots: int = 1, **door: Any) -> None:
        self.behind = Behind()
        self.admission = Admission(slots, apart=door.pop("apart", False))
        self.door = Door(self.behind, self.admission, is_base=lambda name: name == "base", **door)

    async def ask(
        self, body: Any = None, *, path: str = CHAT, header: str | None = None, method: str = "POST"
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of what comes out."""
        raw = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        half = len(raw) // 2
        parts = iter([(raw[:half], True), (raw[half:], False)])
        sent: list[Any] = []

        async def receive() -> Any:
            part, more = next(parts)
            return {"type": "http.request", "body": part, "more_body": more}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [] if header is None else [(b"x-hotswap-adapter", header.encode())]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        await self.door(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in sent[1:])
        said = json.loads(content) if content.startswith(b"{") else content
        return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, said

    @asynccontextmanager
    async def holding(self, *models: str):
        """One request of each model inside, until the `with` ends."""
        self.behind.hold(len(models))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.ask({"model": model})) for model in models]
            await self.behind.reached.wait()
            yield
            self.behind.go.set()
        assert [200] * len(models) == [task.result()[0] for task in tasks]


async def test_the_adapter_of_the_body_is_counted_and_the_body_arrives_whole():
    house = House()
    async with house.holding("a@1"):
        assert {"a@1": 1} == dict(house.admission.adapters)
    assert [b'{"model": "a@1"}'] == house.behind.bodies
    assert {} == dict(house.admission.adapters)


async def test_beyond_the_slots_a_request_is_told_not_now_and_never_seen_behind():
    house = House(slots=1)
    async with house.holding("a@1"):
        status, headers, said = await house.ask({"model": "b@2"})
        assert (503, "slots", "not_now") == (status, headers["x-hotswap-not-now"], said["error"]["code"])
        assert set(said["error"]) == {"message", "type", "param", "code"}
        assert 1 == len(house.behind.bodies)


async def test_the_base_enters_beside_full_slots():
    house = House(slots=1)
    async with house.holding("a@1", "base"):
        assert {"a@1": 1} == dict(house.admission.adapters)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/embeddings"])
async def test_every_generating_route_is_counted(path):
    house = House(slots=1)
    async with house.holding("a@1"):
        assert 503 == (await house.ask({"model": "b@2"}, path=path))[0]


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/v1/chat/completions/x", "/tokenize"])
async def test_other_routes_pass_when_all_slots_are_taken(path):
    house = House(slots=1)
    async with house.holding("a@1"):
        house.behind.go.set()
        assert 200 == (await house.ask({"model": "b@2"}, path=path))[0]


async def test_the_header_spares_the_door_the_body():
    house = House(slots=1)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body was read")

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [(b"x-hotswap-adapter", b"b@2")]}
    async with house.holding("a@1"):
        await house.door(scope, receive, send)
    assert 503 == sent[0]["status"]


async def test_the_header_wins_over_the_body_but_what_is_served_is_the_bodys():
    house = House(slots=1)
    async with house.holding("a@1"):
        house.behind.go.set()
        assert 200 == (await house.ask({"model": "b@2"}, header="a@1"))[0]
    assert b'{"model": "b@2"}' == house.behind.bodies[-1]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model": 7}', b'{"model": null}', b'\xff{"model":"x"}']
)
async def test_a_body_without_a_model_is_left_to_vllm(body):
    house = House(slots=1)
    async with house.holding("a@1"):
        house.behind.go.set()
        assert 200 == (await house.ask(body))[0]
    assert body == house.behind.bodies[-1]


async def test_a_request_has_left_before_its_last_byte_is_sent():
    house = House()
    sizes = []

    async def send(message: Any) -> None:
        sizes.append((message["type"], message.get("more_body"), house.admission.in_flight("a")))

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"model":"a"}', "more_body": False}

    await house.door({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)
    assert [1, 1, 0] == [inside for _, _, inside in sizes]


async def test_a_request_that_fails_behind_has_left():
    house = House()
    house.behind.fails = True
    with pytest.raises(RuntimeError, match="the app behind failed"):
        await house.ask({"model": "a@1"})
    assert {} == dict(house.admission.adapters)


async def test_a_request_that_is_cancelled_has_left():
    house = House()
    house.behind.hold(1)
    task = asyncio.ensure_future(house.ask({"model": "a@1"}))
    await house.behind.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {} == dict(house.admission.adapters)


async def test_a_client_that_leaves_in_mid_body_is_left_to_the_app():
    house = House()
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        """Nobody listens."""

    await house.door({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)
    assert [b"{"] == house.behind.bodies
    assert 0 == house.admission.in_flight(None)


async def test_apart_a_base_request_beside_an_adapter_is_told_so():
    house = House(slots=4, apart=True)
    async with house.holding("a@1"):
        status, headers, _ = await house.ask({"model": "base"})
        assert (503, "apart") == (status, headers["x-hotswap-not-now"])


@pytest.mark.parametrize(
    "risky", [{"prompt_logprobs": 0}, {"echo": True, "logprobs": 1}, {"prompt_logprobs": 5}], ids=str
)
@pytest.mark.parametrize("header", [None, "a@1"])
async def test_an_unsafe_engine_refuses_prompt_logprobs(risky, header):
    house = House(safe_logprobs=lambda: False)
    status, _, said = await house.ask({"model": "a@1"} | risky, header=header)
    assert (400, "prompt_logprobs_unsafe") == (status, said["error"]["code"])
    assert [] == house.behind.bodies


@pytest.mark.parametrize("tame", [{"prompt_logprobs": None}, {"echo": False}, {"logprobs": 3}], ids=str)
async def test_an_unsafe_engine_takes_what_computes_none(tame):
    house = House(safe_logprobs=lambda: False)
    assert 200 == (await house.ask({"model": "a@1"} | tame, header="a@1"))[0]


async def test_an_unsafe_engine_counts_by_the_header_too():
    house = House(slots=1, safe_logprobs=lambda: False)
    async with house.holding("a@1"):
        house.behind.go.set()
        assert 200 == (await house.ask({"model": "b@2"}, header="a@1"))[0]


async def test_loads_through_vllms_own_route_make_the_listing_stale():
    told = []
    house = House(changed=lambda: told.append(len(house.behind.paths)))
    await house.ask({"lora_name": "x"}, path="/v1/load_lora_adapter")
    assert [1] == told  # after it, not before


async def test_a_scrape_waits_for_a_fresh_listing():
    order = []

    async def refresh() -> None:
        order.append(("fresh", len(house.behind.paths)))

    house = House(before_metrics=refresh)
    await house.ask(path="/metrics", method="GET")
    assert [("fresh", 0)] == order


async def test_the_plugins_routes_are_answered_here_and_unknown_ones_by_the_app():
    class Routes:
        async def answer(self, method: str, path: str, body: bytes) -> Answer | None:
            return Answer(200, {"got": [method, path, body.decode()]}) if path.endswith("plugin") else None

    house = House(routes=Routes)
    status, _, said = await house.ask(b"xy", path="/hotswap/v1/plugin", method="GET")
    assert (200, {"got": ["GET", "/hotswap/v1/plugin", "xy"]}) == (status, said)
    await house.ask(b"xyz", path="/hotswap/v1/nowhere", method="PUT")
    assert [b"xyz"] == house.behind.bodies


async def test_what_is_no_http_passes():
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await Door(app, Admission(1), is_base=lambda name: False)({"type": "lifespan"}, None, None)
    assert ["lifespan"] == seen
