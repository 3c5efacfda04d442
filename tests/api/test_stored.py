"""The edge of stored completions: which call a request is, and what is refused before anything is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.traffic.stored import Page
from tests.api.conftest import VERSION, Service, running
from tests.api.test_openai import error, status_and_code

ALL = "/v1/chat/completions"
ONE = f"{ALL}/chatcmpl-1"


class Stored:
    """Answers with what it was asked."""

    async def list(self, key: str, part: Page, model: str | None, metadata: dict[str, str]) -> bytes:
        return json.dumps(["list", key, *self._page(part), model, metadata]).encode()

    async def retrieve(self, key: str, id: str) -> bytes:
        return json.dumps(["retrieve", key, id]).encode()

    async def messages(self, key: str, id: str, part: Page) -> bytes:
        return json.dumps(["messages", key, id, *self._page(part)]).encode()

    async def update(self, key: str, id: str, body: bytes) -> bytes:
        return json.dumps(["update", key, id, bytes(body).decode()]).encode()

    async def delete(self, key: str, id: str) -> bytes:
        return json.dumps(["delete", key, id]).encode()

    @staticmethod
    def _page(part: Page) -> tuple[Any, ...]:
        return part.after, part.limit, part.oldest_first


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running(feedback=object(), stored=Stored()) as started:
        yield started


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", ALL, ["list", "good", None, 20, True, None, {}]),
        ("GET", f"{ALL}?", ["list", "good", None, 20, True, None, {}]),
        ("GET", f"{ALL}?api-version=2026-10-21", ["list", "good", None, 20, True, None, {}]),
        ("GET", f"{ALL}?limit=100&order=desc&after=x", ["list", "good", "x", 100, False, None, {}]),
        ("GET", f"{ALL}?metadata%5Ba%5D=1&metadata[b%5D=%C3%A9&metadata[c]=",
         ["list", "good", None, 20, True, None, {"a": "1", "b": "é", "c": ""}]),
        ("GET", f"{ALL}?model=support", ["list", "good", None, 20, True, "support", {}]),
        ("GET", f"{ALL}?model=support@v1", ["list", "good", None, 20, True, VERSION, {}]),
        ("GET", f"{ALL}?model=gone@v9", ["list", "good", None, 20, True, "gone@v9", {}]),
        ("GET", ONE, ["retrieve", "good", "chatcmpl-1"]),
        ("GET", f"{ALL}/chatcmpl%2D1", ["retrieve", "good", "chatcmpl-1"]),
        ("GET", f"{ONE}/messages?limit=1&after=m", ["messages", "good", "chatcmpl-1", "m", 1, True]),
        ("DELETE", ONE, ["delete", "good", "chatcmpl-1"]),
        ("POST", ONE, ["update", "good", "chatcmpl-1", "said"]),
    ],
)  # fmt: skip
async def test_a_request_is_the_call_that_openai_says(
    service: Service, method: str, path: str, asked: list[Any]
) -> None:
    content = b"said" if method == "POST" else None
    answer = await service.http.request(method, path, content=content)
    assert (200, asked) == (answer.status_code, answer.json())
    assert answer.headers["content-type"] == "application/json"
    assert 0 == service.fleet.leased


@pytest.mark.parametrize(
    ("path", "param"),
    [
        (f"{ALL}?limit=0", "limit"),
        (f"{ALL}?limit=101", "limit"),
        (f"{ALL}?limit=", "limit"),
        (f"{ALL}?limit=-1", "limit"),
        (f"{ALL}?limit=%D9%A1", "limit"),
        (f"{ALL}?limit=1e1", "limit"),
        (f"{ALL}?order=up", "order"),
        (f"{ALL}?metadata=a", "metadata"),
        (f"{ALL}?modell=a", "modell"),
        (f"{ALL}?a=%FF", None),
        (f"{ALL}?{'&'.join(f'a{n}=1' for n in range(65))}", None),
        (f"{ONE}/messages?limit=0", "limit"),
        (f"{ONE}/messages?model=a", "model"),
    ],
)
async def test_a_query_that_cannot_be_meant_is_a_400_that_names_the_parameter(
    service: Service, path: str, param: str | None
) -> None:
    answer = await service.http.get(path)
    assert (400, param) == (answer.status_code, error(answer)["param"])


async def test_a_parameter_that_is_spelt_wrong_is_told_the_right_one(service: Service) -> None:
    assert "`model`" in error(await service.http.get(f"{ALL}?modle=a"))["message"]


@pytest.mark.parametrize("path", [f"{ALL}/", f"{ALL}x", f"{ONE}/", f"{ONE}/messages/1", f"{ONE}/else"])
async def test_nothing_is_served_beside_it(service: Service, path: str) -> None:
    assert (404, "unknown_url") == status_and_code(await service.http.get(path))


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        (ALL, "PUT", "POST, GET, HEAD"),
        (ALL, "DELETE", "POST, GET, HEAD"),
        (ONE, "PUT", "GET, HEAD, POST, DELETE"),
        (f"{ONE}/messages", "POST", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    service: Service, path: str, method: str, allow: str
) -> None:
    answer = await service.http.request(method, path)
    assert (405, allow) == (answer.status_code, answer.headers["allow"])
    options = await service.http.options(path)
    assert (204, f"{allow}, OPTIONS") == (options.status_code, options.headers["allow"])


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_it_takes_a_good_key(service: Service, method: str) -> None:
    answer = await service.http.request(method, ONE, headers={"authorization": "Bearer bad"})
    assert (401, "invalid_api_key") == status_and_code(answer)


async def test_a_head_is_answered_without_a_body(service: Service) -> None:
    answer = await service.http.head(ONE)
    assert (200, b"") == (answer.status_code, answer.content)
    assert int(answer.headers["content-length"]) > 0


async def test_requests_that_were_sent_ahead_have_each_their_own_query(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = "HTTP/1.1\r\nhost: h\r\nauthorization: Bearer good\r\n\r\n"
    asked = [f"GET {ALL}?limit={limit} {head}" for limit in (1, 2)]
    writer.write("".join((*asked, f"GET http://h{ALL}?limit=3 {head}", f"GET {ALL} {head}")).encode())
    said = b""
    while said.count(b"[") < 4:
        said += await asyncio.wait_for(reader.read(4096), 5)
    writer.close()
    told = [line for line in said.decode().splitlines() if line.startswith("[")]
    limits = [json.loads(line.partition("HTTP")[0])[3] for line in told]
    assert [1, 2, 3, 20] == limits


async def test_a_gateway_that_remembers_nothing_says_so() -> None:
    async with running() as service:
        answer = await service.http.get(ALL)
        assert (404, "unknown_url") == status_and_code(answer)
        assert "remembers nothing" in error(answer)["message"]
