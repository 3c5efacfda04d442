"""The gateway as a worker sees it, over HTTP: rows out, results and adapters in.

A gateway that is away, or says that it cannot now, is waited for. Everything blocks: call it in a thread.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

import httpx

from adapters.archive import pack
from gateway.jobs.source import Source

PATIENCE_S = 300.0
WAIT_S = 2.0
TIMEOUT_S = 300.0


class HouseError(Exception):
    """The gateway refused, or was away for too long. `status` is its answer's, 0 without one."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def final(self) -> bool:
        """What was sent will never be taken, or is nowhere: no use in sending it again."""
        return self.status in (400, 404, 409, 413, 507)


class Left(Exception):
    """The worker stops; nobody waits for the gateway any more."""


class House:
    """Where it is and which key opens it is looked up at every call: both change when it starts again.

    HOTSWAP_URL and HOTSWAP_API_KEY say so, or what the running gateway wrote into `state_dir`.
    """

    def __init__(self, state_dir: Path, patience_s: float = PATIENCE_S) -> None:
        self._state_dir = state_dir
        self._patience_s = patience_s
        self.stopping = Event()

    def download(self, file: str, to: Path) -> None:
        """The bytes of an uploaded file. Raises `HouseError`, `Left`."""
        self._patiently(lambda: self._fetch(f"/admin/v1/files/{quote(file, safe='')}/content", {}, to))

    def export(self, source: Source, tenant: str, to: Path) -> None:
        """The exchanges of a route, as rows to learn from. Raises `HouseError`, `Left`."""
        params: dict[str, Any] = {"route": source.route, "tenant": tenant, "all": "true"}
        if source.since_s is not None:
            params["since"] = time.time() - source.since_s
        if source.feedback is not None:
            params["feedback"] = source.feedback
        raw = to.with_suffix(".export")
        self._patiently(lambda: self._fetch("/admin/v1/traffic/export", params, raw))
        with raw.open("rb") as lines, to.open("w", encoding="utf-8") as rows:
            rows.writelines(
                json.dumps(row, ensure_ascii=False) + "\n" for line in lines if (row := row_of(line))
            )
        raw.unlink()

    def upload_results(self, tenant: str, filename: str, content: bytes) -> str:
        """The id of the new file. Raises `HouseError`, `Left`."""
        params = {"tenant": tenant, "filename": filename}
        return str(self._post("/admin/v1/files", params, lambda: content)["id"])

    def register(self, folder: Path, adapter: str, name: str) -> str:
        """Uploads an adapter, which answers at `name` then; the version. Raises `HouseError`, `Left`."""
        path = f"/admin/v1/adapters/{quote(adapter, safe='')}/versions"
        return str(self._post(path, {"known_as": name}, lambda: pack(folder))["name"])

    def before(self, version: str) -> tuple[str | None, Mapping[str, Any]]:
        """What a version (name@digest) would take the place of, None: the base; and its manifest. Raises
        `HouseError`, `Left`."""
        path = f"/admin/v1/adapters/{quote(version.partition('@')[0], safe='')}"
        found = self._patiently(lambda: self._asked("GET", path))["versions"]
        stable = [each["name"] for each in found if each["state"] == "stable" and each["name"] != version]
        manifests = [each["manifest"] for each in found if each["name"] == version]
        if not manifests:
            raise HouseError(404, f"{version} was removed meanwhile")
        return (stable[0] if stable else None), manifests[0]

    def grade(self, version: str, card: Mapping[str, Any]) -> None:
        """Keeps a report card with its version. Raises `HouseError`, `Left`."""
        path = f"/admin/v1/adapters/{quote(version, safe='')}/card"
        self._patiently(lambda: self._asked("PUT", path, json=card))

    def _asked(self, method: str, path: str, **how: Any) -> Any:
        answer = httpx.request(method, self.url + path, headers=self._headers, timeout=TIMEOUT_S, **how)
        _check(answer)
        return answer.json()

    def _post(self, path: str, params: dict[str, str], content: Callable[[], Any]) -> Any:
        def call() -> Any:
            response = httpx.post(
                self.url + path,
                params=params,
                content=content(),
                headers={**self._headers, "content-type": "application/octet-stream"},
                timeout=TIMEOUT_S,
            )
            _check(response)
            return response.json()

        return self._patiently(call)

    def _fetch(self, path: str, params: dict[str, Any], to: Path) -> None:
        part = to.with_suffix(".part")
        with httpx.stream(
            "GET", self.url + path, params=params, headers=self._headers, timeout=TIMEOUT_S
        ) as response:
            if response.is_error:
                response.read()
            _check(response)
            with part.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        part.replace(to)

    def _patiently(self, call: Callable[[], Any]) -> Any:
        until = time.monotonic() + self._patience_s
        while True:
            try:
                return call()
            except (httpx.TransportError, HouseError, OSError, ValueError) as error:
                if isinstance(error, HouseError) and error.status < 500:
                    raise
                if time.monotonic() > until:
                    raise HouseError(
                        0, f"the gateway did not answer for {self._patience_s:g} s: {error}"
                    ) from error
            if self.stopping.wait(WAIT_S):
                raise Left

    @property
    def url(self) -> str:
        if given := os.environ.get("HOTSWAP_URL"):
            return given.rstrip("/")
        return str(json.loads((self._state_dir / "gateway.json").read_text())["url"]).rstrip("/")

    @property
    def key(self) -> str:
        return os.environ.get("HOTSWAP_API_KEY") or (self._state_dir / "admin.key").read_text().strip()

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the gateway answered {response.status_code}: {response.text[:200]}"
    raise HouseError(response.status_code, message)


def row_of(line: bytes) -> dict[str, Any] | None:
    """An exported exchange as a row, when the trainer can learn from it: text, and an answer at its end."""
    messages = json.loads(line).get("messages") or []
    kept = [{"role": each.get("role"), "content": each.get("content")} for each in messages]
    plain = all(isinstance(each["content"], str) and each["content"] for each in kept)
    roles = {each["role"] for each in kept}
    if not plain or not roles <= {"system", "user", "assistant"} or kept[-1:] == []:
        return None
    return {"messages": kept} if kept[-1]["role"] == "assistant" else None


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file that may not be there."""
    if path.exists():
        with path.open("rb") as file:
            yield from file
