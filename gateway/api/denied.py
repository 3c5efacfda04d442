"""The request fields that are refused unless `server.allow_fields` names them, and why.

Read out of vLLM's ChatCompletionRequest, CompletionRequest, ResponsesRequest and EmbeddingRequest (0.32):
what makes an engine fetch something, run a template or code, unpickle, or reach another tenant's requests
or cache. `chat_template_kwargs` is not on the list: it only sets variables of the model's own template
(`enable_thinking`), as long as it does not bring a `chat_template`. `documents` is text, and
`structured_outputs` a grammar. A field that is null counts as absent. Names in the allow list: a field of
`FIELDS`, a media key (`image_url`, `image_embeds`, …), the type of a built-in tool (`mcp`), or `lora`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.errors import BadRequest

_TEMPLATE = "it would run a template of the caller's inside the engine"
_TENANT = "it would reach other callers' requests or their cached state"
_MEDIA = "it would change how the engine fetches and decodes media"

FIELDS: Mapping[str, str] = {
    "chat_template": _TEMPLATE,
    "logits_processors": "it would run code inside the engine",
    "prompt_embeds": "it would make the engine unpickle tensors of the caller's",
    "mm_processor_kwargs": _MEDIA,
    "media_io_kwargs": _MEDIA,
    "kv_transfer_params": _TENANT,
    "ec_transfer_params": _TENANT,
    "cache_salt": _TENANT,
    "session_id": _TENANT,
    "request_id": "request ids are always the gateway's",
    "priority": "it would put the request before other callers'",
    "vllm_xargs": "it carries any of the refused fields past this list",
}

_WITH_PARTS = ("messages", "input", "previous_input_messages")
_CLIENT_RUN_TOOLS = frozenset({"function", "custom", "namespace"})
_NULL = b"null"


def check(request: Mapping[str, msgspec.Raw], allowed: frozenset[str]) -> None:
    """Raises `BadRequest` (code `field_not_allowed`, param the field) for the first field that is refused."""
    for field in request.keys() & FIELDS.keys():
        if field not in allowed and given(request, field):
            raise _refusal(field, FIELDS[field])
    for field in request:
        if "lora" in field.lower() and "lora" not in allowed:
            raise _refusal(field, "an adapter is chosen by `model` alone", allow="lora")
    if given(request, "chat_template_kwargs") and "chat_template" not in allowed:
        variables = _decode(request["chat_template_kwargs"], "chat_template_kwargs")
        if isinstance(variables, dict) and "chat_template" in variables:
            raise _refusal("chat_template_kwargs.chat_template", _TEMPLATE, allow="chat_template")
    for field in _WITH_PARTS:
        if field in request:
            _check_media(request[field], field, allowed)
    if given(request, "tools"):
        _check_tools(request["tools"], allowed)


def check_stateless(request: Mapping[str, msgspec.Raw]) -> None:
    """Raises `BadRequest` for what /v1/responses needs stored answers for; this gateway keeps none."""
    for field in ("previous_response_id", "conversation"):
        if given(request, field):
            raise BadRequest(
                f"`{field}` is not supported: this gateway stores no responses. Send the whole "
                "conversation in `input`.",
                code="unsupported_parameter",
                param=field,
            )
    if given(request, "background") and bytes(request["background"]) != b"false":
        raise BadRequest(
            "`background` must be false: this gateway stores no responses to fetch later. Use `stream`.",
            code="unsupported_parameter",
            param="background",
        )


def given(request: Mapping[str, msgspec.Raw], field: str) -> bool:
    """Whether `field` is there and not null."""
    raw = request.get(field)
    return raw is not None and bytes(raw) != _NULL


def _check_media(raw: msgspec.Raw, field: str, allowed: frozenset[str]) -> None:
    text = bytes(raw)
    # Decoding costs; without an escape, a name that is not in the bytes is not in the object.
    if b"_url" not in text and b"_embeds" not in text and b"\\u" not in text:
        return
    for part in _objects(_decode(raw, field)):
        for key, value in part.items():
            if key.endswith("_embeds") and value is not None and key not in allowed:
                raise _refusal(key, FIELDS["prompt_embeds"])
            if key.endswith("_url") and key not in allowed and _is_remote(value):
                raise _refusal(key, "the engine would fetch it; send the content as a data: URL")
        if part.get("type") == "prompt_embeds" and "prompt_embeds" not in allowed:
            raise _refusal("prompt_embeds", FIELDS["prompt_embeds"])


def _is_remote(value: Any) -> bool:
    url = value.get("url") if isinstance(value, dict) else value
    # By what is allowed, not by a list of schemes: vLLM takes "data:" in any case, and fetches or opens
    # the rest.
    return isinstance(url, str) and url != "" and url[:5].lower() != "data:"


def _check_tools(raw: msgspec.Raw, allowed: frozenset[str]) -> None:
    for tool in _objects(_decode(raw, "tools"), into=("tools",)):
        kind = tool.get("type", "function")
        if isinstance(kind, str) and kind not in _CLIENT_RUN_TOOLS and kind not in allowed:
            raise BadRequest(
                f"The built-in tool {kind[:80]!r} is refused: the engine would run it. Send your own "
                f"tools as functions, or have {kind[:80]!r} added to server.allow_fields.",
                code="field_not_allowed",
                param="tools",
            )


def _objects(value: Any, into: tuple[str, ...] | None = None) -> Iterator[dict[str, Any]]:
    """Every object in `value`; below an object only its members `into`, when given."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending += item.values() if into is None else [item[name] for name in into if name in item]
        elif isinstance(item, list):
            pending += item


def _decode(raw: msgspec.Raw, field: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise BadRequest(f"`{field}` is not valid JSON: {error}.", code="invalid_json", param=field) from None
    except RecursionError:
        raise BadRequest(f"`{field}` is nested too deeply.", code="invalid_json", param=field) from None


def _refusal(field: str, why: str, allow: str | None = None) -> BadRequest:
    shown = field[:80]
    return BadRequest(
        f"`{shown}` is refused: {why}. A deployment that trusts its callers can allow it by adding "
        f"{(allow or shown)!r} to server.allow_fields.",
        code="field_not_allowed",
        param=shown,
    )
