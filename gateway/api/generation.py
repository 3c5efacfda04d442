"""One request that an engine answers: leased, sent, and sent again for as long as nothing was answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from gateway.api.errors import RETRY_AFTER_S, as_gateway_error, engine_error, is_unknown_model
from gateway.api.exchange import Exchange
from gateway.errors import BadRequest, GatewayError, Unavailable
from gateway.relay import (
    Engine,
    EngineAnswered,
    Outcome,
    Silence,
    Transfer,
    Upstream,
    UpstreamRequest,
)

log = logging.getLogger("hotswap.api")

ENGINES = 3
"""Engines that one request may fail at before its client is told."""

RELOADS = 1
"""Times that one request may find its version gone from an engine that should hold it."""

BROKEN = frozenset({500, 502, 504})
"""Statuses that another engine might not answer with. A 503 of vLLM's is an engine that has died."""


class Target(Protocol):
    """What `model` means now. `engine_name` is the only name that an engine hears."""

    @property
    def version(self) -> Any: ...
    @property
    def engine_name(self) -> str: ...


class Lease(Engine, Protocol):
    """An engine that holds the target, for one request."""

    @property
    def engine(self) -> str: ...
    @property
    def prompt_logprobs_safe(self) -> bool: ...
    @property
    def loaded_s(self) -> float | None: ...
    def stale(self) -> None:
        """The engine says it does not hold the version after all: load it again next time."""

    def failed(self, reason: str, /, *, fatal: bool = False) -> None:
        """The engine did not answer as an engine should; `fatal`: it cannot be there any more."""

    def not_now(self) -> None:
        """Its own door was shut; ends the lease."""

    def release(self, *, answered: bool = False) -> None: ...


class Fleet(Protocol):
    def lease_now(self, target: Any, affinity: int = 0, /) -> Lease | None:
        """A lease that waits for nothing; None when there is a queue, or the version must be loaded first."""

    def has_other(self, tried: Collection[str], /) -> bool:
        """Whether there is an engine that was not tried."""

    @property
    def several(self) -> bool: ...
    async def acquire(
        self,
        target: Any,
        affinity: int = 0,
        /,
        *,
        tried: Collection[str] = (),
        since: float | None = None,
        again: bool = False,
    ) -> Lease: ...


class Retries(Protocol):
    """What may be tried again (`gateway.fleet.budget`)."""

    def request(self) -> None: ...
    def try_retry(self) -> bool: ...


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
    silence: Silence
    retries: Retries
    turns: Turns | None


