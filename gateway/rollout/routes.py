"""From what a client writes in `model` to exactly one version, from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from adapters.version import Reference, State, Version
from gateway.errors import NotFound


@dataclass(frozen=True, slots=True)
class Target:
    """What will answer. `version` is None for the base; `engine_name` is the only name sent to an engine."""

    version: Version | None
    engine_name: str


class Changes(Protocol):
    """Adapters with all their living versions: those that were changed, or, `whole`, all that there are."""

    @property
    def at(self) -> int: ...
    @property
    def whole(self) -> bool: ...
    @property
    def adapters(self) -> Mapping[str, Sequence[Version]]: ...


class Source(Protocol):
    async def changes(self, since: int = 0, /) -> Changes:
        """What was changed after `since`, the `at` of an earlier answer; everything for 0."""


@dataclass(frozen=True, slots=True)
class _Adapter:
    """One adapter in the table. `listed` are its route and its versions, as `models` shows them."""

    versions: Sequence[Version]
    stable: Version | None
    names: Sequence[str]
    listed: tuple[bytes, bytes]


class Routes:
    """The routing table. `refresh()` takes over what has changed; a failed refresh leaves it as it was.

    A change costs what the changed adapters cost, however many others there are. Nothing here is written
    while a coroutine waits, so a request sees the table before a change or after it.
    """

    def __init__(self, source: Source, base: str) -> None:
        self._source = source
        self._base = Target(version=None, engine_name=base)
        self._at = 0
        self._adapters: dict[str, _Adapter] = {}
        self._targets: dict[str, Target] = {base: self._base}
        self._retired: dict[str, Sequence[Version]] = {}
        self._stable: Mapping[str, Version] | None = None  # these two are made when somebody asks
        self._models: bytes | None = None
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> None:
        """Asks the registry what has changed.

        One at a time, so that a slow reading of an older state never replaces a newer one.
        """
        async with self._refreshing:
            changes = await self._source.changes(self._at)
            if changes.whole:
                for name in self._adapters.keys() - changes.adapters.keys():
                    self._put(name, ())
            for name, versions in changes.adapters.items():
                self._put(name, versions)
            self._at = changes.at

    def _put(self, name: str, versions: Sequence[Version]) -> None:
        before = self._adapters.pop(name, None)
        for known in before.names if before else ():
            del self._targets[known]
        self._retired.pop(name, None)
        self._stable = self._models = None
        if not versions:
            return
        targets: dict[str, Target] = {}
        for version in versions:
            target = Target(version=version, engine_name=version.name)
            targets[target.engine_name] = targets[f"{name}@v{version.number}"] = target
            targets |= dict.fromkeys(version.names, target)
        stable = next((version for version in versions if version.state is State.STABLE), None)
        if stable is not None and name != self._base.engine_name:
            targets[name] = Target(version=stable, engine_name=stable.name)
        retired = [version for version in versions if version.state is State.RETIRED]
        if retired:
            self._retired[name] = sorted(retired, key=lambda version: version.number, reverse=True)
        self._adapters[name] = _Adapter(
            versions, stable, tuple(targets), self._listed(name, versions, stable)
        )
        self._targets |= targets

    def _listed(self, name: str, versions: Sequence[Version], stable: Version | None) -> tuple[bytes, bytes]:
        route = b"" if stable is None else msgspec.json.encode(_model(name, stable, root=stable.name))
        named = sorted((version.name, version) for version in versions)
        pinned = [_model(each, version, root=self._base.engine_name) for each, version in named]
        pinned += [_model(each, version, root=version.name) for version in versions for each in version.names]
        return route, msgspec.json.encode(pinned)[1:-1]

    def resolve(self, model: str) -> Target:
        """The target for `model`: the base's name, a route, `name@v3`, `name@<12..64 hex digits>`, or
        a fine-tuned model's own name (`ft:…`).

        Raises `NotFound` (code `model_not_found`), with the nearest thing that exists.
        """
        target = self._targets.get(model)
        return target if target is not None else self._by_long_digest(model)

    def models(self) -> bytes:
        """The body of GET /v1/models: the base, every route, and every pinned version."""
        if self._models is None:
            listed = [self._adapters[name].listed for name in sorted(self._adapters)]
            base = msgspec.json.encode(_model(self._base.engine_name, None, root=None))
            parts = [base, *(route for route, _ in listed if route), *(pinned for _, pinned in listed)]
            self._models = b'{"object":"list","data":[%b]}' % b",".join(parts)
        return self._models

    def model(self, name: str) -> bytes:
        """The body of GET /v1/models/{name}, for every name that `resolve` knows. Raises as that does."""
        target = self.resolve(name)
        if target.version is None:
            return msgspec.json.encode(_model(name, None, root=None))
        root = self._base.engine_name if name == target.engine_name else target.engine_name
        return msgspec.json.encode(_model(name, target.version, root=root))

    def desired(self, also: Collection[str] = ()) -> Sequence[Version]:
        """Versions that engines should hold before they take traffic: the stable one of every route, and
        those named in `also`, as far as they are registered."""
        if self._stable is None:
            routes = [self._adapters[name].stable for name in sorted(self._adapters)]
            self._stable = {version.name: version for version in routes if version is not None}
        stable = self._stable
        named = [self._targets.get(name) for name in sorted(also) if name not in stable]
        return [*stable.values(), *(each.version for each in named if each is not None and each.version)]

    def superseded(self, keep: int) -> Sequence[Version]:
        """Versions that have served a route and do so no more, but the `keep` newest of each adapter, which a
        rollback goes to."""
        return [version for versions in self._retired.values() for version in versions[keep:]]

    def _by_long_digest(self, model: str) -> Target:
        reference = Reference.parse(model)
        if reference is not None and reference.digest is not None:
            short = f"{reference.adapter}@{reference.digest[:12]}"
            target = self._targets.get(short)
            if target and target.version and target.version.digest.startswith(reference.digest):
                return target
        shown = model if len(model) <= 100 else model[:97] + "..."
        message = f"The model {shown!r} does not exist. GET /v1/models lists what this gateway serves"
        if reference is not None and (route := self._adapters.get(reference.adapter)) and route.stable:
            message += f"; {reference.adapter!r} is at v{route.stable.number} ({route.stable.name})"
        raise NotFound(message + ".", code="model_not_found", param="model")


def _model(name: str, version: Version | None, root: str | None) -> Mapping[str, Any]:
    created = 0 if version is None else int(version.created_at.timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": "hotswap", "root": root}
