"""The HTTP edge of the Files API.

    POST   /v1/files                 upload, multipart, streamed to disk
    GET    /v1/files                 list
    GET    /v1/files/{id}            retrieve
    GET    /v1/files/{id}/content    its bytes
    DELETE /v1/files/{id}            delete

A key sees its tenant's files. The worker, which has an admin key and works for every tenant, uses
/admin/v1/files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from gateway.api.paging import ascending_of, limit_of, page_of, query_of
from gateway.errors import BadRequest, NotFound, TooLarge
from gateway.files.files import MAX_PAGE, RESULTS, File, Files, check_upload
from gateway.files.multipart import Upload

ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
FIELDS = ("purpose", ANCHOR, SECONDS)
LEAST_S, MOST_S = 3600, 2_592_000
FORM_BYTES = 64 * 1024
"""What a form may have beside its file."""


def add_files(app: FastAPI, files: Files) -> None:
    """Adds the Files API to the control plane."""

    @app.post("/v1/files")
    async def create(request: Request) -> dict[str, Any]:
        _check_length(request, files.max_bytes + FORM_BYTES)
        with files.blobs.staging() as staged:
            upload = Upload(request.headers.get("content-type", ""), staged, files.max_bytes)
            await _receive(request, upload.feed)
            upload.finish()
            for name in upload.fields:
                if name not in FIELDS:
                    raise BadRequest(
                        f"Unknown parameter: {name[:64]!r}.", code="unknown_parameter", param=name[:64]
                    )
            if not upload.has_file:
                raise BadRequest(
                    "'file' is a required property", code="missing_required_parameter", param="file"
                )
            name, purpose = check_upload(upload.filename, upload.fields.get("purpose"), staged.size)
            added = await files.add(request.state.key.tenant, staged, name, purpose, _expiry(upload.fields))
            return added.shown()

    @app.get("/v1/files")
    async def ls(request: Request) -> dict[str, Any]:
        query = query_of(request, "after", "limit", "order", "purpose")
        found, more = await files.list(
            request.state.key.tenant,
            purpose=query.get("purpose"),
            after=query.get("after"),
            limit=limit_of(query, MAX_PAGE, MAX_PAGE),
            ascending=ascending_of(query),
        )
        return page_of([file.shown() for file in found], more)

    @app.get("/v1/files/{id}")
    async def retrieve(id: str, request: Request) -> dict[str, Any]:
        return (await files.get(id, request.state.key.tenant)).shown()

    @app.get("/v1/files/{id}/content")
    async def content(id: str, request: Request) -> FileResponse:
        return _bytes(files, await files.get(id, request.state.key.tenant))

    @app.delete("/v1/files/{id}")
    async def delete(id: str, request: Request) -> dict[str, Any]:
        await files.delete(id, request.state.key.tenant)
        return {"id": id, "object": "file", "deleted": True}

    @app.get("/admin/v1/files/{id}/content")
    async def any_content(id: str) -> FileResponse:
        """The bytes of any tenant's file, for workers."""
        return _bytes(files, await files.get(id, None))

    @app.post("/admin/v1/files", status_code=201)
    async def results(request: Request, tenant: str, filename: str) -> dict[str, Any]:
        """Body: what training measured, for the tenant whose job it was; from workers."""
        _check_length(request, files.max_bytes)
        with files.blobs.staging() as staged:
            await _receive(request, staged.write)
            return (await files.add(tenant, staged, filename, RESULTS)).shown()


async def _receive(request: Request, take: Any) -> None:
    try:
        async for chunk in request.stream():
            await asyncio.to_thread(take, chunk)
    except ClientDisconnect:
        raise BadRequest("The upload was broken off.", code="incomplete_upload") from None


def _check_length(request: Request, most: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise TooLarge(
            f"The upload has {int(length):,} bytes; a file has at most {most:,}. Split it.",
            code="file_too_large",
            param="file",
        )


def _expiry(fields: Mapping[str, str]) -> int | None:
    anchor, seconds = fields.get(ANCHOR), fields.get(SECONDS)
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise BadRequest(
            f"`{ANCHOR}` is {anchor!r}; it must be 'created_at'.", code="invalid_value", param="expires_after"
        )
    if seconds is None or not seconds.isdigit() or not LEAST_S <= int(seconds[:9]) <= MOST_S:
        raise BadRequest(
            f"`{SECONDS}` is {seconds!r}; it must be from {LEAST_S} to {MOST_S}.",
            code="invalid_value",
            param="expires_after",
        )
    return int(seconds)


def _bytes(files: Files, file: File) -> FileResponse:
    path = files.path(file)
    if not path.is_file():
        raise NotFound(
            f"The bytes of {file.id} are gone; upload the file again.",
            code="file_content_missing",
        )
    return FileResponse(path, media_type="application/octet-stream", filename=file.filename)
