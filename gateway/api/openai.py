"""The data plane: OpenAI's surface as a pure ASGI app.

A request is authenticated before its body is read, its body is read once, `model` becomes one target, the
fleet lends an engine that holds it, and the relay carries the bytes. Nothing here waits for a database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

from gateway.api import denied
from gateway.api.body import ClientLeft, for_engine, members, model_of, read_body
from gateway.api.errors import (
    RETRY_AFTER_S,
    MethodNotAllowed,
    as_gateway_error,
    engine_error,
    is_unknown_model,
)
from gateway.api.respond import answer, answer_error, answer_json
from gateway.errors import BadRequest, GatewayError, NotFound, Unavailable
from gateway.relay import EngineAnswered, Upstream, UpstreamFailed, UpstreamRequest, forward
from gateway.relay.forward import Lease as Address
from gateway.relay.forward import Receive, Send

log = logging.getLogger("hotswap.api")

ATTEMPTS = 2
"""Engines that one request may be sent to, as long as nothing of an answer has arrived."""

_GENERATE = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"})
_UNLOCKED = contextlib.nullcontext()


class Target(Protocol):
    """What `model` means now. `engine_name` is the only name that an engine hears."""

    @property
    def version(self) -> Any: ...
    @property
    def engine_name(self) -> str: ...


class Lease(Address, Protocol):
    """An engine that holds the target, for one request."""

    @property
    def prompt_logprobs_safe(self) -> bool: ...
    def stale(self) -> None:
        """The engine says it does not hold the version after all: load it again next time."""


class Keys(Protocol):
    def authenticate(self, authorization: bytes | None, /) -> Any: ...


class Routes(Protocol):
    def resolve(self, model: str, /) -> Target: ...
    def models(self) -> Sequence[Mapping[str, Any]]: ...


class Fleet(Protocol):
    def lease(self, target: Any, /) -> AbstractAsyncContextManager[Lease]: ...


class Limits(Protocol):
    """The part of `settings.server` that is used here."""

    @property
    def max_body_bytes(self) -> int: ...
    @property
    def body_timeout_s(self) -> float: ...
    @property
    def allow_fields(self) -> Sequence[str]: ...


class DataPlane:
    """The ASGI app for everything under /v1."""

    def __init__(self, keys: Keys, routes: Routes, fleet: Fleet, upstream: Upstream, server: Limits) -> None:
        self._keys = keys
        self._routes = routes
        self._fleet = fleet
        self._upstream = upstream
        self._server = server
        self._allowed = frozenset(server.allow_fields)
        self._prompt_logprobs: dict[tuple[str, int], asyncio.Lock] = {}

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        request_id = secrets.token_hex(16)
        try:
            await self._serve(scope, receive, send, request_id)
        except ClientLeft:
            return
        except Exception as error:
            failure = as_gateway_error(error)
            if type(failure) is GatewayError:  # nobody foresaw it
                log.exception("request %s failed", request_id)
            await answer_error(send, failure, request_id)

    async def _serve(self, scope: Mapping[str, Any], receive: Receive, send: Send, request_id: str) -> None:
        path, method = scope["path"], scope["method"]
        authorization = length = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"content-length":
                length = value
        if method == "OPTIONS":
            allow = "POST" if path in _GENERATE else "GET, HEAD"
            await answer(send, 204, b"", request_id, allow=f"{allow}, OPTIONS")
            return
        self._keys.authenticate(authorization)
        if path in _GENERATE:
            _only(method, path, "POST")
            body = await read_body(
                receive, length, max_bytes=self._server.max_body_bytes, timeout_s=self._server.body_timeout_s
            )
            await self._generate(path, body, receive, send, request_id)
        elif path == "/v1/models":
            _only(method, path, "GET", "HEAD")
            listed = {"object": "list", "data": list(self._routes.models())}
            await answer_json(send, 200, listed, request_id)
        elif path.startswith("/v1/models/"):
            _only(method, path, "GET", "HEAD")
            await answer_json(send, 200, self._model(path.removeprefix("/v1/models/")), request_id)
        elif path.startswith("/v1/responses/"):
            raise NotFound(
                "This gateway stores no responses, so none can be fetched, cancelled or deleted.",
                code="response_not_found",
            )
        else:
            raise NotFound(f"Nothing is served at {method} {path[:200]}.", code="unknown_url")

    async def _generate(self, path: str, body: bytes, receive: Receive, send: Send, request_id: str) -> None:
        request = members(body)
        target = self._routes.resolve(model_of(request))
        denied.check(request, self._allowed)
        ours = {}
        if path == "/v1/responses":
            denied.check_stateless(request)
            ours["request_id"] = f"resp_{request_id}"  # the only id that vLLM does not take from the header
        body = for_engine(request, target.engine_name, **ours)
        outgoing = UpstreamRequest("POST", path, body, request_id)
        prompt_logprobs = denied.given(request, "prompt_logprobs") or _is_on(request, "echo")

        tried: Address | None = None
        for attempt in range(1, ATTEMPTS + 1):
            async with self._fleet.lease(target) as lease:
                if tried is not None and (tried.host, tried.port) == (lease.host, lease.port):
                    break  # the only engine there is has just failed
                alone = prompt_logprobs and not lease.prompt_logprobs_safe
                try:
                    async with self._lock(lease) if alone else _UNLOCKED:
                        await forward(self._upstream, lease, outgoing, receive, send)
                    return
                except EngineAnswered as error:
                    if not is_unknown_model(error.status, error.body) or target.version is None:
                        raise _engine_said(path, error) from error
                    log.warning(
                        "request %s: engine %s:%s lost %s",
                        request_id,
                        lease.host,
                        lease.port,
                        target.engine_name,
                    )
                    lease.stale()
                except UpstreamFailed as error:
                    log.warning("request %s, attempt %d: %s", request_id, attempt, error)
                    tried = lease
        raise Unavailable(
            f"No engine could answer for {target.engine_name!r}. Send the request again.",
            retry_after_s=RETRY_AFTER_S,
        )

    def _lock(self, lease: Lease) -> asyncio.Lock:
        """Two concurrent prompt_logprobs requests kill an unfixed vLLM on CPU: one at a time an engine."""
        return self._prompt_logprobs.setdefault((lease.host, lease.port), asyncio.Lock())

    def _model(self, name: str) -> Mapping[str, Any]:
        for model in self._routes.models():
            if model["id"] == name:
                return model
        engine_name = self._routes.resolve(name).engine_name
        for model in self._routes.models():
            if model["id"] == engine_name:
                return {**model, "id": name, "root": engine_name}
        raise NotFound(f"The model {name[:100]!r} does not exist.", code="model_not_found", param="model")


def _only(method: str, path: str, *allowed: str) -> None:
    if method not in allowed:
        raise MethodNotAllowed(
            f"{method} is not allowed on {path[:200]}; use {allowed[0]}.", allow=", ".join(allowed)
        )


def _is_on(request: Mapping[str, msgspec.Raw], field: str) -> bool:
    return denied.given(request, field) and bytes(request[field]) != b"false"


def _engine_said(path: str, error: EngineAnswered) -> GatewayError:
    if path == "/v1/embeddings" and error.status in (404, 405, 501):
        return BadRequest("This base does not serve embeddings.", code="embeddings_not_served", param="model")
    return engine_error(error.status, error.body, error.retry_after)
