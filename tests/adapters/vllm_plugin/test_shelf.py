"""Files that an engine fetches for itself. Real files, real HTTP on the loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapters.archive import pack
from adapters.store import Store
from adapters.vllm_plugin.shelf import FetchFailed, Shelf, check_source
from tests.conftest import TINY
from tests.peft_folder import random_adapter

KEY = "engine-key"
PLENTY = 1 << 30


class Source:
    """A gateway's store, and how it answers. `asked` are (path, authorization) pairs."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.asked: list[tuple[str, str | None]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.send: Callable[[str], Iterator[bytes]] = lambda digest: pack(self.store.path(digest))
        self.url = ""

    def add(self, seed: int) -> str:
        with self.store.staging() as staged:
            random_adapter(staged, TINY, seed)
            return self.store.commit(staged)


@contextmanager
def listening(source: Source) -> Iterator[Source]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source.asked.append((self.path, self.headers["authorization"]))
            self.send_response(source.status)
            for name, value in source.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if source.status == 200:
                for chunk in source.send(self.path.rpartition("/")[2]):
                    self.wfile.write(chunk)
            else:
                self.wfile.write(b"because")

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    source.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield source
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    with listening(Source(tmp_path / "gateway")) as started:
        yield started


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "engine", KEY, PLENTY)
    yield shelf
    shelf.close()


def test_a_version_is_fetched_with_the_engines_key_and_kept_read_only(shelf, source):
    digest = source.add(1)
    folder, fetched = shelf.get("a@1", digest, source.url)
    assert fetched
    assert [(f"/engine/v1/versions/{digest}", f"Bearer {KEY}")] == source.asked
    assert {"adapter_config.json": 0o444, "adapter_model.safetensors": 0o444} == {
        path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()
    }
    assert folder.name == digest and folder.is_absolute()


def test_what_is_there_is_not_fetched_again(shelf, source):
    digest = source.add(1)
    shelf.get("a@1", digest, source.url)
    shelf.release("a@1")
    assert False is shelf.get("a@1", digest, source.url)[1]
    assert 1 == len(source.asked)


def test_content_of_another_digest_is_refused_and_nothing_is_kept(shelf, source, tmp_path):
    wanted, other = source.add(1), source.add(2)
    source.send = lambda _: pack(source.store.path(other))
    with pytest.raises(FetchFailed, match=f"the files that came are {other}") as failure:
        shelf.get("a@1", wanted, source.url)
    assert (422, "digest_mismatch") == (failure.value.status, failure.value.code)
    assert [] == Store(tmp_path / "engine").digests()
    assert [] == [path for path in (tmp_path / "engine" / "staging").iterdir() if path.is_dir()]


def cut(source: Source, keep: float) -> Callable[[str], Iterator[bytes]]:
    def send(digest: str) -> Iterator[bytes]:
        whole = b"".join(pack(source.store.path(digest)))
        yield whole[: int(len(whole) * keep)]

    return send


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_transfer_that_ends_early_is_the_sources_failure(shelf, source, keep):
    digest = source.add(1)
    source.send = cut(source, keep)
    with pytest.raises(FetchFailed) as failure:
        shelf.get("a@1", digest, source.url)
    assert (502, "source_failed") == (failure.value.status, failure.value.code)


def test_what_is_no_tar_is_refused_by_its_rule(shelf, source):
    digest = source.add(1)
    source.send = lambda _: iter([b"\x1f\x8b" + bytes(2000)])
    with pytest.raises(FetchFailed) as failure:
        shelf.get("a@1", digest, source.url)
    assert (422, "compressed") == (failure.value.status, failure.value.code)


def test_more_than_the_store_may_hold_is_not_taken(tmp_path, source):
    shelf = Shelf(tmp_path / "engine", KEY, 1000)
    with pytest.raises(FetchFailed) as failure:
        shelf.get("a@1", source.add(1), source.url)
    assert (413, "too_big") == (failure.value.status, failure.value.code)


@pytest.mark.parametrize(
    ("status", "expected"), [(404, (404, "unknown_version")), (500, (502, "source_failed"))]
)
def test_a_source_that_says_no_is_told(shelf, source, status, expected):
    source.status = status
    with pytest.raises(FetchFailed, match=f"answered {status}: because") as failure:
        shelf.get("a@1", "0" * 64, source.url)
    assert expected == (failure.value.status, failure.value.code)


