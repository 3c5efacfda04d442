"""The door of an engine's HTTP server: who may generate now, and who must come again. Pure ASGI.

It stands inside the guard and around vLLM's whole app, so a request that is told "not now" is never seen by
vLLM. It needs neither torch nor vLLM: the fake engine has the same door.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from adapters.vllm_plugin.admission import Admission, Key
from adapters.vllm_plugin.answer import App, Message, Receive, Scope, Send, error
from adapters.vllm_plugin.routes import PREFIX, Routes

GENERATING = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"})
CHANGING = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
METRICS = "/metrics"

ADAPTER = b"x-hotswap-adapter"
"""Names the adapter that a request is counted under, so that its body need not be parsed here. What is served
is what the body's `model` says."""
NOT_NOW = b"x-hotswap-not-now"
"""In the answer: why not now, `slots` or `apart`."""

REASONS = {
    "slots": "all {slots} adapter slots of this engine are in use by other adapters; send it again later",
    "apart": "base and adapters take turns on this engine, whose LoRA kernel mixes them; send it again later",
}
UNSAFE = (
    "prompt_logprobs and echo are refused by this engine: vLLM's own LoRA kernel for CPUs ends the engine "
    "when prompt logprobs meet other requests in a batch. Use an engine whose plugin has replaced it"
)


class Asked(msgspec.Struct):
    """The members of a body that matter here. Types are vLLM's business."""

    model: Any = None
    prompt_logprobs: Any = None
    echo: Any = None


class Door:
    """Counts each generation from its first byte to its last, or until its client has left.

    `routes` are the plugin's own. `is_base` knows the base's names. `changed` is called when vLLM's routes
    have changed what is loaded; `before_metrics` is awaited before a scrape. Not `safe_logprobs`: requests
    for the log-probabilities of the prompt are refused with 400.
    """

    def __init__(
        self,
        app: App,
        admission: Admission,
        is_base: Callable[[str], bool],
        *,
        routes: Callable[[], Routes | None] = lambda: None,
        safe_logprobs: Callable[[], bool] = lambda: True,
        changed: Callable[[], None] = lambda: None,
        before_metrics: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._app = app
        self._admission = admission
        self._is_base = is_base
        self._routes = routes
        self._safe_logprobs = safe_logprobs
        self._changed = changed
        self._before_metrics = before_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        routes = self._routes() if path.startswith(PREFIX) else None
        if routes is not None:
            body, receive = await _read(receive)
            answer = await routes.answer(scope["method"], path, body)
            if answer is not None:
                await answer.send(send)
                return
        if scope["method"] == "POST" and path in GENERATING:
            await self._generate(scope, receive, send)
            return
        if path == METRICS and self._before_metrics is not None:
            await self._before_metrics()
        await self._app(scope, receive, send)
        if path in CHANGING:
            self._changed()

    async def _generate(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = next((value for name, value in scope["headers"] if name == ADAPTER), None)
        name: Any = None if named is None else named.decode("latin-1")
        if named is None or not self._safe_logprobs():
            body, receive = await _read(receive)
            asked = _asked(body)
            if not self._safe_logprobs() and (asked.prompt_logprobs is not None or asked.echo):
                await error(400, UNSAFE, "prompt_logprobs_unsafe").send(send)
                return
            name = asked.model if named is None else name
        key = name if isinstance(name, str) and name and not self._is_base(name) else None
        reason = self._admission.enter(key)
        if reason is not None:
            message = REASONS[reason].format(slots=self._admission.slots)
            await error(503, message, "not_now", (NOT_NOW, reason.encode())).send(send)
            return
        await self._counted(key, scope, receive, send)

    async def _counted(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        inside = True

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                self._admission.leave(key)

        async def send_and_leave(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                leave()  # before the last byte: whoever has it may send the next request at once
            await send(message)

        try:
            await self._app(scope, receive, send_and_leave)
        finally:
            leave()


def _asked(body: bytes) -> Asked:
    """What is no JSON object asks for nothing; vLLM will say so."""
    try:
        return msgspec.json.decode(body, type=Asked)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Asked()


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, and a `receive` that gives it again, message by message."""
    messages: list[Message] = []
    while True:
        messages.append(await receive())
        if messages[-1]["type"] != "http.request" or not messages[-1].get("more_body", False):
            break
    body = b"".join(message.get("body", b"") for message in messages)
    left = iter(messages)

    async def again() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return body, again
