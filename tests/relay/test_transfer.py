"""What reaches the client, byte for byte, and what happens when either side leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time

import pytest

from gateway.relay import EngineAnswered, Outbox, Outcome, Upstream, UpstreamFailed
from tests.relay.conftest import Relay
from tests.relay.raw import WHOLE, ask, relaying, whole_answer
from tests.relay.serving import EVENT_STREAM, chunked, read_request, serving_plane, until


def headers(head: bytes) -> dict[str, str]:
    pairs = (line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:])
    return {name.lower(): value for name, value in pairs}


async def test_the_engine_gets_our_key_and_our_request_id_and_no_header_of_the_clients() -> None:
    seen: list[bytes] = []

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await read_request(reader)
        seen.extend((head, body))
        writer.write(WHOLE)

    async with relaying(engine) as (_, port):
        await whole_answer(port)
        expected = (
            "POST /v1/x HTTP/1.1\r\nhost: engine\r\nauthorization: Bearer engine-key\r\n"
            f"x-request-id: {'f' * 32}\r\ncontent-length: 2\r\n\r\n"
        )
        assert [expected.encode(), b"{}"] == seen


async def test_an_answer_keeps_status_type_and_body_and_loses_the_engines_other_headers() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(WHOLE.replace(b"\r\n\r\n", b"\r\nserver: vllm\r\nvary: Origin\r\n\r\n"))

    async with relaying(engine) as (_, port):
        head, body = await whole_answer(port)
        got = headers(head)
    assert b'{"ok":true}' == body
    assert ("application/json", "11", "f" * 32) == (
        got["content-type"],
        got["content-length"],
        got["x-request-id"],
    )
    assert "vary" not in got
    assert got.get("server") != "vllm"


async def test_processing_time_runs_to_the_engines_first_byte() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(0.05)
        writer.write(WHOLE)

    async with relaying(engine) as (_, port):
        head, _ = await whole_answer(port)
    assert 50 <= int(headers(head)["openai-processing-ms"]) < 1000


async def test_a_stream_is_marked_as_not_to_be_buffered_or_cached() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(EVENT_STREAM + b"0\r\n\r\n")

    async with relaying(engine) as (_, port):
        head, _ = await whole_answer(port)
    assert ("no", "no-cache") == (headers(head)["x-accel-buffering"], headers(head)["cache-control"])


async def test_chunks_arrive_as_the_engine_cut_them() -> None:
    parts = (b"data: {\xc3", b"\xa9}\n", b"\n", b"data: [DONE]\n\n", b"x" * 5000)

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(EVENT_STREAM + chunked(*parts) + b"0\r\n\r\n")

    async with relaying(engine) as (_, port):
        _, body = await whole_answer(port)
    assert chunked(*parts) + b"0\r\n\r\n" == body


async def test_a_chunk_is_passed_on_before_the_next_one_exists() -> None:
    more = asyncio.Event()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(EVENT_STREAM + chunked(b"data: 1\n\n"))
        await more.wait()
        writer.write(chunked(b"data: 2\n\n") + b"0\r\n\r\n")

    async with relaying(engine) as (_, port):
        reader, writer = await ask(port)
        await asyncio.wait_for(reader.readuntil(chunked(b"data: 1\n\n")), 1)
        more.set()
        assert chunked(b"data: 2\n\n") + b"0\r\n\r\n" == await reader.read()
        writer.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
async def test_an_answer_that_trickles_in_arrives_whole(size: int) -> None:
    answer = EVENT_STREAM + chunked(b"data: one\n\n", b"data: two\n\n") + b"0\r\n\r\n"

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for at in range(0, len(answer), size):
            writer.write(answer[at : at + size])
            await asyncio.sleep(0)

    async with relaying(engine) as (relay, port):
        _, body = await whole_answer(port)
        assert [Outcome.COMPLETE] == relay.ended
    sent = b"".join(line for line in body.split(b"\r\n")[1::2])
    assert b"data: one\n\ndata: two\n\n" == sent


async def test_an_answer_that_ends_with_its_connection_is_complete() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\nto the end")

    async with relaying(engine) as (relay, port):
        _, body = await whole_answer(port)
        assert [Outcome.COMPLETE] == relay.ended
    assert chunked(b"to the end") + b"0\r\n\r\n" == body


async def test_a_100_continue_of_the_engine_is_not_the_answer() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        for _ in range(20):  # turns of the loop that the relay runs in, too: it reads this alone
            await asyncio.sleep(0)
        writer.write(WHOLE)

    async with relaying(engine) as (_, port):
        head, _ = await whole_answer(port)
    assert head.startswith(b"HTTP/1.1 200 OK")


async def test_a_fresh_connection_that_is_dropped_is_a_failure_and_nothing_is_sent() -> None:
    connections = 0

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)

    async with relaying(engine) as (relay, port):
        await whole_answer(port)
        (failure,) = relay.ended
    assert isinstance(failure, UpstreamFailed)
    assert not failure.stale
    assert 1 == connections


@pytest.mark.parametrize(
    "sent", [b"HTTP/1.1 200 OK\r\ncontent-", EVENT_STREAM], ids=["half a head", "a head"]
)
async def test_an_answer_without_a_byte_of_its_body_is_a_failure_and_nothing_is_sent(sent: bytes) -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sent)

    async with relaying(engine) as (relay, port):
        head, _ = await whole_answer(port)
        (failure,) = relay.ended
    assert isinstance(failure, UpstreamFailed)
    assert head.startswith(b"HTTP/1.1 599")


async def test_the_head_goes_out_with_the_first_byte_of_the_body() -> None:
    prefilled = asyncio.Event()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(EVENT_STREAM)
        await prefilled.wait()
        writer.write(chunked(b"data: 1\n\n") + b"0\r\n\r\n")

    async with relaying(engine) as (relay, port):
        reader, writer = await ask(port)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        waited_until = time.monotonic()
        prefilled.set()
        await reader.read()
        writer.close()
        assert (relay.exchanges[0].first or 0) >= waited_until


@pytest.mark.parametrize("status", [204, 205])
async def test_an_answer_without_a_body_is_passed_on_without_one(status: int) -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(
            b"HTTP/1.1 %d Nothing\r\n%b\r\n" % (status, b"content-length: 0\r\n" if status == 205 else b"")
        )

    async with relaying(engine) as (_, port):
        head, body = await whole_answer(port)
    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert b"" == body


@pytest.mark.parametrize("status", [301, 304, 307])
async def test_an_engine_that_sends_us_elsewhere_is_a_failure(status: int) -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 %d Away\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n" % status)

    async with relaying(engine) as (relay, port):
        await whole_answer(port)
    assert isinstance(relay.ended[0], EngineAnswered)


async def test_an_engine_that_switches_protocols_is_a_failure() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nx")

    async with relaying(engine) as (relay, port):
        await whole_answer(port)
    assert isinstance(relay.ended[0], UpstreamFailed)


async def test_an_engine_that_is_not_there_is_a_failure_and_nothing_is_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        relay = Relay(unused.getsockname()[1])
        async with serving_plane(relay) as port:
            await whole_answer(port)
    (failure,) = relay.ended
    assert isinstance(failure, UpstreamFailed)


async def test_an_engine_that_does_not_accept_is_given_up_after_the_connect_timeout() -> None:
    upstream = Upstream(Outbox(), connect_timeout_s=0.05)
    full = [socket.socket() for _ in range(8)]
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)  # the backlog fills up, further connections get no answer
        for client in full:
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        started = time.monotonic()
        with pytest.raises(UpstreamFailed, match=r"within 0\.05 s"):
            await upstream.connect(("127.0.0.1", deaf.getsockname()[1]))
        assert time.monotonic() - started < 1
    for client in full:
        client.close()


async def test_an_answer_that_is_not_http_is_a_failure() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-OpenSSH\r\n")

    async with relaying(engine) as (relay, port):
        await whole_answer(port)
    assert isinstance(relay.ended[0], UpstreamFailed)


async def test_an_error_answer_is_raised_with_its_body_and_nothing_is_sent() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}")

    async with relaying(engine) as (relay, port):
        head, _ = await whole_answer(port)
    (answered,) = relay.ended
    assert isinstance(answered, EngineAnswered)
    assert (429, b"{}", b"7") == (answered.status, answered.body, answered.retry_after)
    assert head.startswith(b"HTTP/1.1 599")


async def test_an_engine_lost_in_mid_stream_ends_it_with_an_error_event_and_no_done() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(EVENT_STREAM + chunked(b"data: 1\n\n"))

    async with relaying(engine) as (relay, port):
        _, body = await whole_answer(port)
        assert [Outcome.ENGINE_LOST] == relay.ended
    first, last, end = body.split(b"\r\n")[1::2]
    assert (b"data: 1\n\n", b"") == (first, end)
    assert last.startswith(b"data: {") and last.endswith(b"}\n\n")
    assert "engine_lost" == json.loads(last[6:])["error"]["code"]
    assert b"[DONE]" not in body


async def test_an_error_event_does_not_run_into_half_an_event() -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(EVENT_STREAM + chunked(b'data: {"half'))

    async with relaying(engine) as (_, port):
        _, body = await whole_answer(port)
    assert b'\n\ndata: {"error"' in body


@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
async def test_an_engine_lost_in_mid_body_breaks_the_clients_connection(framing: bytes) -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        part = b'{"half' if framing.startswith(b"content") else chunked(b'{"half')
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + framing + b"\r\n\r\n" + part)

    async with relaying(engine) as (relay, port):
        head, body = await whole_answer(port)
        assert [Outcome.ENGINE_LOST] == relay.ended
    assert framing in head
    assert b'{"half' in body
    assert not body.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("answer", [b"", EVENT_STREAM + chunked(b"data: 1\n\n")], ids=["waiting", "stream"])
async def test_a_client_that_leaves_closes_the_engines_connection_within_100_ms(answer: bytes) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        asked.set()
        with contextlib.suppress(ConnectionError):
            assert b"" == await reader.read()
        left.set()

    async with relaying(engine) as (relay, port):
        reader, writer = await ask(port)
        await asyncio.wait_for(asked.wait(), 5)
        if answer:
            await reader.readuntil(b"data: 1\n\n")
        started = time.monotonic()
        writer.close()
        await asyncio.wait_for(left.wait(), 5)
        took = time.monotonic() - started
        await until(lambda: bool(relay.ended), "the relay gave up")
    assert took < 0.1
    assert [Outcome.CLIENT_LEFT] == relay.ended


async def test_a_slow_client_stops_the_engine_and_memory_stays_bounded() -> None:
    sent = 0
    stuck = asyncio.Event()
    piece = chunked(b"x" * 16384)

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(EVENT_STREAM)
        while sent < 256 * 2**20:
            writer.write(piece)
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                stuck.set()
                await writer.drain()
            sent += len(piece)

    async with relaying(engine) as (_, port):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, b"POST /v1/x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}")
        await asyncio.wait_for(stuck.wait(), 30)
        held = sent
        assert held < 32 * 2**20, "kernel buffers and ours hold more than a slow client should cost"
        received = 0
        while received < held:  # and it goes on when the client reads again
            received += len(await asyncio.wait_for(loop.sock_recv(client, 2**20), 5))
        client.close()
