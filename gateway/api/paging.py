"""Queries of lists on the control plane, as OpenAI reads and refuses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from fastapi import Request

from gateway.errors import BadRequest


def query_of(request: Request, *known: str, also: Sequence[str] = ()) -> Mapping[str, str]:
    """What is asked, by name. Raises `BadRequest` for a name that is not `known` and begins with none of
    `also`: a filter that is not understood must not pass for one that everything fits."""
    for name in request.query_params:
        if name in known or name.startswith(tuple(also)) or name == "api-version":  # Azure's client's
            continue
        near = get_close_matches(name, known, 1)
        hint = f"Did you mean `{near[0]}`?" if near else f"There are {', '.join((*known, *also)) or 'none'}."
        raise BadRequest(
            f"Unknown query parameter `{name[:64]}`. {hint}", code="unknown_parameter", param=name[:64]
        )
    return request.query_params


def limit_of(query: Mapping[str, str], default: int, most: int) -> int:
    """`limit`. Raises `BadRequest`."""
    text = query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= most):
        raise BadRequest(
            f"`limit` is from 1 to {most}, and not {text[:64]!r}.", code="invalid_value", param="limit"
        )
    return int(text)


def ascending_of(query: Mapping[str, str], default: bool = False) -> bool:
    """Whether `order` is asc. Raises `BadRequest`."""
    text = query.get("order")
    if text is None:
        return default
    if text not in ("asc", "desc"):
        raise BadRequest(
            f"`order` is asc or desc, and not {text[:64]!r}.", code="invalid_value", param="order"
        )
    return text == "asc"


def page_of(data: Sequence[Mapping[str, Any]], more: bool) -> dict[str, Any]:
    """A page as the SDK reads it."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }
