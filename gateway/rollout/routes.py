"""From what a client writes in `model` to exactly one version, from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from adapters.version import Reference, Version
from gateway.errors import NotFound


@dataclass(frozen=True, slots=True)
class Target:
    """What will answer. `version` is None for the base; `engine_name` is the only name sent to an engine."""

    version: Version | None
    engine_name: str


class Snapshot(Protocol):
    """The registry at one moment. `versions` is keyed by name (`support@3f9c2ab71e04`)."""

    @property
    def routes(self) -> Mapping[str, Version]: ...
    @property
    def versions(self) -> Mapping[str, Version]: ...
    @property
    def numbers(self) -> Mapping[tuple[str, int], Version]: ...


class Source(Protocol):
    async def snapshot(self) -> Snapshot: ...


@dataclass(frozen=True, slots=True)
class _Nothing:
    routes: Mapping[str, Version] = field(default_factory=dict)
    versions: Mapping[str, Version] = field(default_factory=dict)
    numbers: Mapping[tuple[str, int], Version] = field(default_factory=dict)


class Routes:
    """The routing table. `refresh()` replaces it whole; a failed refresh leaves the last one in force."""

    def __init__(self, source: Source, base: str) -> None:
        self._source = source
        self._base = Target(version=None, engine_name=base)
        self._snapshot: Snapshot = _Nothing()
        self._targets: dict[str, Target] = {}
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> None:
        """Reads the registry. Routes keep answering from the old table until the new one is complete.

        One at a time, so that a slow reading of an older state never replaces a newer one.
        """
        async with self._refreshing:
            self._replace(await self._source.snapshot())

    def _replace(self, snapshot: Snapshot) -> None:
        targets = {self._base.engine_name: self._base}
        for version in snapshot.versions.values():
            target = Target(version=version, engine_name=version.name)
            targets[version.name] = target
            targets[f"{version.adapter}@v{version.number}"] = target
            targets[f"{version.adapter}@{version.digest}"] = target
        for route, version in snapshot.routes.items():
            targets[route] = Target(version=version, engine_name=version.name)
        self._snapshot, self._targets = snapshot, targets

    def resolve(self, model: str) -> Target:
        """The target for `model`: the base's name, a route, `name@v3` or `name@<12..64 hex digits>`.

        Raises `NotFound` (code `model_not_found`), with the nearest thing that exists.
        """
        target = self._targets.get(model)
        if target is not None:
            return target
        if model == self._base.engine_name:
            return self._base
        return self._by_long_digest(model)

    def models(self) -> Sequence[Mapping[str, Any]]:
        """OpenAI model objects: the base, every route, and every pinned version."""
        listed: list[Mapping[str, Any]] = [_model(self._base.engine_name, 0, root=None)]
        for route, version in sorted(self._snapshot.routes.items()):
            listed.append(_model(route, _seconds(version), root=version.name))
        for name, version in sorted(self._snapshot.versions.items()):
            listed.append(_model(name, _seconds(version), root=self._base.engine_name))
        return listed

    def desired(self) -> Sequence[Version]:
        """Versions that engines should hold before they take traffic: the stable one of every route."""
        return [version for _, version in sorted(self._snapshot.routes.items())]

    def _by_long_digest(self, model: str) -> Target:
        reference = Reference.parse(model)
        if reference is not None and reference.digest is not None:
            short = f"{reference.adapter}@{reference.digest[:12]}"
            target = self._targets.get(short)
            if target and target.version and target.version.digest.startswith(reference.digest):
                return target
        shown = model if len(model) <= 100 else model[:97] + "..."
        message = f"The model {shown!r} does not exist. GET /v1/models lists what this gateway serves"
        if reference is not None and reference.adapter in self._snapshot.routes:
            current = self._snapshot.routes[reference.adapter]
            message += f"; {reference.adapter!r} is at v{current.number} ({current.name})"
        raise NotFound(message + ".", code="model_not_found", param="model")


def _seconds(version: Version) -> int:
    return int(version.created_at.timestamp())


def _model(name: str, created: int, root: str | None) -> Mapping[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "hotswap", "root": root}
