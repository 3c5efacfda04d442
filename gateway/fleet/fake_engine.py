"""A fake engine: vLLM's OpenAI and LoRA endpoints and our plugin's, with delays and faults to order.

It answers in vLLM's shapes with its status codes and messages (0.32), and every text begins with the name of
the model that served it. The contract tests (`tests/contract`) run against it and against real vLLM, so it
cannot drift. `GET /fake/state` tells what it has seen; `POST /fake/faults` changes `Faults`; `POST
/fake/restart` forgets every adapter, as a new engine process would.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gateway.fleet import fake_answers as answers
from gateway.fleet.fake_answers import Json
from gateway.fleet.fake_loras import FakeLoras, Refused, internal

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger("hotswap.fake_engine")

_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@dataclass(slots=True)
class Faults:
    """What to do wrong. Counts are used up; the rest stays until it is changed."""

    fail_next: int = 0  # generation requests that get a 500
    dead: bool = False  # every request gets what vLLM answers when its engine process has died
    hang: bool = False  # generation requests get no answer at all
    die_after_chunks: int | None = None  # a stream's connection is cut after so many events
    close_mid_body: bool = False  # a whole answer's connection is cut in the middle of its body
    refuse_loads: bool = False  # adapter loads get a 500
    load_delay_s: float = 0.0
    prefill_delay_s: float = 0.0
    token_delay_s: float = 0.0
    fatal_prompt_logprobs: bool = False  # two at once kill the engine, as in an unfixed vLLM on CPU


class _Cut(Exception):
    """The connection is to be cut here."""


class FakeEngine:
    """The ASGI app, and what it has seen."""

    def __init__(
        self,
        *,
        model: str = "base",
        key: str | None = None,
        faults: Faults | None = None,
        max_loras: int = 8,
        max_lora_rank: int = 32,
        max_cpu_loras: int = 64,
        max_model_len: int = 2048,
        prompt_logprobs_fixed: bool = True,
        plugin: bool = True,
    ) -> None:
        self.model = model
        self.faults = faults or Faults()
        self.loras = FakeLoras(model, max_lora_rank)
        self.boot_id = str(uuid.uuid4())
        self.running = 0
        self.aborted = 0
        self.served = 0
        self.seen: list[Json] = []
        self.prompt_logprobs_peak = 0
        self._prompt_logprobs_running = 0
        self.key = key
        self._limits = {
            "max_loras": max_loras,
            "max_lora_rank": max_lora_rank,
            "max_cpu_loras": max_cpu_loras,
        }
        self._max_model_len = max_model_len
        self._prompt_logprobs_fixed = prompt_logprobs_fixed
        self._plugin = plugin

    def restart(self) -> None:
        """A new boot: no adapters, well again."""
        self.loras.paths.clear()
        self.boot_id = str(uuid.uuid4())
        self.faults.dead = False

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers = dict(scope["headers"])
        if self.key is not None and headers.get(b"authorization") != f"Bearer {self.key}".encode():
            await _json(send, 401, {"error": "Unauthorized"})
            return
        try:
            await self._route(scope["method"], scope["path"], headers, receive, send)
        except Refused as refusal:
            await _json(send, refusal.status, refusal.body)
        except _Cut:
            return

    async def _route(
        self, method: str, path: str, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        body = await _body(receive)
        match method, path:
            case "GET", "/health":
                await _raw(send, 503 if self.faults.dead else 200, b"")
            case "GET", "/version":
                await _json(send, 200, {"version": "0.32.0"})
            case "GET", "/metrics":
                gauge = (
                    f'vllm:num_requests_running{{engine="0",model_name="{self.model}"}} {self.running:.1f}\n'
                )
                await _raw(send, 200, gauge.encode(), b"text/plain; version=0.0.4; charset=utf-8")
            case "GET", "/v1/models":
                cards = [_card(self.model, None), *(_card(name, self.model) for name in self.loras.paths)]
                await _json(send, 200, {"object": "list", "data": cards})
            case "GET", "/hotswap/v1/plugin" if self._plugin:
                await _json(send, 200, self._report())
            case "POST", "/v1/load_lora_adapter":
                await _raw(send, 200, (await self._load(_object(body))).encode())
            case "POST", "/v1/unload_lora_adapter":
                await _raw(send, 200, self.loras.unload(_object(body)).encode())
            case "POST", "/v1/chat/completions" | "/v1/completions" | "/v1/responses":
                await self._generate(path, _object(body), headers, receive, send)
            case "POST", "/fake/faults":
                self._set_faults(_object(body))
                await _json(send, 200, asdict(self.faults))
            case "POST", "/fake/restart":
                self.restart()
                await _json(send, 200, {"boot_id": self.boot_id})
            case "GET", "/fake/state":
                await _json(send, 200, self._state())
            case _:
                await _json(send, 404, {"detail": "Not Found"})

    def _report(self) -> Json:
        return {
            "plugin_version": "0.1.0",
            "vllm_version": "0.32.0",
            "boot_id": self.boot_id,
            "device": "cpu",
            "lora_kernel": "hotswap",
            "prompt_logprobs_fixed": self._prompt_logprobs_fixed,
            "self_test": {"passed": True, "details": "a fake engine has no kernel"},
            "loras": self._limits,
        }

    def _state(self) -> Json:
        counted = ("running", "aborted", "served", "boot_id", "prompt_logprobs_peak")
        loras = {"loads": self.loras.loads, "loras": sorted(self.loras.paths)}
        return {name: getattr(self, name) for name in counted} | loras

    def _set_faults(self, wanted: Json) -> None:
        known = {field.name for field in fields(Faults)}
        if unknown := wanted.keys() - known:
            raise Refused(400, f"unknown faults {sorted(unknown)}; there are {sorted(known)}")
        for name, value in wanted.items():
            setattr(self.faults, name, value)

    async def _load(self, request: Json) -> str:
        refusal = internal("Call to add_lora method failed: refused") if self.faults.refuse_loads else None
        refusal = internal(_DEAD) if self.faults.dead else refusal
        return await self.loras.load(request, self.faults.load_delay_s, refusal)

    async def _generate(
        self, path: str, request: Json, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        self.seen.append(request)
        prompt = self._check(path, request)
        sender = headers.get(b"x-request-id", uuid.uuid4().hex.encode()).decode()
        prefix = {"/v1/chat/completions": "chatcmpl-", "/v1/completions": "cmpl-"}.get(path, "")
        known_as = request.get("request_id", f"resp_{sender}") if path == "/v1/responses" else sender
        head = {"id": prefix + known_as, "created": int(time.time()), "model": request["model"]}
        risky = answers.wants_prompt_logprobs(request)
        self.running += 1
        self._prompt_logprobs_running += risky
        self.prompt_logprobs_peak = max(self.prompt_logprobs_peak, self._prompt_logprobs_running)
        loop = asyncio.get_running_loop()
        watch = loop.create_task(_until_disconnect(receive))
        work = loop.create_task(self._answer(path, request, prompt, head, send))
        try:
            # As vLLM's with_cancellation: a client that leaves ends the work.
            await asyncio.wait((watch, work), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.aborted += 1
                return
            work.result()
        finally:
            watch.cancel()
            work.cancel()
            await asyncio.wait((watch, work))
            self.running -= 1
            self._prompt_logprobs_running -= risky

    def _check(self, path: str, request: Json) -> str:
        """The prompt as text, when vLLM would take the request."""
        field = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}.get(path, "input")
        if self.faults.dead:
            raise internal(_DEAD)
        if self.faults.fail_next > 0:
            self.faults.fail_next -= 1
            raise internal("list index out of range")
        if field not in request:
            where = f"body.{field}"
            problem = {"type": "missing", "loc": where, "msg": "Field required"}
            raise Refused(400, f"1 validation error:\n  {problem}", "Bad Request", where)
        model = request.get("model")
        if model != self.model and model not in self.loras.paths:
            message = f"The model `{model}` does not exist. Valid aliases: {self.model}."
            raise Refused(404, message, "NotFoundError", "model")
        for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
            limit = request.get(name)
            if limit is not None and limit < 1:
                message = f"{name} must be at least 1, got {limit}. (parameter={name}, value={limit})"
                raise Refused(400, message, param=name)
            if limit is not None and limit > self._max_model_len:
                message = f"{name}={limit} cannot be greater than max_model_len={self._max_model_len}."
                raise Refused(400, message, param=name)
        if request.get("temperature") == 0 and (request.get("n") or 1) > 1:
            raise Refused(400, f"n must be 1 when using greedy sampling, got {request['n']}.")
        if (request.get("temperature") or 0) < 0:
            message = f"temperature must be non-negative, got {request['temperature']}."
            raise Refused(400, message, param="temperature")
        return json.dumps(request[field])

    async def _answer(self, path: str, request: Json, prompt: str, head: Json, send: Send) -> None:
        if not request.get("stream"):
            await asyncio.sleep(self.faults.prefill_delay_s)
        if self.faults.fatal_prompt_logprobs and self._prompt_logprobs_running > 1:
            self.faults.dead = True
        if self.faults.dead:
            raise internal(_DEAD)
        if self.faults.hang:
            await asyncio.Event().wait()
        if path == "/v1/responses":
            request = request | {"max_tokens": request.get("max_output_tokens")}
        chosen = answers.choices(request, prompt)
        if request.get("stream"):
            await self._stream(path, request, prompt, head, chosen, send)
        else:
            await asyncio.sleep(self.faults.token_delay_s * max(len(choice.pieces) for choice in chosen))
            whole = {"/v1/chat/completions": answers.chat, "/v1/completions": answers.completion}.get(path)
            await self._whole(
                whole(head, request, prompt, chosen)
                if whole
                else answers.response(head, request, prompt, chosen[0]),
                send,
            )
        self.served += 1

    async def _whole(self, answer: Json, send: Send) -> None:
        body = _encode(answer)
        await send(_start(200, b"application/json", len(body)))
        if self.faults.close_mid_body:
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            raise _Cut
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _stream(
        self, path: str, request: Json, prompt: str, head: Json, chosen: list[answers.Choice], send: Send
    ) -> None:
        if path == "/v1/responses":
            whole = answers.response(head, request, prompt, chosen[0])
            listed = answers.response_events(whole, chosen[0])
            events = [f"event: {event['type']}\n".encode() + _event(event) for event in listed]
        else:
            make = answers.chat_events if path == "/v1/chat/completions" else answers.completion_events
            events = [_event(event) for event in make(head, request, prompt, chosen)]
            events.append(b"data: [DONE]\n\n")
        await send(_start(200, b"text/event-stream; charset=utf-8"))
        await asyncio.sleep(self.faults.prefill_delay_s)  # after the head, as with vLLM
        for number, event in enumerate(events):
            if number == self.faults.die_after_chunks:
                raise _Cut
            if number:
                await asyncio.sleep(self.faults.token_delay_s)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def serve(*, host: str, port: int, model: str, token_delay_s: float, key: str | None) -> None:
    """Serves a fake engine until it is told to stop (SIGINT, SIGTERM)."""
    import uvicorn

    engine = FakeEngine(model=model, key=key, faults=Faults(token_delay_s=token_delay_s))
    uvicorn.run(engine, host=host, port=port, http="httptools", loop="uvloop", access_log=False)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        stage = (await receive())["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{stage}.complete"})
        if stage == "shutdown":
            return


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Cut
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _object(body: bytes) -> Json:
    try:
        request = json.loads(body)
    except ValueError:
        problem = {"type": "json_invalid", "loc": "body.0", "msg": "JSON decode error"}
        raise Refused(400, f"1 validation error:\n  {problem}", "Bad Request", "body.0") from None
    if not isinstance(request, dict):
        raise Refused(400, "1 validation error: Input should be a valid dictionary", "Bad Request", "body")
    return request


def _card(name: str, parent: str | None) -> Json:
    card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "vllm"}
    return card | {"root": name, "parent": parent, "permission": []}


def _encode(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _event(value: Json) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"


def _start(status: int, content_type: bytes | None = None, length: int | None = None) -> dict[str, Any]:
    headers = [(b"content-type", content_type)] if content_type else []
    headers += [(b"content-length", str(length).encode())] if length is not None else []
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _raw(send: Send, status: int, body: bytes, content_type: bytes | None = None) -> None:
    await send(_start(status, content_type, len(body)))
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _json(send: Send, status: int, body: Json) -> None:
    await _raw(send, status, _encode(body), b"application/json")
