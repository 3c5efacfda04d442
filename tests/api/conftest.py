"""A data plane before a fake engine, with an in-memory key, two routes and a fleet of fixed ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.api.exchange import Exchange
from gateway.api.openai import DataPlane
from gateway.errors import NotFound, Unauthorized, Unavailable
from gateway.fleet.fake_engine import FakeEngine
from gateway.relay import Outbox, Upstream
from gateway.settings import Server
from tests.relay.serving import serving, serving_plane

ENGINE_KEY = "engine-key"
VERSION = "support@3f9c2ab71e04"


@dataclass(frozen=True)
class Target:
    version: Any
    engine_name: str


TARGETS = {
    "base": Target(None, "base"),
    "support": Target(object(), VERSION),
    "support@v1": Target(object(), VERSION),
    VERSION: Target(object(), VERSION),
}


class Keys:
    def authenticate(self, authorization: bytes | None) -> str:
        if authorization != b"Bearer good":
            raise Unauthorized("Incorrect API key provided.")
        return "good"


class Routes:
    def resolve(self, model: str) -> Target:
        if model not in TARGETS:
            raise NotFound(f"The model {model!r} does not exist.", code="model_not_found", param="model")
        return TARGETS[model]

    def models(self) -> Sequence[Mapping[str, Any]]:
        return [
            {"id": name, "object": "model", "created": 1, "owned_by": "hotswap"}
            for name in ("base", "support", VERSION)
        ]


@dataclass
class Lease:
    fleet: Fleet
    port: int
    target: Target
    prompt_logprobs_safe: bool
    host = "127.0.0.1"
    headers = f"host: engine\r\nauthorization: Bearer {ENGINE_KEY}\r\n".encode()

    def release(self) -> None:
        self.fleet.held -= 1

    def stale(self) -> None:
        self.fleet.stale += 1
        self.fleet.load(self.target)


@dataclass
class Fleet:
    """Lends each of `ports` in turn. Loads a version into `engine` when the relay reports it stale.

    With `loading`, every version has to be loaded first, which lasts until the event is set.
    """

    engine: FakeEngine
    ports: list[int] = field(default_factory=list)
    prompt_logprobs_safe: bool = True
    loads_when_stale: bool = True
    loading: asyncio.Event | None = None
    leased: int = 0
    held: int = 0
    stale: int = 0

    def load(self, target: Target) -> None:
        if self.loads_when_stale:
            self.engine.loras.paths[target.engine_name] = "/somewhere"

    def lease_now(self, target: Target) -> Lease | None:
        return None if self.loading else self._lease(target)

    async def acquire(self, target: Target) -> Lease:
        assert self.loading is not None
        await self.loading.wait()
        return self._lease(target)

    def _lease(self, target: Target) -> Lease:
        if not self.ports:
            raise Unavailable("No engine is ready.", retry_after_s=2.5)
        port = self.ports[self.leased % len(self.ports)]
        self.leased += 1
        self.held += 1
        return Lease(self, port, target, self.prompt_logprobs_safe)


class Meter:
    """Remembers what is over."""

    def __init__(self) -> None:
        self.open = 0
        self.exchanges: list[Exchange] = []

    def began(self) -> None:
        self.open += 1

    def ended(self, exchange: Exchange) -> None:
        self.open -= 1
        self.exchanges.append(exchange)


@dataclass
class Service:
    """Everything a test wants to look at."""

    url: str
    port: int
    engine: FakeEngine
    fleet: Fleet
    http: httpx.AsyncClient
    upstream: Upstream
    ended: list[Exchange] = field(default_factory=list)

    async def chat(self, **more: Any) -> httpx.Response:
        return await self.post("/v1/chat/completions", messages=[{"role": "user", "content": "hi"}], **more)

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(path, json={"model": "base"} | body)


@asynccontextmanager
async def running(keep_alive_s: float = 5.0, **server: Any) -> AsyncIterator[Service]:
    engine = FakeEngine(model="base", key=ENGINE_KEY)
    engine.loras.paths[VERSION] = "/somewhere"
    fleet = Fleet(engine)
    upstream = Upstream(Outbox())
    meter = Meter()
    plane = DataPlane(Keys(), Routes(), fleet, upstream, Server(**server), meter)
    headers = {"authorization": "Bearer good"}
    async with serving(engine) as engine_port, serving_plane(plane, keep_alive_s) as port:
        fleet.ports.append(engine_port)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=10) as http:
            yield Service(url, port, engine, fleet, http, upstream, meter.exchanges)
        await upstream.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running() as started:
        yield started
