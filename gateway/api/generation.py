"""One request that an engine answers: leased, sent, and sent again for as long as nothing was answered."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from gateway.api.errors import RETRY_AFTER_S, as_gateway_error, engine_error, is_unknown_model
from gateway.api.exchange import Exchange
from gateway.errors import BadRequest, GatewayError, Unavailable
from gateway.relay import Engine, EngineAnswered, Transfer, Upstream, UpstreamFailed, UpstreamRequest

log = logging.getLogger("hotswap.api")

ATTEMPTS = 2
"""Engines that one request may be sent to, as long as nothing of an answer has arrived."""


class Target(Protocol):
    """What `model` means now. `engine_name` is the only name that an engine hears."""

    @property
    def version(self) -> Any: ...
    @property
    def engine_name(self) -> str: ...


class Lease(Engine, Protocol):
    """An engine that holds the target, for one request."""

    @property
    def prompt_logprobs_safe(self) -> bool: ...
    def stale(self) -> None:
        """The engine says it does not hold the version after all: load it again next time."""

    def release(self) -> None: ...


class Fleet(Protocol):
    def lease_now(self, target: Any, /) -> Lease | None:
        """A lease that waits for nothing; None when the version must be loaded first."""

    async def acquire(self, target: Any, /) -> Lease: ...


class Turns:
    """One request at a time an engine, for those of which two kill it (vLLM's prompt_logprobs on CPU)."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, int], asyncio.Lock] = {}

    def at(self, lease: Lease) -> asyncio.Lock:
        return self._locks.setdefault((lease.host, lease.port), asyncio.Lock())


@dataclass(frozen=True, slots=True)
class Sender:
    """What every generation needs. No `turns` where other processes send to the same engines."""

    fleet: Fleet
    upstream: Upstream
    turns: Turns | None


class Generation:
    """`start` it, and the exchange is answered, whatever happens. Its lease is held until then."""

    __slots__ = (
        "_alone",
        "_attempt",
        "_exchange",
        "_lease",
        "_request",
        "_sender",
        "_target",
        "_tried",
        "_turn",
    )

    def __init__(
        self, sender: Sender, exchange: Exchange, target: Target, request: UpstreamRequest, *, alone: bool
    ) -> None:
        self._sender = sender
        self._exchange = exchange
        self._target = target
        self._request = request
        self._alone = alone
        self._attempt = 0
        self._tried: tuple[str, int] | None = None
        self._lease: Lease | None = None
        self._turn: asyncio.Lock | None = None
        exchange.on_over = self._let_go

    def start(self) -> None:
        """Raises the fleet's refusals; later ones are answered on the exchange."""
        self._attempt += 1
        lease = self._sender.fleet.lease_now(self._target)
        if lease is None:
            self._exchange.spawn(self._load())
        else:
            self._send(lease)

    async def _load(self) -> None:
        """Waits for the version to be loaded, then sends."""
        began = time.monotonic()
        with Answering(self._exchange):
            lease = await self._sender.fleet.acquire(self._target)
            self._exchange.loaded_s = time.monotonic() - began
            self._send(lease)

    def _send(self, lease: Lease) -> None:
        self._lease = lease
        address = (lease.host, lease.port)
        if address == self._tried:  # the only engine there is has just failed
            self._give_up()
            return
        self._exchange.engine = address
        if self._alone and not lease.prompt_logprobs_safe:
            if self._sender.turns is None:
                self._exchange.fail(_no_turns())
                return
            self._exchange.spawn(self._send_in_turn(lease))
            return
        transfer = self._transfer(lease)
        if not transfer.send_now():
            self._exchange.spawn(transfer.send())

    async def _send_in_turn(self, lease: Lease) -> None:
        turns = self._sender.turns
        assert turns is not None  # else it was refused
        turn = turns.at(lease)
        await turn.acquire()
        self._turn = turn
        await self._transfer(lease).send()

    def _transfer(self, lease: Lease) -> Transfer:
        transfer = Transfer(self._sender.upstream, lease, self._request, self._exchange, self._on_done)
        self._exchange.transfer = transfer
        return transfer

    def _on_done(self, transfer: Transfer) -> None:
        lease, failure = self._lease, transfer.failure
        if failure is None or lease is None:
            return  # the exchange is over, or about to be: that lets the lease go
        if isinstance(failure, UpstreamFailed) and failure.stale:
            # The engine closed an idle connection as we used it: that says nothing about the engine.
            self._exchange.spawn(self._transfer(lease).send())
            return
        if isinstance(failure, EngineAnswered):
            if not is_unknown_model(failure.status, failure.body) or self._target.version is None:
                self._let_go()
                self._exchange.fail(_engine_said(self._request.path, failure))
                return
            log.warning(
                "request %s: engine %s:%s lost %s",
                self._request.request_id,
                lease.host,
                lease.port,
                self._target.engine_name,
            )
            lease.stale()
        else:
            log.warning("request %s, attempt %d: %s", self._request.request_id, self._attempt, failure)
            self._tried = (lease.host, lease.port)
        self._let_go()
        self._again()

    def _again(self) -> None:
        if self._attempt >= ATTEMPTS:
            self._give_up()
            return
        with Answering(self._exchange):
            self.start()

    def _give_up(self) -> None:
        self._let_go()
        self._exchange.fail(
            Unavailable(
                f"No engine could answer for {self._target.engine_name!r}. Send the request again.",
                retry_after_s=RETRY_AFTER_S,
            )
        )

    def _let_go(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()


class Answering:
    """`with Answering(exchange):` answers what is raised within. What nobody foresaw is logged, not told."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        failure = as_gateway_error(error)
        if type(failure) is GatewayError:
            log.error("request %s failed", self._exchange.id, exc_info=error)
        self._exchange.fail(failure)
        return True


def _no_turns() -> BadRequest:
    return BadRequest(
        "`prompt_logprobs` and `echo` are refused: two at once would kill this engine, and several gateway "
        "workers cannot take turns. Start the engine with Hotswap's plugin, or run one worker.",
        code="not_supported",
        param="prompt_logprobs",
    )


def _engine_said(path: str, error: EngineAnswered) -> GatewayError:
    if path == "/v1/embeddings" and error.status in (404, 405, 501):
        return BadRequest("This base does not serve embeddings.", code="embeddings_not_served", param="model")
    return engine_error(error.status, error.body, error.retry_after)
