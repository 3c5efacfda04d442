"""What the gateway is told of a dataset, so that forgetting reaches it, and what it says was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import httpx

from training.dataset.plan import DatasetError
from training.dataset.snapshot import Snapshot
from training.dataset.sources.traffic import Gateway, reason_of

ROWS_A_PIECE = 5_000
PATH = "/admin/v1/datasets"


def register(snapshot: Snapshot, gateway: Gateway) -> dict[str, Any]:
    """Tells its name, digest, lineage, and which exchanges it holds. Again, it changes nothing.

    Raises `DatasetError` with the gateway's reason.
    """
    held = exchanges(snapshot)
    body = {
        "name": snapshot.name,
        "digest": snapshot.digest,
        "rows": sum(snapshot.rows.values()),
        "lineage": snapshot.manifest["lineage"],
    }
    told: dict[str, Any] = {}
    for start in range(0, max(len(held), 1), ROWS_A_PIECE):
        told = _asked(gateway, "POST", PATH, json={**body, "exchanges": held[start : start + ROWS_A_PIECE]})
    return told


def exchanges(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The exchanges that its rows came from, once each: id, and by what else they can be forgotten."""
    found: dict[str, dict[str, Any]] = {}
    for origin in snapshot.origins():
        ids = origin.get("ids", [])
        for id in (*ids, *origin.get("seeds", ())):
            # Of a row that was made of several, the units of the others are told by their own rows.
            about = {"id": id, "unit": "", "key": "", "tenant": "default", "at": 0.0}
            if len(ids) == 1 and id in ids:
                about |= {name: origin[name] for name in ("unit", "key", "tenant", "at") if name in origin}
            if id not in found or (about["at"] and not found[id]["at"]):
                found[id] = about
    return [found[id] for id in sorted(found)]


def forgotten(snapshot: Snapshot, gateway: Gateway) -> list[str]:
    """Request ids of what it holds, or held, that was forgotten. Raises `DatasetError`."""
    answer = _asked(gateway, "GET", f"{PATH}/{quote(snapshot.reference, safe='@')}/forgotten", missing_is=[])
    return list(answer["data"]) if answer else []


def scrubbed(snapshot: Snapshot, gone: Sequence[str], gateway: Gateway) -> None:
    """Tells that these exchanges are taken out here. Raises `DatasetError`."""
    path = f"{PATH}/{quote(snapshot.reference, safe='@')}/scrubbed"
    for start in range(0, len(gone), ROWS_A_PIECE):
        body = {"rows": snapshot.scrubbed, "exchanges": list(gone[start : start + ROWS_A_PIECE])}
        _asked(gateway, "POST", path, json=body, missing_is=None)


def _asked(gateway: Gateway, method: str, path: str, missing_is: Any = ..., **how: Any) -> Any:
    headers = {"authorization": f"Bearer {gateway.key}"}
    try:
        answer = httpx.request(method, gateway.url.rstrip("/") + path, headers=headers, timeout=120, **how)
    except httpx.HTTPError as error:
        raise DatasetError(f"the gateway at {gateway.url} does not answer ({error}); try again") from error
    if answer.is_success:
        return answer.json()
    if answer.status_code == 404 and missing_is is not ...:
        return missing_is
    raise DatasetError(f"the gateway refuses {method} {path}: {reason_of(answer)}")
