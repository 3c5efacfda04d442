"""A data plane before a fake engine, with an in-memory key, two routes and a fleet of fixed ports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.api.exchange import Exchange
from gateway.api.openai import DataPlane
from gateway.errors import NotFound, Unauthorized, Unavailable
from gateway.fleet.budget import RetryBudget
from gateway.fleet.fake_engine import FakeEngine
from gateway.relay import Outbox, Silence, Upstream
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

    def models(self) -> bytes:
        data = [json.loads(self.model(name)) for name in ("base", "support", VERSION)]
        return json.dumps({"object": "list", "data": data}).encode()

    def model(self, name: str) -> bytes:
        self.resolve(name)
        return json.dumps({"id": name, "object": "model", "created": 1, "owned_by": "hotswap"}).encode()


@dataclass
class Lease:
    fleet: Fleet
    port: int
    target: Target
    prompt_logprobs_safe: bool
    host = "127.0.0.1"
    headers = f"host: engine\r\nauthorization: Bearer {ENGINE_KEY}\r\n".encode()
    loaded_s: float | None = None

    @property
    def engine(self) -> str:
        return str(self.port)

    def release(self, *, answered: bool = False) -> None:
        self.fleet.held -= 1
        if answered:
            self.fleet.answered.append(self.engine)

    def failed(self, reason: str, *, fatal: bool = False) -> None:
        self.fleet.failures.append((self.engine, reason, fatal))

    def not_now(self) -> None:
        self.fleet.held -= 1
        self.fleet.refused += 1

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
    refused: int = 0
    answered: list[str] = field(default_factory=list)
    failures: list[tuple[str, str, bool]] = field(default_factory=list)
    waits: list[dict[str, Any]] = field(default_factory=list)
    several = True
    always_first: bool = False

    def has_other(self, tried: Collection[str]) -> bool:
        return any(str(port) not in tried for port in self.ports)

    def load(self, target: Target) -> None:
        if self.loads_when_stale:
            self.engine.loras.paths[target.engine_name] = "/somewhere"

    def lease_now(self, target: Target, affinity: int = 0) -> Lease | None:
        return None if self.loading else self._lease(target)

    async def acquire(
        self, target: Target, affinity: int = 0, *, tried: Collection[str] = (), **how: Any
    ) -> Lease:
        self.waits.append({"tried": tuple(tried), "affinity": affinity} | how)
        if self.loading is None:
            return self._lease(target, tried)
        await self.loading.wait()
        lease = self._lease(target, tried)
        lease.loaded_s = 0.01
        return lease

    def _lease(self, target: Target, tried: Collection[str] = ()) -> Lease:
        ports = [port for port in self.ports if str(port) not in tried]
        if not ports:
            raise Unavailable("No engine is ready.", retry_after_s=2.5)
        port = ports[0 if self.always_first else self.leased % len(ports)]
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
    retries: RetryBudget
    ended: list[Exchange] = field(default_factory=list)

    def spend_retries(self) -> None:
        while self.retries.try_retry():
            pass

    async def chat(self, **more: Any) -> httpx.Response:
        return await self.post("/v1/chat/completions", messages=[{"role": "user", "content": "hi"}], **more)

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(path, json={"model": "base"} | body)


@asynccontextmanager
async def running(
    keep_alive_s: float = 5.0,
    begin_s: float = 30.0,
    stall_s: float = 30.0,
    feedback: Any = None,
    stored: Any = None,
    **server: Any,
) -> AsyncIterator[Service]:
    engine = FakeEngine(model="base", key=ENGINE_KEY)
    engine.loras.paths[VERSION] = "/somewhere"
    fleet = Fleet(engine)
    upstream = Upstream(Outbox())
    meter = Meter()
    silence, retries = Silence(begin_s=begin_s, stall_s=stall_s), RetryBudget()
    edges = (Keys(), Routes(), fleet, upstream, Server(**server), meter, silence, retries)
    plane = DataPlane(*edges, feedback=feedback, stored=stored)
    watching = asyncio.create_task(silence.watch())
    headers = {"authorization": "Bearer good"}
    async with serving(engine) as engine_port, serving_plane(plane, keep_alive_s) as port:
        fleet.ports.append(engine_port)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=10) as http:
            yield Service(url, port, engine, fleet, http, upstream, retries, meter.exchanges)
        await upstream.close()
    watching.cancel()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running() as started:
        yield started
