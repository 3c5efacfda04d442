"""The control plane's part about engines: what they hold, what happened to them, draining and pinning."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from gateway.errors import Conflict, NotFound
from gateway.fleet import Fleet
from gateway.fleet.wishes import Wishes
from gateway.rollout.routes import Routes


def add_fleet(app: FastAPI, fleet: Fleet, wishes: Wishes, routes: Routes) -> None:
    """Adds /admin/v1/fleet and the pins of versions to the control plane."""

    def follow() -> None:  # here at once; other gateways hear of it from Postgres
        fleet.follow(pinned=wishes.pinned, drained=wishes.drained)

    @app.get("/admin/v1/fleet")
    async def engines() -> dict[str, Any]:
        """Every engine: its state, why, and what is resident there. `limits` hold for adapters to come."""
        return {
            "data": [asdict(engine) for engine in await fleet.state()],
            "limits": {"max_lora_rank": fleet.max_lora_rank},
        }

    @app.get("/admin/v1/fleet/events")
    async def events(since: int = 0) -> dict[str, Any]:
        """What the gateway process that answers has seen after the event `since`, oldest first."""
        return {"data": [asdict(event) for event in fleet.events.since(since)]}

    @app.post("/admin/v1/fleet/{engine}/drain")
    async def drain(engine: str) -> dict[str, Any]:
        """It takes nothing new; what is in flight there ends. `drained` is told as an event."""
        known = [state.engine for state in await fleet.state()]
        if engine not in known:
            raise NotFound(
                f"there is no engine {engine!r}; there are {', '.join(known) or 'none'}",
                code="engine_not_found",
            )
        await wishes.add("drained", engine)
        follow()
        return {"engine": engine, "draining": True}

    @app.post("/admin/v1/fleet/{engine}/resume")
    async def resume(engine: str) -> dict[str, Any]:
        await wishes.remove("drained", engine)
        follow()
        return {"engine": engine, "draining": False}

    @app.get("/admin/v1/adapters/{ref:path}/tensors")
    async def tensors(ref: str) -> dict[str, Any]:
        """Digests of the weights that engines multiply with for a version; see docs/training.md."""
        version = routes.resolve(ref).version
        if version is None:
            raise Conflict(f"{ref!r} is the base, which has no adapter's weights")
        return {"version": version.name, "engines": await fleet.tensors(version.name)}

    @app.post("/admin/v1/adapters/{ref:path}/pin")
    async def pin(ref: str) -> dict[str, Any]:
        """It stays resident at its homes. `ref` is a route, or names a version."""
        version = routes.resolve(ref).version
        if version is None:
            raise Conflict(f"{ref!r} is the base, which is always there")
        room = fleet.pin_room
        if version.name not in wishes.pinned and room is not None and len(wishes.pinned) >= room:
            raise Conflict(
                f"{len(wishes.pinned)} versions are pinned and an engine can keep {room} beside the adapters "
                "in its slots; unpin one, or start engines with a larger --max-cpu-loras",
                code="too_many_pins",
            )
        await wishes.add("pinned", version.name)
        follow()
        return {"version": version.name, "pinned": True}

    @app.post("/admin/v1/adapters/{ref:path}/unpin")
    async def unpin(ref: str) -> dict[str, Any]:
        version = routes.resolve(ref).version if ref not in wishes.pinned else None
        name = ref if version is None else version.name
        await wishes.remove("pinned", name)
        follow()
        return {"version": name, "pinned": False}
