"""The control plane's part about traffic: reading what is remembered, and saying what is to be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any, Literal, Protocol

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field

from gateway.datasets import Datasets
from gateway.errors import TooLarge
from gateway.traffic.amendments import Amendments
from gateway.traffic.examples import examples
from gateway.traffic.feedback import Feedback, bare
from gateway.traffic.forgetting import Forgetting
from gateway.traffic.imports import MAX_PIECE_BYTES, Import, Imports
from gateway.traffic.policy import Capture, Kind, Policies, Redact, Rule
from gateway.traffic.query import Wanted, one
from gateway.traffic.readers import Readers

JSONL = "application/jsonl"
EXPORTED = 1_000_000
"""Exchanges with feedback that one export looks for: the newest."""


class Traffic(Protocol):
    """The part of `gateway.traffic.traffic` that is used here."""

    @property
    def policies(self) -> Policies: ...
    @property
    def readers(self) -> Readers: ...
    @property
    def feedback(self) -> Feedback: ...
    @property
    def amendments(self) -> Amendments: ...
    @property
    def forgetting(self) -> Forgetting: ...
    @property
    def imports(self) -> Imports: ...


class NewRule(BaseModel):
    """What a policy says; what is left out, it says nothing about."""

    model_config = ConfigDict(extra="forbid")

    capture: Capture | None = None
    sample: float | None = Field(None, ge=0, le=1)
    redact: Redact | None = None
    retention_days: int | None = Field(None, ge=1)
    consent: str | None = Field(None, max_length=200)


class Wish(BaseModel):
    """What is to be forgotten: all that there is now of a unit or a key, or one request."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["unit", "key", "request"]
    value: str
    tenant: str = "default"


def _wanted(
    route: str | None = None,
    version: str | None = None,
    tenant: str | None = None,
    key: str | None = None,
    unit: str | None = None,
    since: float | None = None,
    until: float | None = None,
    error: str | None = None,
    text: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    oldest_first: bool = False,
) -> Wanted:
    return Wanted(
        route=route,
        version=version,
        tenant=tenant,
        key=key,
        unit=unit,
        since=since,
        until=until,
        error=error,
        text=text,
        after=after,
        limit=limit,
        oldest_first=oldest_first,
    )


Filters = Annotated[Wanted, Depends(_wanted)]


