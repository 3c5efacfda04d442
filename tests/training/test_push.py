"""An exported folder goes to a registry and to a hub, whole, by their own clients."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from training.export.push import push
from training.recipe import TrainingError

FILES = {
    "README.md": b"# support\n",
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": b"weights" * 99,
}


class Registry(BaseHTTPRequestHandler):
    """What of the OCI distribution specification a push and a pull need; blobs are checked as they come."""

    blobs: dict[str, bytes]
    manifests: dict[str, bytes]

    def do_POST(self) -> None:
        self._answer(202, headers={"Location": f"{self.path}session?state=1"})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if "/manifests/" in self.path:
            self.manifests[self.path.rpartition("/")[2]] = self.manifests[digest] = body
        elif re.search(r"digest=([^&]+)", self.path.replace("%3A", ":")).group(1) != digest:  # type: ignore[union-attr]
            return self._answer(400)
        else:
            self.blobs[digest] = body
        self._answer(201, headers={"Docker-Content-Digest": digest})

    def do_HEAD(self) -> None:
        self._answer(200 if self.path.rpartition("/")[2] in self.blobs else 404)

    def do_GET(self) -> None:
        kept = self.blobs | self.manifests
        found = kept.get(self.path.rpartition("/")[2].replace("%3A", ":"))
        kind = "application/vnd.oci.image.manifest.v1+json" if "/manifests/" in self.path else "x/y"
        self._answer(404 if found is None else 200, found or b"", {"Content-Type": kind})

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Hub(BaseHTTPRequestHandler):
    """What of a hub's API a push needs."""

    asked: list[tuple[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        lines = [json.loads(line) for line in body.splitlines()]
        self.asked.append((self.path, lines))
        if self.headers.get("authorization") != "Bearer right":
            return self._answer(401, {"error": "Invalid credentials"})
        here = f"http://{self.headers['host']}"
        if self.path == "/api/repos/create":
            return self._answer(200, {"url": f"{here}/acme/support", "name": "acme/support"})
        if self.path.startswith("/api/validate-yaml"):
            return self._answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in lines[0]["files"]
            ]
            return self._answer(200, {"files": files})
        commit = {"success": True, "commitUrl": f"{here}/acme/support/commit/abc", "commitOid": "abc"}
        self._answer(200, commit)

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def registry() -> Iterator[str]:
    Registry.blobs, Registry.manifests = {}, {}
    with serving(Registry) as address:
        yield address


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Hub.asked = []
    with serving(Hub) as address:
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(f"http://{address}", token="right"))
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "support"
    made.mkdir()
    for name, content in FILES.items():
        (made / name).write_bytes(content)
    return made


def sent(folder: Path, to: str, **how: Any) -> str:
    return push(folder, to, **{"insecure": True, "public": False, "say": lambda text: None, **how})


def test_a_registry_gets_a_layer_a_file_and_gives_the_folder_back(
    registry: str, folder: Path, tmp_path: Path
) -> None:
    from oras.client import OrasClient

    place = sent(folder, f"oci://{registry}/acme/support:v3")
    name, _, digest = place.removeprefix("oci://").partition("@")
    assert (name, Registry.manifests["v3"]) == (f"{registry}/acme/support", Registry.manifests[digest])
    OrasClient(insecure=True).pull(f"{registry}/acme/support:v3", outdir=str(tmp_path / "back"))
    assert FILES == {file.name: file.read_bytes() for file in (tmp_path / "back").iterdir()}


def test_a_hub_gets_one_commit_with_every_file_in_a_private_repository(hub: str, folder: Path) -> None:
    assert sent(folder, "hf://acme/support") == f"http://{hub}/acme/support/commit/abc"
    created = next(lines[0] for path, lines in Hub.asked if path == "/api/repos/create")
    assert created["visibility" if "visibility" in created else "private"] in ("private", True)
    commit = next(lines for path, lines in Hub.asked if "/commit/" in path)
    files = {
        each["value"]["path"]: base64.b64decode(each["value"]["content"])
        for each in commit
        if each["key"] == "file"
    }
    assert files == FILES


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("s3://bucket/support", "write oci://HOST/NAME:TAG or hf://ORG/NAME"),
        ("oci://ghcr.io/support", "write oci://HOST/NAME:TAG"),
        ("hf://support", "write hf://ORG/NAME"),
        ("oci://127.0.0.1:1/acme/support:v3", "did not take it"),
    ],
)
def test_a_place_that_is_none_is_refused_with_the_way_to_write_it(folder: Path, to: str, reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        sent(folder, to)


def test_a_hub_that_refuses_says_what_it_looks_for(
    hub: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(f"http://{hub}", token="wrong"))
    with pytest.raises(TrainingError, match="HF_TOKEN"):
        sent(folder, "hf://acme/support")


def test_a_hub_that_is_not_there_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi("http://127.0.0.1:1", token="right"))
    with pytest.raises(TrainingError, match="the hub did not take acme/support"):
        sent(folder, "hf://acme/support")


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="hotswap adapters export"):
        sent(tmp_path / "none", "hf://acme/support")
