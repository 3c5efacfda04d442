"""Carry the bytes: one request out to an engine, its answer back as it comes.

`upstream` is the HTTP/1.1 client (a pool of keep-alive connections on httptools), `forward` moves one
answer to an ASGI `send` and gives up within a loop turn of the client leaving. Called by `gateway.api`;
calls nothing but `gateway.errors`. It never looks into a body except an error's.
"""

from gateway.relay.forward import EngineAnswered, Outcome, UpstreamRequest, forward
from gateway.relay.upstream import Upstream, UpstreamFailed

__all__ = ["EngineAnswered", "Outcome", "Upstream", "UpstreamFailed", "UpstreamRequest", "forward"]
