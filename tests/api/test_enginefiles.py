"""What engines fetch from a gateway. A real store, and a real socket where that matters."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.archive import Extractor
from adapters.store import Store
from adapters.vllm_plugin.shelf import Shelf
from gateway.api.enginefiles import PREFIX, EngineFiles
from tests.relay.serving import serving_in_thread

KEYS = frozenset({"key-of-one", "key-of-two"})


def add(store: Store, weights: bytes = b"weights") -> str:
    with store.staging() as staged:
        (staged / "adapter_config.json").write_text('{"r": 8, "alpha": 1}')
        (staged / "adapter_model.safetensors").write_bytes(weights)
        return store.commit(staged)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def http(store: Store) -> Iterator[httpx.Client]:
    with serving_in_thread(EngineFiles(store, lambda: KEYS)) as port:
        headers = {"authorization": "Bearer key-of-two"}
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
            yield client


def code(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 20, (1 << 20) + 512, 3_000_001])
def test_the_tar_is_as_long_as_it_says_and_its_files_have_the_digest(
    store: Store, http: httpx.Client, tmp_path: Path, size: int
) -> None:
    digest = add(store, bytes(size))
    answer = http.get(PREFIX + digest)
    assert (200, "application/x-tar") == (answer.status_code, answer.headers["content-type"])
    assert len(answer.content) == int(answer.headers["content-length"])
    elsewhere = Store(tmp_path / "elsewhere")
    with elsewhere.staging() as staged:
        with Extractor(staged, max_bytes=1 << 30) as extractor:
            extractor.feed(answer.content)
            extractor.finish()
        assert digest == elsewhere.commit(staged)


def test_an_engine_fetches_and_verifies_it(store: Store, http: httpx.Client, tmp_path: Path) -> None:
    digest = add(store)
    shelf = Shelf(tmp_path / "engine", "key-of-one", 1 << 20)
    folder, fetched = shelf.get("a@1", digest, str(http.base_url).rstrip("/"))
    assert (True, b"weights") == (fetched, (folder / "adapter_model.safetensors").read_bytes())
    shelf.close()


async def status(store: Store, keys: frozenset[str], *authorization: bytes) -> int:
    """What a request for a version that is there gets, with these authorization headers."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    headers = [(b"authorization", each) for each in authorization]
    scope = {"type": "http", "method": "GET", "path": PREFIX + add(store), "headers": headers}
    await EngineFiles(store, lambda: keys)(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("key", [b"Bearer key-of-one", b"bearer key-of-two"])
async def test_the_key_of_any_engine_of_the_fleet_opens(store: Store, key: bytes) -> None:
    assert 200 == await status(store, KEYS, key)


@pytest.mark.parametrize(
    "given",
    [
        *(
            (),
            (b"",),
            (b"Bearer",),
            (b"Bearer ",),
            (b"Bearer key",),
            (b"Basic key-of-one",),
            (b"key-of-one",),
        ),
        *((b"key-of-one",), (b"Bearer key-of-on",), (b"Bearer key-of-one", b"Bearer x"), (b"Bearer \xff",)),
    ],
)
async def test_without_an_engines_key_there_is_nothing(store: Store, given: tuple[bytes, ...]) -> None:
    assert 401 == await status(store, KEYS, *given)


@pytest.mark.parametrize("keys", [frozenset(), frozenset({""})])
async def test_a_fleet_without_keys_serves_nobody(store: Store, keys: frozenset[str]) -> None:
    assert 401 == await status(store, keys, b"Bearer ")


def test_a_refusal_is_an_openai_error(store: Store, http: httpx.Client) -> None:
    answer = http.get(PREFIX + add(store), headers={"authorization": "Bearer guess"})
    assert (401, "invalid_api_key") == code(answer)


def test_a_key_that_was_taken_away_opens_no_more(store: Store) -> None:
    keys = {"old"}
    digest = add(store)
    with serving_in_thread(EngineFiles(store, lambda: keys)) as port:
        url, headers = f"http://127.0.0.1:{port}{PREFIX}{digest}", {"authorization": "Bearer old"}
        assert 200 == httpx.get(url, headers=headers, trust_env=False).status_code
        keys.clear()
        assert 401 == httpx.get(url, headers=headers, trust_env=False).status_code


@pytest.mark.parametrize(
    "digest",
    [
        *("0" * 64, "", "x", "..", "../staging", "%2e%2e/staging", "0" * 63, "0" * 65, "A" * 64),
        *("0" * 64 + "/adapter_config.json", "0" * 64 + "%00", "/etc/passwd"),
    ],
)
def test_what_is_no_digest_in_the_store_is_unknown(http: httpx.Client, digest: str) -> None:
    assert (404, "unknown_version") == code(http.get(PREFIX + digest))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_is_only_read(store: Store, http: httpx.Client, method: str) -> None:
    answer = http.request(method, PREFIX + add(store))
    assert (405, "GET") == (answer.status_code, answer.headers["allow"])


def test_files_that_are_gone_are_an_error_and_not_an_empty_tar(store: Store, http: httpx.Client) -> None:
    digest = add(store)
    folder = store.path(digest)
    folder.chmod(0o755)
    (folder / "adapter_model.safetensors").unlink()
    assert 500 == http.get(PREFIX + digest).status_code


def test_files_that_go_meanwhile_end_the_connection_early(store: Store, http: httpx.Client) -> None:
    digest = add(store, bytes(64 << 20))
    weights = store.path(digest) / "adapter_model.safetensors"
    with http.stream("GET", PREFIX + digest) as answer:
        parts = answer.iter_raw()
        next(parts)
        weights.chmod(0o644)
        with weights.open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in parts:
                continue


class Sink:
    """The server's side of a connection, that takes chunks and forgets them."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.leave_after: int | None = None
        self.left = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.messages += 1
        self.bytes += len(message.get("body", b""))
        if self.messages == self.leave_after:
            self.left.set()
            await asyncio.sleep(0)

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def get(self, store: Store, digest: str) -> None:
        headers = [(b"authorization", b"Bearer key-of-one")]
        scope = {"type": "http", "method": "GET", "path": PREFIX + digest, "headers": headers}
        await EngineFiles(store, lambda: KEYS)(scope, self.receive, self.send)


async def test_memory_does_not_grow_with_the_file(store: Store) -> None:
    digest = add(store, bytes(64 << 20))
    sink = Sink()
    tracemalloc.start()
    await sink.get(store, digest)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sink.bytes > 64 << 20
    assert peak < 8 << 20


async def test_an_engine_that_leaves_ends_the_reading(store: Store) -> None:
    digest = add(store, bytes(64 << 20))
    sink = Sink()
    sink.leave_after = 4
    await sink.get(store, digest)
    assert sink.messages <= 6


async def test_reading_does_not_hold_up_the_event_loop(store: Store, monkeypatch: Any) -> None:
    gate = threading.Event()

    def slow_disk(folder: Path) -> Iterator[bytes]:
        yield b"first"
        assert gate.wait(5), "the event loop did not go on while a chunk was read"
        yield b"second"

    monkeypatch.setattr("gateway.api.enginefiles.pack", slow_disk)
    sink = Sink()
    digest = add(store)
    async with asyncio.TaskGroup() as group:
        group.create_task(sink.get(store, digest))
        while sink.bytes == 0:  # noqa: ASYNC110  as another request would
            await asyncio.sleep(0)
        gate.set()
    assert len(b"firstsecond") == sink.bytes
