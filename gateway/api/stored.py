"""The HTTP edge of stored chat completions: paths, methods and queries, as OpenAI has them.

    GET    /v1/chat/completions                 list
    GET    /v1/chat/completions/{id}            retrieve
    POST   /v1/chat/completions/{id}            update
    DELETE /v1/chat/completions/{id}            delete
    GET    /v1/chat/completions/{id}/messages   what it was asked with

Off the request path: each is answered by a task that may wait for a reader and for Postgres.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol
from urllib.parse import parse_qsl

from gateway.api.exchange import Exchange
from gateway.errors import BadRequest, NotFound
from gateway.traffic.stored import Page

PATH = "/v1/chat/completions"
MAX_LIMIT = 100
MOST_PARAMETERS = 64

_ONE = re.compile(rf"{PATH}/([^/]+)(/messages)?")
_PAIR = re.compile(r"metadata\[(.*)\]", re.DOTALL)


class Stored(Protocol):
    """The part of `gateway.traffic.stored` that is used here."""

    async def list(
        self, key: Any, part: Page, model: str | None, metadata: Mapping[str, str], /
    ) -> bytes: ...
    async def retrieve(self, key: Any, id: str, /) -> bytes: ...
    async def messages(self, key: Any, id: str, part: Page, /) -> bytes: ...
    async def update(self, key: Any, id: str, body: bytes | bytearray, /) -> bytes: ...
    async def delete(self, key: Any, id: str, /) -> bytes: ...


class Names(Protocol):
    def resolve(self, model: str, /) -> Any: ...


def methods(path: str) -> Sequence[str]:
    """What may be done at a path that begins with `PATH`. Raises `NotFound`."""
    if path == PATH:
        return ("POST", "GET", "HEAD")
    found = _ONE.fullmatch(path)
    if found is None:
        raise NotFound(f"Nothing is served at {path[:200]}.", code="unknown_url")
    return ("GET", "HEAD") if found[2] else ("GET", "HEAD", "POST", "DELETE")


async def handle(stored: Stored, names: Names, exchange: Exchange) -> bytes:
    """The JSON that answers an exchange whose method is one of `methods`. Raises `BadRequest`, and what
    `stored` raises."""
    key, method = exchange.key, exchange.method
    given = _query(exchange.query)
    found = _ONE.fullmatch(exchange.path)
    if found is None:
        metadata = {pair[1]: given.pop(name) for name in list(given) if (pair := _PAIR.fullmatch(name))}
        _check_known(given, "after", "limit", "order", "model", beside=("metadata[key]",))
        return await stored.list(key, _page(given), _model(names, given.get("model")), metadata)
    id, messages = found.groups()
    if messages:
        _check_known(given, "after", "limit", "order")
        return await stored.messages(key, id, _page(given))
    if method == "POST":
        return await stored.update(key, id, exchange.body)
    if method == "DELETE":
        return await stored.delete(key, id)
    return await stored.retrieve(key, id)


def _query(raw: bytes) -> dict[str, str]:
    """Of a name that is given twice, the last."""
    try:
        pairs = parse_qsl(
            raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS
        )
    except ValueError as error:
        raise BadRequest(f"The query cannot be read: {error}.", code="invalid_query") from None
    return dict(pairs)


def _check_known(given: Mapping[str, str], *known: str, beside: Sequence[str] = ()) -> None:
    """A filter that is not understood must not pass for one that everything fits."""
    for name in given:
        if name not in known and name != "api-version":  # Azure's client sends that with everything
            near = get_close_matches(name, known, 1)
            hint = f"Did you mean `{near[0]}`?" if near else f"There are {', '.join((*known, *beside))}."
            raise BadRequest(
                f"Unknown query parameter `{name[:64]}`. {hint}", code="unknown_parameter", param=name[:64]
            )


def _page(given: Mapping[str, str]) -> Page:
    limit, order = given.get("limit", "20"), given.get("order", "asc")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= MAX_LIMIT):
        raise BadRequest(
            f"`limit` is from 1 to {MAX_LIMIT}, and not {limit[:64]!r}.", code="invalid_value", param="limit"
        )
    if order not in ("asc", "desc"):
        raise BadRequest(
            f"`order` is asc or desc, and not {order[:64]!r}.", code="invalid_value", param="order"
        )
    return Page(given.get("after"), int(limit), order == "asc")


def _model(names: Names, model: str | None) -> str | None:
    """A route, or the version that a numbered name means now."""
    if model is None or "@" not in model:
        return model
    try:
        name: str = names.resolve(model).engine_name
    except NotFound:  # it is served no more, and what it answered is there all the same
        return model
    return name
