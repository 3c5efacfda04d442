"""Carry the bytes: one request out to an engine, its answer back as it comes.

`upstream` is the HTTP/1.1 client (a pool of keep-alive connections on httptools), `transfer` moves one answer
to a `Client` by plain calls, with no task or future between the two sockets, `outbox` sends small writes
together, `silence` gives up on engines that say nothing. Called by `gateway.api`; calls nothing of ours. It
never looks into a body except an error's.
"""

from gateway.relay.outbox import Outbox
from gateway.relay.silence import Silence
from gateway.relay.transfer import Engine, EngineAnswered, Outcome, Transfer, UpstreamRequest
from gateway.relay.upstream import Upstream, UpstreamFailed

__all__ = [
    "Engine",
    "EngineAnswered",
    "Outbox",
    "Outcome",
    "Silence",
    "Transfer",
    "Upstream",
    "UpstreamFailed",
    "UpstreamRequest",
]
