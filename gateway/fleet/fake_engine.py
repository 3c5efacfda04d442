"""A fake engine: vLLM's OpenAI and LoRA endpoints and our plugin's, with delays and faults to order.

It answers in vLLM's shapes with its status codes and messages (0.32), and every text begins with the name of
the model that served it. The contract tests (`tests/contract`) run against it and against real vLLM, so it
cannot drift. `GET /fake/state` tells what it has seen; `POST /fake/faults` changes `Faults`; `POST
/fake/restart` forgets every adapter, as a new engine process would.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import asdict, fields
from typing import Any

from adapters.vllm_plugin import gauges
from gateway.fleet import fake_answers as answers
from gateway.fleet.fake_answers import Json
from gateway.fleet.fake_faults import Cut, Faults, break_off, spoil, transport_of
from gateway.fleet.fake_loras import FakeLoras, Refused, internal
from gateway.fleet.fake_plugin import DEAD, FakePlugin

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Scope = MutableMapping[str, Any]

__all__ = ["FakeEngine", "Faults", "serve"]

GENERATING = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})


class FakeEngine:
    """The ASGI app, and what it has seen. Without `plugin` it is a vLLM that nothing was added to."""

    def __init__(
        self,
        *,
        model: str = "base",
        key: str | None = None,
        faults: Faults | None = None,
        max_loras: int = 8,
        max_lora_rank: int = 32,
        max_cpu_loras: int = 64,
        max_num_seqs: int = 256,
        max_model_len: int = 2048,
        prompt_logprobs_fixed: bool = True,
        plugin: bool = True,
        admission: bool = True,
        base_fingerprint: str | None = None,
    ) -> None:
        self.model = model
        self.faults = faults or Faults()
        self.loras = FakeLoras(model, max_lora_rank, max_loras, max_cpu_loras)
        self.running = 0
        self.aborted = 0
        self.served = 0
        self.seen: list[Json] = []
        self.prompt_logprobs_peak = 0
        self._prompt_logprobs_running = 0
        self.key = key
        about = {
            "plugin_version": "0.2.0",
            "loras": {"max_loras": max_loras, "max_lora_rank": max_lora_rank, "max_cpu_loras": max_cpu_loras},
            "base_fingerprint": base_fingerprint,
            "max_num_seqs": max_num_seqs,
        }
        self.plugin = FakePlugin(
            self.loras,
            self.faults,
            about,
            base=model,
            key=key,
            admission=admission,
            prompt_logprobs_fixed=prompt_logprobs_fixed,
        )
        self._max_model_len = max_model_len
        self._app = self.plugin.door(self._serve) if plugin else self._serve
        self._with_plugin = plugin

    @property
    def boot_id(self) -> str:
        return self.plugin.boot_id

    def restart(self) -> None:
        """A new boot: no adapters, well again."""
        self.plugin.restart()
        self.faults.dead = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers = dict(scope["headers"])
        if self.key is not None and headers.get(b"authorization") != f"Bearer {self.key}".encode():
            await _json(send, 401, {"error": "Unauthorized"})
            return
        self.plugin.obey_faults()
        path, faults = scope["path"], self.faults
        try:
            if path in GENERATING or (faults.everywhere and not path.startswith("/fake/")):
                await spoil(faults, receive, send)
            scope["hotswap.transport"] = transport_of(send)
            await self._app(scope, receive, send)
        except Cut:
            return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._route(scope, dict(scope["headers"]), receive, send)
        except Refused as refusal:
            await _json(send, refusal.status, refusal.body)

    async def _route(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        body = await _body(receive)
        path = scope["path"]
        match scope["method"], path:
            case "GET", "/health":
                await _raw(send, 503 if self.faults.dead else 200, b"")
            case "GET", "/version":
                await _json(send, 200, {"version": "0.32.0"})
            case "GET", "/metrics":
                await _raw(send, 200, self._metrics().encode(), b"text/plain; version=0.0.4; charset=utf-8")
            case "GET", "/v1/models":
                cards = [_card(self.model, None), *(_card(name, self.model) for name in self.loras.paths)]
                await _json(send, 200, {"object": "list", "data": cards})
            case "POST", "/v1/load_lora_adapter":
                await _raw(send, 200, (await self._load(_object(body))).encode())
            case "POST", "/v1/unload_lora_adapter":
                await _raw(send, 200, self.loras.unload(_object(body)).encode())
            case "POST", "/v1/chat/completions" | "/v1/completions" | "/v1/responses":
                await self._generate(scope, _object(body), headers, receive, send)
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

    def _metrics(self) -> str:
        labels = f'{{engine="0",model_name="{self.model}"}}'
        listing = self.plugin.routes.listed(self.plugin.report()) if self._with_plugin else None
        ours = [] if listing is None else gauges.lines(listing)
        return "\n".join([f"vllm:num_requests_running{labels} {self.running:.1f}", *ours, ""])

    def _state(self) -> Json:
        counted = ("running", "aborted", "served", "boot_id", "prompt_logprobs_peak")
        loras = {"loads": self.loras.loads, "loras": sorted(self.loras.paths)}
        admission = {"not_now": self.plugin.admission.not_now, "adapters": self.plugin.admission.adapters}
        return {name: getattr(self, name) for name in counted} | loras | self.loras.counters | admission

    def _set_faults(self, wanted: Json) -> None:
        known = {field.name for field in fields(Faults)}
        if unknown := wanted.keys() - known:
            raise Refused(400, f"unknown faults {sorted(unknown)}; there are {sorted(known)}")
        for name, value in wanted.items():
            setattr(self.faults, name, value)

    async def _load(self, request: Json) -> str:
        refusal = internal("Call to add_lora method failed: refused") if self.faults.refuse_loads else None
        refusal = internal(DEAD) if self.faults.dead else refusal
        return await self.loras.load(request, self.faults.load_delay_s, refusal)

    async def _generate(
        self, scope: Scope, request: Json, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        self.seen.append(request)
        path = scope["path"]
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
        work = loop.create_task(self._answer(scope, request, prompt, head, send))
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
            raise internal(DEAD)
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

    async def _answer(self, scope: Scope, request: Json, prompt: str, head: Json, send: Send) -> None:
        path = scope["path"]
        if request["model"] != self.model:
            await self.loras.use(request["model"], self.faults.load_delay_s)
        if not request.get("stream"):
            await asyncio.sleep(self.faults.prefill_delay_s)
        if self.faults.fatal_prompt_logprobs and self._prompt_logprobs_running > 1:
            self.faults.dead = True
        if self.faults.dead:
            raise internal(DEAD)
        if self.faults.hang:
            await asyncio.Event().wait()
        if path == "/v1/responses":
            request = request | {"max_tokens": request.get("max_output_tokens")}
        chosen = answers.choices(request, prompt)
        if request.get("stream"):
            await self._stream(scope, request, prompt, head, chosen, send)
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
            raise Cut
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _stream(
        self, scope: Scope, request: Json, prompt: str, head: Json, chosen: list[answers.Choice], send: Send
    ) -> None:
        path = scope["path"]
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
                raise Cut
            if number == self.faults.half_chunk:
                break_off(scope["hotswap.transport"], b"%x\r\n" % len(event) + event[: len(event) // 2])
            if number:
                await asyncio.sleep(self.faults.token_delay_s)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def serve(*, host: str, port: int, model: str, token_delay_s: float, key: str | None, **more: Any) -> None:
    """Serves a fake engine until it is told to stop (SIGINT, SIGTERM). `more` is for `FakeEngine`."""
    import uvicorn

    engine = FakeEngine(model=model, key=key, faults=Faults(token_delay_s=token_delay_s), **more)
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
            raise Cut
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