class Generation:
    """`start` it, and the exchange is answered, whatever happens. Its lease is held until then.

    As long as nothing of an answer has come, a failure goes to another engine: once for free when the engine
    is not there any more (a dead engine fails all that it had at once, and none of it was too much), else out
    of the retry budget. `affinity` is a hash of the beginning of its prompt.
    """

    # What most requests never change stands here.
    _lease: Lease | None = None
    _turn: asyncio.Lock | None = None
    _transfer: Transfer | None = None
    _reloads = 0
    _moved = False  # its free move is used up
    _tried: tuple[str, ...] = ()
    _suspect: tuple[Lease, str] | None = None  # answered 5xx: its own fault if another engine can

    def __init__(
        self,
        sender: Sender,
        exchange: Exchange,
        target: Target,
        request: UpstreamRequest,
        *,
        alone: bool,
        affinity: int = 0,
    ) -> None:
        self._sender = sender
        self._exchange = exchange
        self._target = target
        self._request = request
        self._alone = alone
        self._affinity = affinity
        exchange.on_over = self._over

    def start(self) -> None:
        """Raises the fleet's refusals; later ones are answered on the exchange."""
        self._sender.retries.request()
        lease = self._sender.fleet.lease_now(self._target, self._affinity)
        if lease is None:
            self._exchange.spawn(self._wait())
        else:
            self._send(lease)

    async def _wait(self, *, again: bool = False) -> None:
        """Waits for a turn, and for the version to be loaded, then sends."""
        with Answering(self._exchange):
            lease = await self._sender.fleet.acquire(
                self._target, self._affinity, tried=self._tried, since=self._exchange.ready, again=again
            )
            if lease.loaded_s is not None:
                self._exchange.loaded_s = lease.loaded_s
            self._send(lease)

    def _send(self, lease: Lease) -> None:
        self._lease = lease
        self._exchange.engine = (lease.host, lease.port)
        if self._alone and not lease.prompt_logprobs_safe:
            if self._sender.turns is None:
                self._exchange.fail(_no_turns())
                return
            self._exchange.spawn(self._send_in_turn(lease))
            return
        transfer = self._begin(lease)
        if not transfer.send_now():
            self._exchange.spawn(transfer.send())

    async def _send_in_turn(self, lease: Lease) -> None:
        turns = self._sender.turns
        assert turns is not None  # else it was refused
        turn = turns.at(lease)
        await turn.acquire()
        self._turn = turn
        await self._begin(lease).send()

    def _begin(self, lease: Lease) -> Transfer:
        transfer = Transfer(self._sender.upstream, lease, self._request, self._exchange, self._on_done)
        self._exchange.transfer = self._transfer = transfer
        self._sender.silence.add(transfer)
        return transfer

    def _on_done(self, transfer: Transfer) -> None:
        lease, failure = self._lease, transfer.failure
        self._sender.silence.discard(transfer)
        if failure is None or lease is None:
            return  # the exchange is over, or about to be: that lets the lease go
        if isinstance(failure, EngineAnswered):
            self._on_refusal(lease, failure)
        elif failure.stale:
            # The engine closed an idle connection as we used it: that says nothing about the engine.
            self._exchange.spawn(self._begin(lease).send())
        else:
            log.warning("request %s at engine %s: %s", self._request.request_id, lease.engine, failure)
            lease.failed(str(failure), fatal=failure.fatal)
            self._elsewhere(lease, free=failure.fatal, otherwise=self._nobody())

    def _on_refusal(self, lease: Lease, answer: EngineAnswered) -> None:
        if answer.not_now:
            self._lease = None
            lease.not_now()
            self._exchange.spawn(self._wait(again=True))
        elif self._target.version is not None and is_unknown_model(answer.status, answer.body):
            log.warning("engine %s lost %s", lease.engine, self._target.engine_name)
            lease.stale()
            if self._reloads == RELOADS:
                self._exchange.fail(self._nobody())
                return
            self._reloads += 1
            self._let_go()
            self._exchange.spawn(self._wait(again=True))
        elif answer.status == 503:
            lease.failed("it answered 503", fatal=True)
            self._elsewhere(lease, free=True, otherwise=_engine_said(self._request.path, answer))
        elif answer.status in BROKEN:
            self._suspect = lease, f"it answered {answer.status}"
            self._elsewhere(lease, free=False, otherwise=_engine_said(self._request.path, answer))
        else:
            self._exchange.fail(_engine_said(self._request.path, answer))

    def _elsewhere(self, lease: Lease, *, free: bool, otherwise: GatewayError) -> None:
        """Sends to an engine that has not failed this request; answers `otherwise` when there is none."""
        self._tried = (*self._tried, lease.engine)
        free, self._moved = free and not self._moved, self._moved or free
        can = len(self._tried) < ENGINES and self._sender.fleet.has_other(self._tried)
        if not can or not (free or self._sender.retries.try_retry()):
            self._exchange.fail(otherwise)
            return
        self._let_go()
        self._exchange.spawn(self._wait(again=True))

    def _nobody(self) -> GatewayError:
        return Unavailable(
            f"No engine could answer for {self._target.engine_name!r}. Send the request again.",
            retry_after_s=RETRY_AFTER_S,
        )

    def _over(self) -> None:
        """The exchange is."""
        # It holds us, too. Two that hold each other wait for the collector, which looks at what outlived its
        # first passes so seldom that half an hour's traffic piles up.
        transfer, self._transfer = self._transfer, None
        lease, outcome = self._lease, self._exchange.outcome
        answered = outcome is Outcome.COMPLETE and transfer is not None and transfer.failure is None
        if lease is not None and outcome is Outcome.ENGINE_LOST:
            lease.failed("it stopped in mid-answer")
        if answered and self._suspect is not None:
            suspect, why = self._suspect
            suspect.failed(f"{why}, and another engine could answer")
        self._let_go(answered=answered)

    def _let_go(self, *, answered: bool = False) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(answered=answered)
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
        return answered(self._exchange, error)


def answered(exchange: Exchange, error: Exception) -> bool:
    """Answers `error` on the exchange: always true."""
    failure = as_gateway_error(error)
    if type(failure) is GatewayError:
        log.error("request %s failed", exchange.id, exc_info=error)
    exchange.fail(failure)
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
