"""The engine's door: every route wants the engine's key. Pure ASGI, for the outermost place."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from adapters.vllm_plugin.answer import App, Receive, Scope, Send, error


class Guard:
    """vLLM's own `--api-key` guards four prefixes and lets OPTIONS through; this one lets nothing through.

    With no key at all it fails closed.
    """

    def __init__(self, app: App, keys: Iterable[str]) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys if key]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._admits(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = error(401, self._reason(), "invalid_api_key", (b"www-authenticate", b"Bearer"))
            await refusal.send(send)

    def _admits(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        # Digests have one length, and compare_digest takes one time: it tells nothing about the keys.
        digest = hashlib.sha256(key.strip()).digest()
        return any(hmac.compare_digest(digest, known) for known in self._digests)

    def _reason(self) -> str:
        if not self._digests:
            return (
                "this engine was started without VLLM_API_KEY, so nobody may use it. Set it and start again"
            )
        return "this engine wants its key on every route: send 'Authorization: Bearer <VLLM_API_KEY>'"
