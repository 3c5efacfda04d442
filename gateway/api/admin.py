"""The control plane under /admin/v1, as one FastAPI app: adapters, keys, fleet. Admin keys only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from adapters.archive import Extractor
from adapters.base.manifest import BaseManifest
from adapters.errors import AdapterError
from adapters.preflight import Limits, read_manifest
from adapters.preflight import check as preflight
from adapters.registry import Registry
from adapters.store import Store
from adapters.version import Version, check_fine_tuned_name, check_name
from gateway.access import Key, Keys
from gateway.access.tables import DEFAULT_TENANT
from gateway.api.admin_datasets import add_datasets
from gateway.api.admin_fleet import add_fleet
from gateway.api.admin_retraining import add_retraining
from gateway.api.admin_traffic import Traffic, add_traffic
from gateway.api.errors import MethodNotAllowed, as_gateway_error, error_body
from gateway.api.files import add_files
from gateway.api.fine_tuning import add_fine_tuning
from gateway.api.numbered import Numbered
from gateway.datasets import Datasets
from gateway.errors import BadRequest, Forbidden, GatewayError, NotFound, Unavailable
from gateway.files.files import Files
from gateway.fleet import Fleet
from gateway.fleet.wishes import Wishes
from gateway.jobs.jobs import Jobs
from gateway.retraining import Retraining
from gateway.rollout.routes import Routes
from gateway.settings import Settings
from gateway.telemetry import CONTENT_TYPE, Tally, exposition

log = logging.getLogger("hotswap.admin")


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["admin", "inference"] = "inference"
    label: str = Field("", max_length=200)
    tenant: str = Field(DEFAULT_TENANT, max_length=64)


class Found(BaseModel):
    """Of one gate."""

    model_config = ConfigDict(extra="forbid")

    gate: str = Field(max_length=100)
    passed: bool
    measured: str = Field(max_length=500)
    bound: str = Field(max_length=500)


class NewCard(BaseModel):
    """A version's report card. It is passed when every gate is."""

    model_config = ConfigDict(extra="forbid")

    version: str
    passed: bool
    findings: list[Found] = Field(min_length=1, max_length=100)


class Admin:
    """The control plane. `app` is the ASGI app; its OpenAPI document is at /admin/openapi.json."""

    def __init__(
        self,
        *,
        settings: Settings,
        base: BaseManifest,
        keys: Keys,
        registry: Registry,
        store: Store,
        routes: Routes,
        fleet: Fleet,
        wishes: Wishes,
        tally: Tally,
        traffic: Traffic | None,
        datasets: Datasets,
        files: Files | None = None,
        jobs: Jobs | None = None,
        retraining: Retraining | None = None,
    ) -> None:
        self.settings = settings
        self.base = base
        self.keys = keys
        self.registry = registry
        self.store = store
        self.routes = routes
        self.fleet = fleet
        self.wishes = wishes
        self.tally = tally
        self.traffic = traffic
        self.datasets = datasets
        self.files = files
        self.jobs = jobs
        self.retraining = retraining
        self._doomed = asyncio.Event()
        self.app = Numbered(_app(self))

    async def register(
        self,
        name: str,
        request: Request,
        *,
        promote: bool,
        assume_base: bool,
        force: bool,
        known_as: str | None,
    ) -> tuple[Version, bool]:
        """Streams the body into staging, checks it, and registers it. The engine sees none of it before that.

        Memory does not grow with the size of the adapter. Raises `AdapterError`.
        """
        check_name(name)
        if known_as is not None:
            check_fine_tuned_name(known_as)
        with self.store.staging() as staged:
            await self._receive(request, staged)
            claims = await asyncio.to_thread(read_manifest, staged)
            inspection = await asyncio.to_thread(
                preflight,
                staged,
                self.base,
                Limits(self.settings.engine.max_lora_rank, self.settings.registry.max_adapter_bytes),
                claims.get("base_fingerprint"),
                assume_base,
            )
            manifest = {
                "licence": claims.get("licence", "unknown"),
                "lineage": claims.get("lineage", {}),
                "base_fingerprint": self.base.fingerprint,
                "base_assumed": assume_base,
            }
            version, created = await self.registry.add(name, staged, manifest, inspection, by="admin")
        if known_as is not None:
            version = await self.registry.call(version.name, known_as, by="admin")
        if promote:
            version = await self.registry.promote(version.name, by="admin", force=force)
        await self.routes.refresh()
        self.collect_soon()
        return version, created

    def collect_soon(self) -> None:
        """Wakes `keep_collecting`."""
        self._doomed.set()

    async def collect(self) -> list[str]:
        """Deletes the files of versions that nothing may serve again, after the engines let go of them."""
        return [version.name for version in await self.registry.reclaim()]

    async def keep_collecting(self) -> None:
        """Collects once at the start and after every change, until cancelled.

        Beside the requests, because an engine lets go of a version only when its last stream has ended.
        """
        while True:
            self._doomed.clear()
            try:
                for name in await self.collect():
                    log.info("deleted the files of %s", name)
            except (SQLAlchemyError, AdapterError, OSError) as error:
                log.warning(
                    "collecting old versions failed, it is tried again after the next change: %s", error
                )
            await self._doomed.wait()

    async def _receive(self, request: Request, staged: Path) -> None:
        with Extractor(staged, max_bytes=self.settings.registry.max_adapter_bytes) as extractor:
            async for chunk in request.stream():
                await asyncio.to_thread(extractor.feed, chunk)
            await asyncio.to_thread(extractor.finish)


