"""A client's connection: shared by the data plane and the rest, kept alive, pipelined, and left."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from gateway.api.connection import MOST_PIPELINED
from tests.api.conftest import VERSION, Service, running
from tests.relay.serving import read_request, talking, until

AUTH = b"host: h\r\nauthorization: Bearer good\r\n"


def chat(model: str = "base", **more: object) -> bytes:
    body = json.dumps({"model": model, "messages": [], **more}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (AUTH, len(body), body)


async def answers(reader: asyncio.StreamReader, n: int) -> list[tuple[bytes, bytes]]:
    """Status line and body of the next `n` answers that have a content-length."""
    found = []
    for _ in range(n):
        head, body = await asyncio.wait_for(read_request(reader), 5)
        found.append((head.partition(b"\r\n")[0], body))
    return found


async def test_pipelined_requests_are_answered_in_their_order(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(chat("base") + chat("support") + b"GET /v1/models/base HTTP/1.1\r\n" + AUTH + b"\r\n")
    got = [json.loads(body) for _, body in await answers(reader, 3)]
    assert ["base", VERSION] == [answer["model"] for answer in got[:2]]
    assert "model" == got[2]["object"]
    writer.close()


async def test_a_hundred_pipelined_requests_do_not_nest_a_hundred_calls(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    # Behind one that has to wait, all the others queue up, and each is answered without waiting.
    writer.write(
        chat() + b"".join(b"GET /v1/models/nobody HTTP/1.1\r\n" + AUTH + b"\r\n" for _ in range(100))
    )
    got = await answers(reader, 101)
    assert [b"HTTP/1.1 200 OK"] + [b"HTTP/1.1 404 Not Found"] * 100 == [status for status, _ in got]
    writer.close()


async def test_one_connection_serves_the_data_plane_and_the_rest_by_turns(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    for _ in range(3):
        writer.write(chat())
        ((status, _),) = await answers(reader, 1)
        assert b"HTTP/1.1 200 OK" == status
        writer.write(b"GET /elsewhere HTTP/1.1\r\nhost: h\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 418")
        await reader.readuntil(b"0\r\n\r\n")
    writer.close()


async def test_a_client_that_leaves_with_requests_in_the_pipeline_frees_every_one(service: Service) -> None:
    service.engine.faults.hang = True
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(chat() + chat() + chat())
    await until(lambda: service.engine.running == 1, "the first reached the engine")
    writer.close()
    await until(lambda: len(service.ended) == 3, "all three are over")
    assert (1, 0) == (service.fleet.leased, service.fleet.held)
    assert {"client_left"} == {str(exchange.outcome) for exchange in service.ended}


async def test_a_client_that_leaves_while_its_adapter_loads_is_noticed_at_once(service: Service) -> None:
    service.fleet.loading = asyncio.Event()
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(chat("support"))
    await writer.drain()
    await asyncio.sleep(0)
    writer.close()
    await until(lambda: len(service.ended) == 1, "the exchange is over", within_s=0.1)
    service.fleet.loading.set()
    assert 200 == (await service.chat()).status_code  # whatever waited for the load has run by then
    assert (1, 0) == (service.fleet.leased, service.fleet.held)
    assert 1 == len(service.engine.seen)


async def test_a_load_that_was_waited_for_is_told_in_a_header(service: Service) -> None:
    service.fleet.loading = asyncio.Event()
    asked = asyncio.create_task(service.chat(model="support"))
    await asyncio.sleep(0.02)
    service.fleet.loading.set()
    answer = await asked
    assert 0 <= int(answer.headers["x-hotswap-load-ms"]) < 5000
    service.fleet.loading = None
    assert "x-hotswap-load-ms" not in (await service.chat(model="support")).headers


async def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(chat(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    assert body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n")
    writer.close()


async def test_an_idle_connection_is_closed_after_the_keep_alive_timeout_and_a_busy_one_is_not() -> None:
    async with running(keep_alive_s=0.2) as service:
        service.engine.faults.prefill_delay_s = 0.5
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(chat())
        ((status, _),) = await answers(reader, 1)  # it took longer than the time-out
        assert b"HTTP/1.1 200 OK" == status
        assert b"" == await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_an_exchange_is_measured(service: Service) -> None:
    await service.chat(model="support", stream=True)
    await until(lambda: len(service.ended) == 1, "the exchange is over")
    (exchange,) = service.ended
    assert exchange.began <= exchange.ready <= (exchange.first or 0) <= (exchange.ended or 0)
    assert ("support", VERSION, 200, "complete", True) == (
        exchange.route,
        exchange.version,
        exchange.status,
        exchange.outcome,
        exchange.streaming,
    )
    assert exchange.pieces > 1
    assert exchange.sent_bytes > 100


async def test_a_connection_that_breaks_off_in_mid_request_is_no_exchange_that_was_answered() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with running() as service, talking(deaf) as port:
        service.fleet.ports[:] = [port]
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(chat()[:-1])
        await writer.drain()
        writer.close()
        await until(lambda: len(service.ended) == 1, "the exchange is over")
        assert (0, "client_left") == (service.fleet.leased, service.ended[0].outcome)


async def test_every_exchange_is_counted_out_of_flight_however_it_ends(service: Service) -> None:
    outbox = service.upstream.outbox
    await service.chat()
    await service.chat(model="nobody")
    await service.http.get("/v1/models")
    service.engine.faults.hang = True
    left = asyncio.create_task(service.chat())
    await until(lambda: outbox.in_flight == 1, "the last one is in flight")
    left.cancel()
    await asyncio.wait((left,))
    await until(lambda: outbox.in_flight == 0, "nothing is in flight")


async def test_answers_are_whole_when_many_go_out_together(service: Service) -> None:
    answers = await asyncio.gather(*(service.chat(model="support") for _ in range(50)))
    assert [VERSION] * 50 == [answer.json()["model"] for answer in answers]


async def test_the_last_answer_of_a_connection_is_sent_before_it_closes(service: Service) -> None:
    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(chat().replace(b"host: h\r\n", b"host: h\r\nconnection: close\r\n"))
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer

    answers = await asyncio.gather(*(ask() for _ in range(20)))
    assert all(answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"}") for answer in answers)


GET = b"GET /v1/models/nobody HTTP/1.1\r\n" + AUTH + b"\r\n"


async def test_more_pipelined_requests_than_any_client_sends_end_the_connection(service: Service) -> None:
    service.engine.faults.hang = True
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(chat() + GET * (MOST_PIPELINED + 50))
    assert b"" == await asyncio.wait_for(reader.read(), 5)
    await until(lambda: service.fleet.held == 0, "the first one's engine is free again")
    assert service.upstream.outbox.in_flight == 0
    writer.close()


async def test_a_client_that_does_not_read_is_not_answered_until_it_does(service: Service) -> None:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", service.port))
    sent, stuck = 0, False
    while not stuck:
        assert sent < 200_000, "tens of megabytes of answers wait for a client that reads none"
        await loop.sock_sendall(client, GET * 64)
        sent += 64
        try:
            await until(lambda due=sent: len(service.ended) == due, "all are answered", within_s=0.5)
        except AssertionError:
            stuck = True
    while len(service.ended) < sent:  # and it goes on when the client reads again
        assert await asyncio.wait_for(loop.sock_recv(client, 2**16), 5)
    client.close()


async def test_half_a_request_in_the_pipeline_does_not_time_out_before_its_turn() -> None:
    async with running(body_timeout_s=0.1) as service:
        service.engine.faults.prefill_delay_s = 0.3
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        second = chat("support")
        writer.write(chat() + second[:-5])
        ((status, body),) = await answers(reader, 1)
        assert (b"HTTP/1.1 200 OK", "base") == (status, json.loads(body)["model"])
        writer.write(second[-5:])
        ((status, body),) = await answers(reader, 1)
        assert (b"HTTP/1.1 200 OK", VERSION) == (status, json.loads(body)["model"])
        writer.close()


async def test_half_a_request_in_the_pipeline_times_out_once_it_is_its_turn() -> None:
    async with running(body_timeout_s=0.1) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(chat() + chat("support")[:-5])
        got = await answers(reader, 2)
        assert [b"HTTP/1.1 200 OK", b"HTTP/1.1 408 Request Timeout"] == [status for status, _ in got]
        writer.close()


async def test_a_body_in_the_pipeline_that_is_too_large_does_not_break_into_the_answer_before_it() -> None:
    async with running(max_body_bytes=1000) as service:
        service.engine.faults.prefill_delay_s = 0.2
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        large = b"POST /v1/chat/completions HTTP/1.1\r\n" + AUTH + b"transfer-encoding: chunked\r\n\r\n"
        writer.write(chat() + large + b"7d0\r\n" + b" " * 2000 + b"\r\n")
        got = await answers(reader, 2)
        assert [b"200", b"413"] == [status.split(b" ")[1] for status, _ in got]
        await until(lambda: len(service.ended) == 2, "both are over")
        assert (0, 0) == (service.fleet.held, service.upstream.outbox.in_flight)
        writer.close()


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "body apart"])
async def test_an_offer_to_upgrade_is_overlooked_and_its_request_answered(
    service: Service, apart: bool
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ\r\n"
    head, _, body = chat("support").partition(b"\r\n\r\n")
    for part in (
        (head + b"\r\n" + offer + b"\r\n", body) if apart else (head + b"\r\n" + offer + b"\r\n" + body,)
    ):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.02)
    ((status, answer),) = await answers(reader, 1)
    assert (b"HTTP/1.1 200 OK", VERSION) == (status, json.loads(answer)["model"])
    writer.write(chat())  # and the connection goes on
    ((status, _),) = await answers(reader, 1)
    assert b"HTTP/1.1 200 OK" == status
    writer.close()


async def test_connect_is_refused(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_what_is_no_http_does_not_break_into_an_answer(service: Service) -> None:
    service.engine.faults.token_delay_s = 0.05
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(chat(stream=True))
    await reader.readuntil(b"data: ")
    writer.write(b"no http at all\r\n\r\n")
    rest = await asyncio.wait_for(reader.read(), 5)
    assert b"Invalid HTTP" not in rest and b"HTTP/1.1 400" not in rest
    await until(lambda: service.fleet.held == 0, "its engine is free again")
    writer.close()


async def test_a_refused_body_is_not_kept_with_its_connection(service: Service) -> None:
    await service.http.post("/v1/chat/completions", content=b"[" + b" " * 10**6)
    assert [b""] == [bytes(exchange.body) for exchange in service.ended]


async def test_an_expected_body_that_was_not_asked_for_ends_the_connection(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
    )
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 401") and b"connection: close" in answer
    writer.close()
