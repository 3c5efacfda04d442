"""A request body: taken apart at its top level only, and put together for the engine.

The members stay raw, so what the engine has a parameter for tomorrow passes today. The top level is written
anew, which settles duplicate and oddly escaped member names: what was checked is what the engine sees.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.errors import BadRequest, TooLarge

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_text = msgspec.json.Decoder(str)


def too_large(size: int, limit: int) -> TooLarge:
    """The refusal of a body of `size` bytes, or of so many so far."""
    return TooLarge(
        f"The request body has {size} bytes or more; this gateway takes up to {limit}. "
        "Send less, or have server.max_body_bytes raised."
    )


def members(body: bytes | bytearray) -> dict[str, msgspec.Raw]:
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