def _app(admin: Admin) -> FastAPI:
    async def admin_only(request: Request) -> None:
        header = request.headers.get("authorization")
        key = admin.keys.authenticate(header.encode("latin-1") if header else None)
        if key.role != "admin":
            raise Forbidden(
                "this needs an admin key, and the key given is for inference only", code="admin_key_required"
            )
        request.state.key = key

    app = FastAPI(
        title="Hotswap control plane",
        docs_url="/admin/docs",
        openapi_url="/admin/openapi.json",
        redoc_url=None,
        dependencies=[Depends(admin_only)],
    )
    _errors(app)
    add_fleet(app, admin.fleet, admin.wishes, admin.routes)
    _adapters(app, admin)
    _keys(app, admin)
    add_datasets(app, admin.datasets)
    if admin.traffic is not None:
        add_traffic(app, admin.traffic, admin.datasets)
    if admin.files is not None:
        add_files(app, admin.files)
    if admin.jobs is not None:
        add_fine_tuning(app, admin.jobs)
    if admin.retraining is not None:
        add_retraining(app, admin.retraining)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus's text format; of all workers together."""
        return Response(exposition(admin.tally), media_type=CONTENT_TYPE)

    return app


def _adapters(app: FastAPI, admin: Admin) -> None:
    registry, routes = admin.registry, admin.routes

    @app.get("/admin/v1/adapters")
    async def ls() -> dict[str, Any]:
        return {
            "data": [
                {
                    "name": adapter.name,
                    "stable": _shown(adapter.stable),
                    "rollback_to": _shown(adapter.rollback_to) if adapter.rollback_to else None,
                    "versions": adapter.versions,
                    "size_bytes": adapter.size_bytes,
                }
                for adapter in await registry.adapters()
            ]
        }

    @app.post("/admin/v1/adapters/{name:path}/versions", status_code=201)
    async def add(
        name: str,
        request: Request,
        promote: bool = False,
        assume_base: bool = False,
        force: bool = False,
        known_as: str | None = None,
    ) -> dict[str, Any]:
        """Body: a plain tar of adapter_config.json, adapter_model.safetensors and, if any, hotswap.json.

        `known_as` is a further name (`ft:…`) that it answers to for good.
        """
        version, created = await admin.register(
            name, request, promote=promote, assume_base=assume_base, force=force, known_as=known_as
        )
        return {**_shown(version), "created": created}

    @app.post("/admin/v1/adapters/{ref:path}/promote")
    async def promote(ref: str, force: bool = False) -> dict[str, Any]:
        version = await registry.promote(ref, by="admin", force=force)
        await routes.refresh()
        return _shown(version)

    @app.put("/admin/v1/adapters/{ref:path}/card")
    async def grade(ref: str, body: NewCard) -> dict[str, Any]:
        version = await registry.show(ref)
        if body.version != version.name:
            raise BadRequest(f"the card is of {body.version!r} and not of {version.name}", param="version")
        if body.passed != all(found.passed for found in body.findings):
            raise BadRequest("a card is passed exactly when all of its findings are", param="passed")
        return _shown(await registry.grade(version.name, body.model_dump(), by="admin"))

    @app.get("/admin/v1/adapters/{ref:path}/card")
    async def card(ref: str) -> dict[str, Any]:
        version = await registry.show(ref)
        found = await registry.card(version.name)
        if found is None:
            raise NotFound(
                f"{version.name} has no report card; make one: hotswap adapters prove {version.name} "
                "--data held-out.jsonl"
            )
        return found

    @app.post("/admin/v1/adapters/{name:path}/rollback")
    async def rollback(name: str) -> dict[str, Any]:
        version = await registry.rollback(name, by="admin")
        await routes.refresh()
        return _shown(version)

    @app.get("/admin/v1/adapters/{ref:path}/diff")
    async def diff(ref: str, other: str) -> dict[str, Any]:
        return await registry.diff(ref, other)

    @app.get("/admin/v1/adapters/{ref:path}")
    async def show(ref: str) -> dict[str, Any]:
        if "@" in ref:
            return _shown(await registry.show(ref))
        versions = await registry.versions(ref)
        return {"name": ref, "versions": [_shown(version) for version in versions]}

    @app.delete("/admin/v1/adapters/{ref:path}")
    async def remove(ref: str) -> dict[str, Any]:
        removed = await registry.remove(ref, by="admin")
        await routes.refresh()
        admin.collect_soon()
        return {"removed": [version.name for version in removed]}

    @app.post("/admin/v1/collect")
    async def collect() -> dict[str, Any]:
        """Deletes the files of versions that nothing may serve again."""
        return {"deleted": await admin.collect()}


