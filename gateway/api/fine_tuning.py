"""The HTTP edge of fine-tuning jobs.

    POST /v1/fine_tuning/jobs                            create
    GET  /v1/fine_tuning/jobs                            list
    GET  /v1/fine_tuning/jobs/{id}                       retrieve
    POST /v1/fine_tuning/jobs/{id}/{cancel,pause,resume}
    GET  /v1/fine_tuning/jobs/{id}/events                list; with ?stream=true server-sent events
    GET  /v1/fine_tuning/jobs/{id}/checkpoints           list

Admin keys only: a job takes a device for hours, and makes what others then are answered by.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from gateway.api.paging import limit_of, page_of, query_of
from gateway.errors import BadRequest
from gateway.jobs.jobs import MAX_PAGE, Jobs
from gateway.jobs.request import MAX_BODY_BYTES, read

PAGE = 20
LOOK_EVERY_S = 0.5
"""How often a stream of events asks whether there are more."""
KEEP_ALIVE_S = 15.0
"""A stream that has nothing to say says so, for proxies that close what is silent."""

_PAIR = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def add_fine_tuning(app: FastAPI, jobs: Jobs, look_every_s: float = LOOK_EVERY_S) -> None:
    """Adds fine-tuning jobs to the control plane."""

    @app.post("/v1/fine_tuning/jobs")
    async def create(request: Request) -> JSONResponse:
        key = request.state.key
        return JSONResponse(await jobs.create(key.tenant, key.id, read(await _body(request))))

    @app.get("/v1/fine_tuning/jobs")
    async def ls(request: Request) -> JSONResponse:
        query = query_of(request, "after", "limit", "metadata", also=("metadata[",))
        metadata = {pair[1]: value for name, value in query.items() if (pair := _PAIR.fullmatch(name))}
        without = query.get("metadata")
        if without not in (None, "null") or (without and metadata):
            raise BadRequest(
                "`metadata` is asked for as metadata[key]=value, or as metadata=null alone.",
                code="invalid_value",
                param="metadata",
            )
        if any("\0" in text for pair in metadata.items() for text in pair):
            raise BadRequest("`metadata` holds a NUL.", code="invalid_value", param="metadata")
        found, more = await jobs.list(
            request.state.key.tenant,
            query.get("after"),
            limit_of(query, PAGE, MAX_PAGE),
            metadata,
            bool(without),
        )
        return JSONResponse(page_of(found, more))

    @app.get("/v1/fine_tuning/jobs/{id}")
    async def retrieve(id: str, request: Request) -> JSONResponse:
        query_of(request)
        return JSONResponse(await jobs.retrieve(request.state.key.tenant, id))

    @app.post("/v1/fine_tuning/jobs/{id}/cancel")
    async def cancel(id: str, request: Request) -> JSONResponse:
        return JSONResponse(await jobs.cancel(request.state.key.tenant, id))

    @app.post("/v1/fine_tuning/jobs/{id}/pause")
    async def pause(id: str, request: Request) -> JSONResponse:
        return JSONResponse(await jobs.pause(request.state.key.tenant, id))

    @app.post("/v1/fine_tuning/jobs/{id}/resume")
    async def resume(id: str, request: Request) -> JSONResponse:
        return JSONResponse(await jobs.resume(request.state.key.tenant, id))

    @app.get("/v1/fine_tuning/jobs/{id}/events")
    async def events(id: str, request: Request) -> Response:
        query, tenant = query_of(request, "after", "limit", "stream"), request.state.key.tenant
        stream = query.get("stream", "false").lower()
        if stream not in ("true", "false"):
            raise BadRequest(
                f"`stream` is true or false, and not {stream[:64]!r}.", code="invalid_value", param="stream"
            )
        if stream == "true":
            await jobs.retrieve(tenant, id)  # a refusal is answered as one
            return StreamingResponse(
                _follow(jobs, tenant, id, look_every_s),
                media_type="text/event-stream",
                headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
            )
        found, more = await jobs.events(tenant, id, query.get("after"), limit_of(query, PAGE, MAX_PAGE))
        return JSONResponse(page_of(found, more))

    @app.get("/v1/fine_tuning/jobs/{id}/checkpoints")
    async def checkpoints(id: str, request: Request) -> JSONResponse:
        query = query_of(request, "after", "limit")
        found, more = await jobs.checkpoints(
            request.state.key.tenant, id, query.get("after"), limit_of(query, 10, MAX_PAGE)
        )
        return JSONResponse(page_of(found, more))


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise BadRequest(f"The body has more than {MAX_BODY_BYTES:,} bytes.", code="body_too_large")
    except ClientDisconnect:
        raise BadRequest("The request was broken off.", code="incomplete_body") from None
    return bytes(body)


async def _follow(jobs: Jobs, tenant: str, id: str, every_s: float) -> AsyncIterator[bytes]:
    """Every event, oldest first, until the job has ended; then `[DONE]`."""
    after, said = 0, time.monotonic()
    while True:
        found, after, ended = await jobs.events_since(tenant, id, after)
        for event in found:
            yield b"data: %b\n\n" % json.dumps(event).encode()
            said = time.monotonic()
        if ended:
            break
        if time.monotonic() - said > KEEP_ALIVE_S:
            yield b": nothing new\n\n"
            said = time.monotonic()
        await asyncio.sleep(every_s)
    yield b"data: [DONE]\n\n"
