"""Connections to engines: kept, reused, and given up."""

from __future__ import annotations

import asyncio

import pytest

from gateway.relay import Outbox, Outcome, Upstream, UpstreamFailed
from tests.relay.raw import WHOLE, Heard, relaying, whole_answer
from tests.relay.serving import read_request, talking


async def test_one_connection_serves_requests_that_follow_each_other() -> None:
    connections = 0

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(WHOLE)

    async with relaying(engine) as (_, port):
        for _ in range(5):
            await whole_answer(port)
    assert 1 == connections


async def test_a_kept_alive_connection_that_the_engine_drops_on_use_is_replaced_silently() -> None:
    connections = 0

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(WHOLE)
        await read_request(reader)  # reads the second request, then closes without a word

    async with relaying(engine) as (relay, port):
        await whole_answer(port)
        head, _ = await whole_answer(port)
        assert [Outcome.COMPLETE, Outcome.COMPLETE] == relay.ended
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert 2 == connections


async def test_a_pool_that_is_closing_opens_nothing_new() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with talking(engine) as port:
        upstream = Upstream(Outbox())
        connection = await upstream.connect(("127.0.0.1", port))
        connection.reused = True  # it would count as stale, and so be sent again
        heard = Heard()
        connection.begin(b"GET / HTTP/1.1\r\n\r\n", heard)
        await upstream.close()
        assert [False] == heard.stale
        with pytest.raises(UpstreamFailed, match="stopping"):
            await upstream.connect(("127.0.0.1", port))


async def test_a_connection_whose_request_the_engine_has_not_read_is_not_used_again() -> None:
    connections = 0

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE)  # and reads no more
        await asyncio.Event().wait()

    async with relaying(engine) as (_, port):
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            body = b" " * 32 * 2**20
            writer.write(b"POST /v1/x HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await asyncio.wait_for(reader.readuntil(b"ok"), 10)
            writer.close()
    assert 2 == connections


async def test_closing_the_pool_closes_connections_in_use_too() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with talking(engine) as port:
        upstream = Upstream(Outbox())
        connection = await upstream.connect(("127.0.0.1", port))
        heard = Heard()
        connection.begin(b"GET / HTTP/1.1\r\n\r\n", heard)
        await upstream.close()
        assert 0 == upstream.connections
        assert ["the gateway is stopping"] == heard.failures


async def test_an_idle_connection_that_is_too_old_is_not_used_again() -> None:
    connections = 0

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(WHOLE)

    async with relaying(engine) as (relay, port):
        relay.upstream = Upstream(Outbox(), idle_s=0.0)
        await whole_answer(port)
        await whole_answer(port)
        await relay.upstream.close()
    assert 2 == connections