def _keys(app: FastAPI, admin: Admin) -> None:
    @app.get("/admin/v1/keys")
    async def ls() -> dict[str, Any]:
        return {"data": [_key(key) for key in await admin.keys.list()]}

    @app.post("/admin/v1/keys", status_code=201)
    async def create(body: NewKey) -> dict[str, Any]:
        """The secret is in this answer and nowhere else, ever again."""
        key, secret = await admin.keys.create(body.role, body.label, body.tenant)
        return {**_key(key), "secret": secret}

    @app.delete("/admin/v1/keys/{key_id}")
    async def revoke(key_id: str) -> dict[str, Any]:
        await admin.keys.revoke(key_id)
        return {"revoked": key_id}


def _errors(app: FastAPI) -> None:
    def answer(error: GatewayError) -> JSONResponse:
        return JSONResponse(error_body(error), status_code=error.status, headers=dict(error.headers()))

    def handle(kind: type[Exception], translate: Callable[[Any], GatewayError]) -> None:
        async def handler(request: Request, error: Exception) -> JSONResponse:
            return answer(translate(error))

        app.add_exception_handler(kind, handler)

    handle(GatewayError, lambda error: error)
    handle(AdapterError, as_gateway_error)
    handle(RequestValidationError, _invalid)
    handle(HTTPException, _not_served)
    handle(SQLAlchemyError, _database_down)


def _invalid(error: RequestValidationError) -> GatewayError:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    return BadRequest(f"{field}: {first['msg']}", param=field)


def _not_served(error: HTTPException) -> GatewayError:
    if error.status_code == 405:
        allow = (error.headers or {}).get("allow", "")
        return MethodNotAllowed(f"This method is not allowed here; use {allow}.", allow=allow)
    return NotFound(f"{error.detail}: nothing is served there", code="unknown_url")


def _database_down(error: SQLAlchemyError) -> GatewayError:
    log.warning("the database refused or was away: %s", error)
    return Unavailable(
        "the database is away, so the control plane cannot answer; requests to /v1 go on",
        retry_after_s=2,
        code="database_unavailable",
    )


def _shown(version: Version) -> dict[str, Any]:
    return {**asdict(version), "name": version.name}


def _key(key: Key) -> dict[str, Any]:
    return asdict(key)
