"""Every answer of the control plane has an `x-request-id`, as those of the request path do."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.requestid import RequestIds


class Numbered:
    """ASGI middleware. The openai SDK shows the id as `_request_id`, and in its errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        line = (b"x-request-id", next(self._ids).encode())

        async def numbered(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), line]}
            await send(message)

        await self._app(scope, receive, numbered)
