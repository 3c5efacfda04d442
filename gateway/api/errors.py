"""The one place where a failure becomes OpenAI's error body.

Three kinds come here: the gateway's own (`gateway.errors`), the registry's (`adapters.errors`), and what an
engine answered, whose body has another shape (`code` is a number there) and may say more than a caller should
know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from adapters.errors import AdapterError, Conflicting, OverQuota, Refused, StoreFull, TooBig, Unknown
from gateway.errors import BadRequest, Conflict, GatewayError, NotFound, Overloaded, TooLarge, Unavailable

RETRY_AFTER_S = 1.0
"""Asked of a client when an engine is gone and nobody knows better."""


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self._allow = allow

    def headers(self) -> Mapping[str, str]:
        return {"allow": self._allow}


class RequestTimeout(GatewayError):
    """The body came too slowly. The connection is closed, because the rest of it is still to come."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"

    def headers(self) -> Mapping[str, str]:
        return {"connection": "close"}


class InsufficientStorage(GatewayError):
    status = 507
    type = "server_error"


class EngineError(GatewayError):
    """What an engine said, with its own status."""

    def __init__(self, status: int, message: str, *, param: str | None = None) -> None:
        super().__init__(message, code="engine_error" if status >= 500 else None, param=param)
        self.status = status
        self.type = "server_error" if status >= 500 else "invalid_request_error"


def error_body(error: GatewayError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_json(error: GatewayError) -> bytes:
    return msgspec.json.encode(error_body(error))


def as_gateway_error(error: Exception) -> GatewayError:
    """The answer to any failure. Of one that nobody foresaw it tells nothing; log that one."""
    match error:
        case GatewayError():
            return error
        case Refused():
            return BadRequest(error.message, code=error.code)
        case Unknown():
            return NotFound(error.message, code=error.code or "adapter_not_found")
        case Conflicting():
            return Conflict(error.message, code=error.code or "conflict")
        case TooBig():
            return TooLarge(error.message, code=error.code or "adapter_too_large")
        case OverQuota():
            return InsufficientStorage(error.message, code=error.code or "over_quota")
        case StoreFull():
            return InsufficientStorage(error.message, code=error.code or "store_full")
        case AdapterError():
            return BadRequest(error.message, code=error.code)
        case _:
            return GatewayError("The gateway failed on this request. Its log has the details.")


def is_unknown_model(status: int, body: bytes) -> bool:
    """Whether an engine's answer says that it does not know the model (vLLM after a restart)."""
    if status != 404:
        return False
    message, param = _said(body)
    return param == "model" or (message.startswith("The model ") and "does not exist" in message)


def engine_error(status: int, body: bytes, retry_after: bytes | None = None) -> GatewayError:
    """The answer to give for an engine's error answer.

    4xx keep vLLM's words, which are about the request. 5xx do not: they are about the inside of the engine. A
    dead engine (vLLM answers 500 for it until it has stopped) and an engine that refuses our key are
    unavailable.
    """
    message, param = _said(body)
    if status in (401, 403):
        return Unavailable(
            "The engine refused the gateway's key. Its operator must give both the same one.",
            retry_after_s=10.0,
        )
    if status == 429:
        return Overloaded(message or "The engine has too many requests.", retry_after_s=_seconds(retry_after))
    if status == 503 or (status >= 500 and ("EngineCore" in message or "EngineDead" in message)):
        return Unavailable(
            "The engine is not available. Send the request again.", retry_after_s=_seconds(retry_after)
        )
    if status == 501:
        return BadRequest(message or "The engine does not support this request.", code="not_supported")
    if status < 400:
        return EngineError(502, f"The engine answered with status {status}, which is no answer.")
    if status >= 500:
        return EngineError(status, "The engine failed on this request. Its log has the details.")
    return EngineError(status, message or f"The engine refused this request ({status}).", param=param)


def _said(body: bytes) -> tuple[str, str | None]:
    try:
        answer = msgspec.json.decode(body)  # refuses lone surrogates, which no answer of ours could hold
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", None
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        return "", None
    message, param = error.get("message"), error.get("param")
    return message if isinstance(message, str) else "", param if isinstance(param, str) else None


def _seconds(retry_after: bytes | None) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else RETRY_AFTER_S
