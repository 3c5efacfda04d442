"""The data plane: OpenAI's surface, on exchanges (`gateway.api.exchange`) instead of ASGI.

A request is authenticated before its body is read, its body is read once, `model` becomes one target, the
fleet lends an engine that holds it, and the relay carries the bytes. Nothing here waits for a database.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gateway.api import denied
from gateway.api.body import for_engine, members, model_of, too_large
from gateway.api.errors import MethodNotAllowed, RequestTimeout
from gateway.api.exchange import Connection, Exchange
from gateway.api.generation import Answering, Fleet, Generation, Retries, Sender, Target, Turns, answered
from gateway.api.stored import PATH as _STORED
from gateway.api.stored import Stored, handle, methods
from gateway.errors import NotFound
from gateway.relay import Silence, Upstream, UpstreamRequest
from gateway.requestid import RequestIds

_GENERATE = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"})
_FEEDBACK = "/v1/feedback"
_POSTED = _GENERATE | {_FEEDBACK}

_PROMPTS = ("prompt_cache_key", "messages", "prompt", "input")
PREFIX_BYTES = 512
"""How much of a prompt decides which engine is near: a system prompt, or the beginning of a conversation."""


class Keys(Protocol):
    def authenticate(self, authorization: bytes | None, /) -> Any: ...


class Routes(Protocol):
    def resolve(self, model: str, /) -> Target: ...
    def models(self) -> bytes: ...
    def model(self, name: str, /) -> bytes: ...


class Limits(Protocol):
    """The part of `settings.server` that is used here."""

    @property
    def workers(self) -> int: ...
    @property
    def max_body_bytes(self) -> int: ...
    @property
    def body_timeout_s(self) -> float: ...
    @property
    def allow_fields(self) -> Sequence[str]: ...


class Meter(Protocol):
    """Hears of every exchange."""

    def began(self) -> None: ...
    def ended(self, exchange: Exchange, /) -> None: ...


class Recorder(Protocol):
    """Remembers exchanges (`gateway.traffic.recorder`)."""

    def begin(self, exchange: Any, route: str, key: Any, request: Mapping[str, msgspec.Raw], /) -> None: ...
    def ended(self, exchange: Any, /) -> None: ...


class Feedback(Protocol):
    """Takes what somebody thought of an answer (`gateway.traffic.feedback`)."""

    async def give(self, key: Any, body: bytes | bytearray, /) -> dict[str, Any]: ...


class DataPlane:
    """Everything under /v1: a `gateway.api.connection.Plane`. Without a `recorder` nothing is remembered."""

    def __init__(
        self,
        keys: Keys,
        routes: Routes,
        fleet: Fleet,
        upstream: Upstream,
        server: Limits,
        meter: Meter,
        silence: Silence,
        retries: Retries,
        recorder: Recorder | None = None,
        feedback: Feedback | None = None,
        stored: Stored | None = None,
    ) -> None:
        self._keys = keys
        self._routes = routes
        self.outbox = upstream.outbox
        turns = Turns() if server.workers == 1 else None
        self._sender = Sender(fleet, upstream, silence, retries, turns)
        self._server = server
        self._max_body_bytes = server.max_body_bytes
        self._allowed = frozenset(server.allow_fields)
        self._meter = meter
        self._recorder = recorder
        self._feedback = feedback
        self._stored = stored
        self._on_end = meter.ended if recorder is None else self._ended
        self._ids = RequestIds()

    def exchange(self, connection: Connection, method: str, path: str) -> Exchange:
        self._meter.began()
        return Exchange(connection, self.outbox, next(self._ids), method, path, self._on_end)

    def _ended(self, exchange: Exchange) -> None:
        self._meter.ended(exchange)
        if self._recorder is not None and exchange.memory is not None:
            self._recorder.ended(exchange)

    # `with Answering(exchange)` would do; on the way of every request it costs half a microsecond each time.

    def opened(self, exchange: Exchange) -> None:
        try:
            self._open(exchange)
        except Exception as error:
            if not answered(exchange, error):
                raise

    def incomplete(self, exchange: Exchange) -> None:
        if len(exchange.body) > self._server.max_body_bytes:
            exchange.fail(too_large(len(exchange.body), self._server.max_body_bytes))
        elif not exchange.response_complete:
            exchange.body_within(self._server.body_timeout_s, self._late)

    def ready(self, exchange: Exchange) -> None:
        try:
            if len(exchange.body) > self._max_body_bytes:
                raise too_large(len(exchange.body), self._max_body_bytes)
            if exchange.path in _GENERATE and exchange.method == "POST":
                self._generate(exchange)
            else:
                exchange.spawn(self._take(exchange))
        except Exception as error:
            if not answered(exchange, error):
                raise

    def _open(self, exchange: Exchange) -> None:
        """Who asks, and what for; whatever needs no body is answered."""
        path, method = exchange.path, exchange.method
        if method == "OPTIONS":
            allow = methods(path) if path.startswith(_STORED) else _allowed(path)
            exchange.answer(204, b"", f"allow: {', '.join(allow)}, OPTIONS\r\n".encode())
            return
        exchange.key = self._keys.authenticate(exchange.authorization)
        if method == "POST" and path in _POSTED:
            self._want_body(exchange)
        elif path.startswith(_STORED):
            _only(method, path, *methods(path))
            self._want_body(exchange)
        elif path in _POSTED:
            _only(method, path, "POST")
        elif path == "/v1/models":
            _only(method, path, "GET", "HEAD")
            _answer_json(exchange, self._routes.models())
        elif path.startswith("/v1/models/"):
            _only(method, path, "GET", "HEAD")
            _answer_json(exchange, self._routes.model(path.removeprefix("/v1/models/")))
        elif path.startswith("/v1/responses/"):
            raise NotFound(
                "This gateway stores no responses, so none can be fetched, cancelled or deleted.",
                code="response_not_found",
            )
        else:
            raise NotFound(f"Nothing is served at {method} {path[:200]}.", code="unknown_url")

    def _want_body(self, exchange: Exchange) -> None:
        length = exchange.content_length
        if length is not None and length.isdigit() and int(length) > self._max_body_bytes:
            raise too_large(int(length), self._max_body_bytes)
        exchange.proceed()

    def _late(self, exchange: Exchange) -> None:
        exchange.fail(
            RequestTimeout(
                f"The request body was not complete after {self._server.body_timeout_s:g} s. "
                "Send it faster, or send less."
            )
        )

    async def _take(self, exchange: Exchange) -> None:
        """What is remembered: the one thing here that waits for the database, as it may: nobody waits for
        tokens."""
        with Answering(exchange):
            if self._feedback is None or self._stored is None:
                raise NotFound(
                    "This gateway remembers nothing, so it takes no feedback and stores no completions.",
                    code="unknown_url",
                )
            if exchange.path == _FEEDBACK:
                body = msgspec.json.encode(await self._feedback.give(exchange.key, exchange.body))
            else:
                body = await handle(self._stored, self._routes, exchange)
            _answer_json(exchange, body)

    def _generate(self, exchange: Exchange) -> None:
        exchange.ready = time.monotonic()
        path, request = exchange.path, members(exchange.body)
        exchange.route = model = model_of(request)
        target = self._routes.resolve(model)
        exchange.version = target.engine_name
        if self._recorder is not None:
            route = target.engine_name if target.version is None else target.version.adapter
            self._recorder.begin(exchange, route, exchange.key, request)
        denied.check(request, self._allowed)
        ours = {}
        if path == "/v1/responses":
            denied.check_stateless(request)
            ours["request_id"] = f"resp_{exchange.id}"  # the only id that vLLM does not take from the header
        body = for_engine(request, target.engine_name, **ours)
        outgoing = UpstreamRequest(path, body, exchange.id, exchange.began)
        exchange.body = b""  # it is in `outgoing` now
        alone = False
        if "prompt_logprobs" in request or "echo" in request:
            alone = denied.given(request, "prompt_logprobs") or _is_on(request, "echo")
        near = _prefix(request) if self._sender.fleet.several else 0
        Generation(self._sender, exchange, target, outgoing, alone=alone, affinity=near).start()


def _answer_json(exchange: Exchange, body: bytes) -> None:
    exchange.answer(200, body, b"content-type: application/json\r\n")


def _allowed(path: str) -> tuple[str, ...]:
    return ("POST",) if path in _POSTED else ("GET", "HEAD")


def _only(method: str, path: str, *allowed: str) -> None:
    if method not in allowed:
        raise MethodNotAllowed(
            f"{method} is not allowed on {path[:200]}; use {allowed[0]}.", allow=", ".join(allowed)
        )


def _prefix(request: Mapping[str, msgspec.Raw]) -> int:
    """A hash of what the prompt begins with, or of what the client says that it shares; 0 without either.

    The same in every process, so that all gateways send a conversation to the engine that has its beginning
    in its prefix cache.
    """
    for field in _PROMPTS:
        raw = request.get(field)
        if raw is not None:
            return zlib.crc32(memoryview(raw)[:PREFIX_BYTES]) or 1
    return 0


def _is_on(request: Mapping[str, msgspec.Raw], field: str) -> bool:
    return denied.given(request, field) and bytes(request[field]) != b"false"
