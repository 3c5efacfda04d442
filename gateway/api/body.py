"""A request body: read once, within its limits, and taken apart at its top level only.

The members stay raw, so what the engine has a parameter for tomorrow passes today. The top level is written
anew, which settles duplicate and oddly escaped member names: what was checked is what the engine sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from gateway.api.errors import RequestTimeout
from gateway.errors import BadRequest, TooLarge
from gateway.relay.forward import Receive

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_text = msgspec.json.Decoder(str)


class ClientLeft(Exception):
    """The client went away before its body was complete; there is nobody to answer."""


async def read_body(receive: Receive, length: bytes | None, *, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. `length` is the content-length header.

    Raises `TooLarge` (by the header, before anything is read, or as soon as more has arrived),
    `RequestTimeout`, or `ClientLeft`.
    """
    if length is not None and length.isdigit() and int(length) > max_bytes:
        raise _too_large(int(length), max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(receive, max_bytes)
    except TimeoutError:
        raise RequestTimeout(
            f"The request body was not complete after {timeout_s:g} s. Send it faster, or send less."
        ) from None


async def _read(receive: Receive, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large(size, max_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(size: int, limit: int) -> TooLarge:
    return TooLarge(
        f"The request body has {size} bytes or more; this gateway takes up to {limit}. "
        "Send less, or have server.max_body_bytes raised."
    )


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members of a JSON object, each as it was written. Raises `BadRequest`."""
    if not body:
        raise BadRequest("The request has no body; send a JSON object with a `model`.", code="invalid_json")
    try:
        if not body.isascii():
            body.decode()
        return _members.decode(body)
    except msgspec.ValidationError:
        raise BadRequest(
            "The request body is JSON, but not an object; send an object with a `model`.", code="invalid_json"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.", code="invalid_json") from None
    except RecursionError:
        raise BadRequest("The request body is nested too deeply.", code="invalid_json") from None


def model_of(request: Mapping[str, msgspec.Raw]) -> str:
    """What the client asked for in `model`. Raises `BadRequest` (param `model`)."""
    raw = request.get("model")
    if raw is None:
        raise BadRequest(
            "The request names no `model`. GET /v1/models lists what this gateway serves.",
            code="missing_required_parameter",
            param="model",
        )
    try:
        return _text.decode(raw)
    except msgspec.MsgspecError:
        shown = bytes(raw)[:80].decode(errors="replace")
        raise BadRequest(
            f"`model` must be a string, not {shown}.", code="invalid_type", param="model"
        ) from None


def for_engine(request: Mapping[str, msgspec.Raw], engine_name: str, **ours: str) -> bytes:
    """The request as the engine gets it: `model` and `ours` set, everything else as the client wrote it."""
    return _encode({**request, "model": engine_name, **ours})
