"""The control plane's OpenAI part, files and jobs, on a real socket and a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import openai

from adapters.version import Version
from gateway.access import Key
from gateway.api.admin import Admin
from gateway.db import Database
from gateway.errors import NotFound, Unauthorized
from gateway.files.blobs import Blobs
from gateway.files.files import Files
from gateway.jobs.jobs import Jobs, Terms
from tests.relay.serving import serving

KEYS = {
    b"Bearer good": Key("key_1", "admin", "", "acme", datetime.now(UTC)),
    b"Bearer other": Key("key_2", "admin", "", "globex", datetime.now(UTC)),
    b"Bearer app": Key("key_3", "inference", "", "acme", datetime.now(UTC)),
}


class Keys:
    def authenticate(self, authorization: bytes | None) -> Key:
        if not authorization:
            raise Unauthorized("You didn't provide an API key.", code="missing_api_key")
        if authorization not in KEYS:
            raise Unauthorized("Incorrect API key provided.")
        return KEYS[authorization]


def resolve(model: str) -> Version | None:
    """The base is all that there is."""
    if model != "base":
        raise NotFound(f"The model {model!r} does not exist.", code="model_not_found", param="model")
    return None


@dataclass
class Control:
    """`sdk` and `http` have the key of tenant acme, who is an admin."""

    url: str
    database: Database
    files: Files
    sdk: openai.AsyncOpenAI
    http: httpx.AsyncClient

    def sdk_of(self, key: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0)


@asynccontextmanager
async def running(
    database: Database,
    folder: Path,
    *,
    max_bytes: int = 1 << 20,
    quota_bytes: int = 1 << 24,
    has_worker: bool = True,
    webhook: bool = False,
) -> AsyncIterator[Control]:
    nothing = cast(Any, None)
    files = Files(database.engine, Blobs(folder / "files"), max_bytes=max_bytes, quota_bytes=quota_bytes)
    admin = Admin(
        settings=nothing,
        base=nothing,
        keys=cast(Any, Keys()),
        registry=nothing,
        store=nothing,
        routes=nothing,
        fleet=nothing,
        wishes=nothing,
        tally=nothing,
        traffic=None,
        datasets=nothing,
        files=files,
        jobs=Jobs(database.engine, files, Terms("base", ("supervised",), resolve, has_worker, webhook)),
    )
    async with serving(admin.app) as port:
        url = f"http://127.0.0.1:{port}"
        headers = {"authorization": "Bearer good"}
        async with (
            httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as http,
            openai.AsyncOpenAI(base_url=url + "/v1", api_key="good", max_retries=0) as sdk,
        ):
            yield Control(url, database, files, sdk, http)