def test_a_redirect_is_not_followed_for_the_key_goes_with_it(shelf, source):
    source.status, source.headers = 302, {"location": f"{source.url}/elsewhere"}
    with pytest.raises(FetchFailed, match="answered 302"):
        shelf.get("a@1", "0" * 64, source.url)
    assert 1 == len(source.asked)


def test_a_source_that_is_not_there_is_told(shelf):
    with pytest.raises(FetchFailed, match="could not be fetched") as failure:
        shelf.get("a@1", "0" * 64, "http://127.0.0.1:9")
    assert (502, "source_failed") == (failure.value.status, failure.value.code)


def test_a_proxy_in_the_environment_is_not_asked(shelf, source, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert shelf.get("a@1", source.add(1), source.url)[1]


def test_when_it_is_full_what_nobody_holds_is_deleted_oldest_first(tmp_path, source):
    digests = [source.add(seed) for seed in range(4)]
    size = sum(path.stat().st_size for path in source.store.path(digests[0]).iterdir())
    shelf = Shelf(tmp_path / "engine", KEY, int(3.5 * size))
    for name, digest in zip("abcd", digests, strict=True):
        shelf.get(name, digest, source.url)
        if name != "a":  # that one is held
            shelf.release(name)
    assert sorted([digests[0], *digests[2:]]) == Store(tmp_path / "engine").digests()
    shelf.get("c", digests[2], source.url)  # used again, and so younger than d
    shelf.release("c")
    shelf.get("b", digests[1], source.url)
    assert sorted(digests[:3]) == Store(tmp_path / "engine").digests()
    shelf.close()


def test_what_another_engine_of_the_machine_holds_is_not_deleted(tmp_path, source):
    one, other = source.add(1), source.add(2)
    first, second = (Shelf(tmp_path / "engine", KEY, 20_000) for _ in range(2))
    first.get("a", one, source.url)
    second.get("b", other, source.url)
    assert sorted([one, other]) == Store(tmp_path / "engine").digests()
    first.release("a")
    second.release("b")
    second.prune()
    assert 2 == len(Store(tmp_path / "engine").digests())  # both fit
    Shelf(tmp_path / "engine", KEY, 0).prune()
    assert [] == Store(tmp_path / "engine").digests()


def test_one_content_under_two_names_is_held_until_both_are_gone(tmp_path, source):
    digest = source.add(1)
    shelf, rival = Shelf(tmp_path / "engine", KEY, PLENTY), Shelf(tmp_path / "engine", KEY, 0)
    shelf.get("a", digest, source.url)
    shelf.get("b", digest, source.url)
    shelf.release("a")
    rival.prune()
    assert [digest] == Store(tmp_path / "engine").digests()
    shelf.release("b")
    rival.prune()
    assert [] == Store(tmp_path / "engine").digests()


@pytest.mark.parametrize("source", ["http://gw:8000", "http://gw:8000/", "https://gw", "http://[::1]:80"])
def test_an_origin_is_a_source(source):
    assert source.rstrip("/") == check_source(source, frozenset())


@pytest.mark.parametrize(
    "source",
    [
        *(None, 7, "", "gw:8000", "//gw", "file:///etc/passwd", "ftp://gw", "http://", "http://u:p@gw"),
        *("http://gw/path", "http://gw?q", "http://gw#f", "http://g w", "http://gw\n", "http://gẃ", "HTTP:x"),
    ],
    ids=str,
)
def test_anything_else_is_none(source):
    with pytest.raises(FetchFailed) as failure:
        check_source(source, frozenset())
    assert (400, "bad_source") == (failure.value.status, failure.value.code)


def test_only_named_sources_are_taken_when_some_are_named():
    allowed = frozenset({"http://gw:8000"})
    assert "http://gw:8000" == check_source("http://gw:8000", allowed)
    with pytest.raises(FetchFailed, match="HOTSWAP_SOURCES") as failure:
        check_source("http://gw:8001", allowed)
    assert (403, "source_not_allowed") == (failure.value.status, failure.value.code)
