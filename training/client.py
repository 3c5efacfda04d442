"""A finished adapter to the gateway, over its admin API."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from adapters.archive import pack
from training.recipe import TrainingError


def register(
    folder: Path,
    name: str,
    url: str,
    key: str,
    *,
    promote: bool = False,
    force: bool = False,
    timeout_s: float = 300.0,
) -> dict[str, Any]:
    """Upload the adapter in `folder` as a new version of `name`; the version as the gateway describes it.

    `url` is the gateway's (`http://host:port`), `key` an admin key. The upload is streamed. `force` promotes
    what has no report card, which is on record.
    Raises `TrainingError` with the gateway's reason, or when it cannot be reached.
    """
    try:
        response = httpx.post(
            f"{url.rstrip('/')}/admin/v1/adapters/{quote(name, safe='')}/versions",
            params={"promote": promote, "force": force},
            content=pack(folder),
            headers={"authorization": f"Bearer {key}", "content-type": "application/x-tar"},
            timeout=timeout_s,
        )
    except httpx.HTTPError as error:
        raise TrainingError(
            f"cannot reach the gateway at {url}: {error}. The adapter is in {folder}; start the gateway, "
            f"then: hotswap adapters add {name} {folder}"
        ) from error
    if response.is_success:
        version: dict[str, Any] = response.json()
        return version
    raise TrainingError(f"the gateway did not register {name}: {_reason(response)}")


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}: {response.text[:200]}"