def add_traffic(app: FastAPI, traffic: Traffic, datasets: Datasets) -> None:
    """Adds /admin/v1/traffic to the control plane."""

    async def whole(operation: str, wanted: Wanted) -> Response:
        asked = traffic.readers.ask(operation, wanted, traffic.forgetting.now)
        pieces = [piece async for piece in asked]
        return Response(b"".join(pieces), media_type="application/json")

    async def decoded(operation: str, wanted: Wanted) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(bytes((await whole(operation, wanted)).body))
        return body

    async def thought(wanted: Wanted, feedback: str | None, most: int = 10_000) -> Wanted:
        """The same, of exchanges with such feedback."""
        if feedback is None:
            return wanted
        return replace(wanted, ids=tuple(await traffic.feedback.exchanges(feedback, most)))

    @app.get("/admin/v1/traffic")
    async def ls(wanted: Filters, feedback: str | None = None) -> dict[str, Any]:
        """A page of exchanges, newest first, without their words. `next` is the next page's `after`.

        `feedback` is any, up, down or corrected.
        """
        page = await decoded("page", await thought(wanted, feedback))
        ids = [row["id"] for row in page["data"]]
        said, amended = await traffic.feedback.of(ids), await traffic.amendments.of(ids)
        for row in page["data"]:
            row["feedback"] = said.get(row["id"])
            if row["id"] in amended:
                row["metadata"] = json.dumps(amended[row["id"]])  # JSON, as the others are
        return page

    @app.get("/admin/v1/traffic/stats")
    async def stats(wanted: Filters) -> Response:
        """Requests, errors, tokens and times by route and version."""
        return await whole("stats", replace(wanted, limit=None))

    @app.get("/admin/v1/traffic/export")
    async def export(
        wanted: Filters, all: bool = False, feedback: str | None = None, about: bool = False
    ) -> Response:
        """Whole exchanges as JSON Lines in OpenAI's chat format, as they are read. With `about`, `metadata`
        has what a trainer must know of each: `at`, `unit` (a keyed hash), `consent`, `feedback` and more."""
        chosen = await thought(replace(wanted, limit=None) if all else wanted, feedback, EXPORTED)
        pieces = traffic.readers.ask("examples" if about else "export", chosen, traffic.forgetting.now)
        if about:
            pieces = examples(pieces, traffic.feedback.of, traffic.forgetting.pseudonym)
        first = await anext(pieces, b"")  # a refusal is answered as one, not in the middle of a stream
        return StreamingResponse(_chained(first, pieces), media_type=JSONL)

    @app.post("/admin/v1/traffic/import")
    async def import_(
        request: Request,
        route: str,
        source: str,
        tenant: str = "default",
        consent: str | None = None,
        unit_field: str = "",
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Body: JSON Lines, a piece of the file `source`. Each exchange is imported once, however often it is
        sent; lines that cannot be are told with their number in the piece and why."""
        wanted = Import(route, source, tenant, consent, unit_field, dry_run)
        return await traffic.imports.take(wanted, await _piece(request))

    @app.get("/admin/v1/traffic/policies")
    async def policies() -> dict[str, Any]:
        """What holds where nothing else is said, and every rule."""
        return {
            "default": asdict(traffic.policies.default),
            "data": [asdict(rule) for rule in traffic.policies.rules],
        }

    @app.put("/admin/v1/traffic/policies/{kind}/{name:path}")
    async def put_policy(kind: Kind, name: str, body: NewRule) -> dict[str, Any]:
        rule = Rule(kind, name, **body.model_dump())
        await traffic.policies.put(rule)
        return asdict(rule)

    @app.delete("/admin/v1/traffic/policies/{kind}/{name:path}")
    async def remove_policy(kind: Kind, name: str) -> dict[str, Any]:
        await traffic.policies.remove(kind, name)
        return {"removed": f"{kind}/{name}"}

    @app.get("/admin/v1/traffic/forgotten")
    async def forgotten() -> dict[str, Any]:
        """Every wish to forget, whether it is fulfilled, and which datasets and versions learned from what it
        means."""
        learned = await datasets.learned()
        nothing: dict[str, list[Any]] = {"datasets": [], "versions": []}
        return {"data": [wish | learned.get(wish["id"], nothing) for wish in await traffic.forgetting.list()]}

    @app.post("/admin/v1/traffic/forgotten", status_code=202)
    async def forget(body: Wish) -> dict[str, Any]:
        """Nobody reads it any more, from now on; then it is erased."""
        value = bare(body.value) if body.kind == "request" else body.value
        return await traffic.forgetting.add(body.kind, value, body.tenant)

    @app.get("/admin/v1/traffic/{id}")
    async def show(id: str) -> dict[str, Any]:
        """One exchange, with every word that was kept, and with what was thought of it."""
        try:
            wanted = one(bare(id))
        except ValueError:
            wanted = Wanted(id=bare(id), limit=1)  # imported, or no id at all
        found = await decoded("show", wanted)
        id = found["id"]
        said, amended = await traffic.feedback.of([id]), await traffic.amendments.of([id])
        return {**found, "metadata": amended.get(id, found["metadata"]), "feedback": said.get(id)}


async def _piece(request: Request) -> bytes:
    """The body. Raises `TooLarge` before all of it is there."""
    piece = bytearray()
    async for chunk in request.stream():
        piece += chunk
        if len(piece) > MAX_PIECE_BYTES:
            raise TooLarge(f"A piece of a file has at most {MAX_PIECE_BYTES:,} bytes; send several.")
    return bytes(piece)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
