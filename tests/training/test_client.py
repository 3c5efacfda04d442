"""Registering over HTTP: what is sent, and what is said when it fails."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from training.client import register
from training.recipe import TrainingError


class Gateway(ThreadingHTTPServer):
    """Answers every POST with `reply` and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply: tuple[int, bytes] = (201, b'{"name": "support@0123456789ab"}')
        self.sent: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        body = b""
        while size := int(self.rfile.readline(), 16):  # chunked: the client does not know the length
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.server.sent = {"path": self.path, "headers": dict(self.headers.items()), "body": body}
        status, reply = self.server.reply
        self.send_response(status)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    for name in ("adapter_config.json", "adapter_model.safetensors", "hotswap.json"):
        (tmp_path / name).write_text(json.dumps({"file": name}))
    return tmp_path


def test_an_adapter_is_sent_as_a_tar_of_its_files(gateway: Gateway, adapter: Path) -> None:
    register(adapter, "support", gateway.url, "secret")
    with tarfile.open(fileobj=io.BytesIO(gateway.sent["body"])) as archive:
        assert {file.name for file in adapter.iterdir()} == set(archive.getnames())


def test_the_upload_goes_to_the_adapters_versions_with_the_admin_key(gateway: Gateway, adapter: Path) -> None:
    register(adapter, "support", gateway.url, "secret", promote=True)
    headers = gateway.sent["headers"]
    assert (
        "/admin/v1/adapters/support/versions?promote=true&force=false",
        "Bearer secret",
        "application/x-tar",
    ) == (
        gateway.sent["path"],
        headers["authorization"],
        headers["content-type"],
    )


def test_the_answer_is_the_version(gateway: Gateway, adapter: Path) -> None:
    assert {"name": "support@0123456789ab"} == register(adapter, "support", gateway.url, "secret")


def test_a_refusal_is_passed_on_in_the_gateways_words(gateway: Gateway, adapter: Path) -> None:
    gateway.reply = (400, b'{"error": {"message": "adapter has rank 128; this fleet serves up to 64"}}')
    with pytest.raises(TrainingError, match="did not register support: adapter has rank 128"):
        register(adapter, "support", gateway.url, "secret")


def test_an_answer_that_is_no_json_is_shown_with_its_status(gateway: Gateway, adapter: Path) -> None:
    gateway.reply = (502, b"bad gateway")
    with pytest.raises(TrainingError, match="status 502: bad gateway"):
        register(adapter, "support", gateway.url, "secret")


def test_a_gateway_that_is_down_is_named_with_the_way_to_go_on(adapter: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot reach the gateway .*hotswap adapters add support"):
        register(adapter, "support", "http://127.0.0.1:9", "secret")
