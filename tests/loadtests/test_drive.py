"""One run against real sockets: times kept, sends dropped, every kind of bad server under its name."""

from __future__ import annotations

import asyncio
import gc
import gzip
import ssl
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import uvloop

from loadtests.answer import Answer
from loadtests.client import Client, Connection, Exchange, addresses
from loadtests.drive import Driven, Progress, Target, drive
from loadtests.plan import Plan
from loadtests.sample import Outcome, Sample
from loadtests.target import TargetError
from tests.house import free_port
from tests.loadtests.plans import closed, plan
from tests.loadtests.servers import (
    DONE,
    END,
    GOOD,
    STREAM_HEAD,
    WHOLE,
    Asked,
    Reply,
    event,
    piece,
    response,
    said,
    serving,
    stream,
    usage,
)


async def driven(reply: Reply, asked: Plan) -> Driven:
    async with serving(reply) as target:
        return await drive(asked, target)


async def one(reply: Reply, **changed: object) -> Sample:
    run = await driven(reply, plan(**changed))  # type: ignore[arg-type]
    assert 1 == len(run.samples)
    return run.samples[0]


async def test_a_good_stream_is_measured_from_schedule_to_done() -> None:
    sample = await one(said(GOOD), ats=[0.1])
    assert (Outcome.OK, 7, 2, "support-v3") == (
        sample.outcome,
        sample.output_tokens,
        len(sample.arrivals),
        sample.version,
    )
    assert sample.begun and sample.sent and sample.first and sample.last
    assert 0.1 == sample.at <= sample.begun <= sample.sent < sample.first <= sample.last


async def test_a_good_whole_answer_is_measured_at_its_end() -> None:
    sample = await one(said(response(WHOLE)), stream=False)
    assert (Outcome.OK, 3) == (sample.outcome, sample.output_tokens)
    assert sample.first == sample.last is not None


async def test_the_request_says_what_the_scenario_says() -> None:
    heard: list[Asked] = []

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        heard.append(asked)
        writer.write(GOOD)

    await driven(reply, plan(ignore_eos=True, temperature=0.5))
    assert {
        "model": "support",
        "messages": [{"role": "user", "content": "Question 0"}],
        "max_tokens": 8,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "ignore_eos": True,
    } == heard[0].json
    assert heard[0].head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nauthorization: Bearer a-key\r\n" in heard[0].head
    assert b"\r\naccept-encoding: identity\r\n" in heard[0].head


async def test_the_completions_api_gets_a_prompt() -> None:
    heard: list[Asked] = []

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        heard.append(asked)
        writer.write(response(b'{"choices":[{"text":"x"}]}'))

    await driven(reply, plan(api="completions", stream=False, temperature=None))
    assert {"model": "support", "prompt": "Question 0", "max_tokens": 8, "stream": False} == heard[0].json
    assert heard[0].head.startswith(b"POST /v1/completions ")


async def test_connections_are_kept_alive() -> None:
    writers = set()

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        writers.add(writer)
        writer.write(GOOD)
        return True

    run = await driven(reply, plan([0.0, 1.2, 1.3, 1.4]))
    assert 4 == sum(sample.ok for sample in run.samples)
    assert 1 == len(writers)


async def test_a_body_that_ends_after_its_done_leaves_the_connection_good() -> None:
    writers = set()

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        writers.add(writer)
        writer.write(STREAM_HEAD + piece(event()) + piece(DONE))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(END)
        return True

    run = await driven(reply, plan([0.0, 1.2]))
    assert [Outcome.OK] * 2 == [sample.outcome for sample in run.samples]
    assert 1 == len(writers)


@pytest.mark.parametrize(
    ("data", "outcome", "detail"),
    [
        (stream(event(), usage()), Outcome.TRUNCATED, "the stream ended without [DONE], after 1 chunk"),
        (
            STREAM_HEAD + piece(event()),
            Outcome.RESET,
            "the server closed the connection in its answer, after 1",
        ),
        (b"", Outcome.RESET, "the server closed the connection before it answered"),
        (stream(b'data: {"error":{"message":"boom"}}\n\n'), Outcome.ERROR_BODY, "boom"),
        (response(b'{"error":{"message":"boom"}}'), Outcome.ERROR_BODY, "boom"),
        (
            response(b"<html>hello</html>", content_type="text/html"),
            Outcome.BAD_BODY,
            "not what OpenAI's API",
        ),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Outcome.BAD_BODY, "the answer is not HTTP/1.1: "),
        (STREAM_HEAD + b"zz\r\n", Outcome.BAD_BODY, "the answer is not HTTP/1.1: "),
        (response(b"", "307 Go", location="http://127.0.0.1:1/"), Outcome.REDIRECT, "to http://127.0.0.1:1/"),
        (response(b'{"error":{"message":"slow down"}}', "429 Slow"), Outcome.RATE_LIMITED, "slow down"),
        (response(b"busy", "503 Busy"), Outcome.UNAVAILABLE, "busy"),
        (response(b'{"error":"no such"}', "404 No"), Outcome.STATUS_4XX, "no such"),
        (response(b"bad gateway", "502 Bad"), Outcome.STATUS_5XX, "bad gateway"),
        (stream(DONE), Outcome.NO_TOKENS, "the stream had no content"),
        (
            b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            Outcome.BAD_BODY,
            "the answer is",
        ),
    ],
)
async def test_a_bad_server_is_counted_under_its_name(data: bytes, outcome: Outcome, detail: str) -> None:
    run = await driven(said(data), plan([0.0, 0.01, 0.02]))
    assert [outcome] * 3 == [sample.outcome for sample in run.samples]
    assert run.samples[0].detail.startswith(detail)


@pytest.mark.parametrize(
    "data",
    [
        GOOD.replace(b"\n", b"\n"),
        STREAM_HEAD + piece(event() + usage() + DONE) + END,
        b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event() + usage() + DONE,
        b"HTTP/1.1 200 OK\r\n\r\n" + event() + usage() + b"data: [DONE]",
        b"HTTP/1.1 100 Continue\r\n\r\n" + stream(event(), usage(), DONE),
        stream(b": ping\r\n\r\n", event("x" * 300_000), usage(), DONE),
        STREAM_HEAD
        + piece(event())
        + piece(usage())
        + piece(DONE),  # and then it closes, which is after the end
        response(
            gzip.compress(event() + usage() + DONE), content_type="text/event-stream", content_encoding="gzip"
        ),
    ],
)
async def test_what_is_odd_but_whole_is_good(data: bytes) -> None:
    sample = await one(said(data))
    assert (Outcome.OK, "", 7) == (sample.outcome, sample.detail, sample.output_tokens)


async def test_a_trickle_of_single_bytes_is_good() -> None:
    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for i in range(len(GOOD)):
            writer.write(GOOD[i : i + 1])
            await writer.drain()
            if i % 20 == 0:
                await asyncio.sleep(0.001)

    assert Outcome.OK is (await one(reply)).outcome


async def test_a_reset_is_counted_as_one() -> None:
    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + piece(event()))
        await writer.drain()
        writer.transport.abort()

    sample = await one(reply)
    assert Outcome.RESET is sample.outcome


async def test_a_server_that_never_answers_times_out() -> None:
    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    sample = await one(reply, client={"timeout_s": 0.2})
    assert (Outcome.TIMEOUT, None) == (sample.outcome, sample.last)
    assert "no whole answer within client.timeout_s = 0.2 s" == sample.detail


async def test_what_is_open_at_the_end_of_the_drain_is_unfinished() -> None:
    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + piece(event()))
        await asyncio.Event().wait()

    began = time.monotonic()
    sample = await one(reply, client={"drain_s": 0.3})
    assert (Outcome.UNFINISHED, 1) == (sample.outcome, len(sample.arrivals))
    assert time.monotonic() - began < 2


async def test_a_server_that_refuses_connections_ends_no_run() -> None:
    run = await drive(plan([0.0, 0.05]), Target(f"http://127.0.0.1:{free_port()}"))
    assert [Outcome.CONNECT] * 2 == [sample.outcome for sample in run.samples]
    assert run.samples[0].detail.startswith("no connection (")
    assert run.samples[0].sent is None


async def test_a_host_that_nobody_knows_is_an_error_at_once() -> None:
    with pytest.raises(TargetError, match=r"host 'nowhere\.invalid' cannot be resolved"):
        await drive(plan(), Target("http://nowhere.invalid"))


async def test_sends_beyond_the_most_open_are_dropped_and_never_sent() -> None:
    heard = []

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        heard.append(asked)
        await asyncio.sleep(0.3)
        writer.write(GOOD)

    run = await driven(reply, plan([0.0, 0.01, 0.02, 0.03, 0.6], client={"max_open": 2}))
    assert ["ok", "ok", "dropped", "dropped", "ok"] == [sample.outcome for sample in run.samples]
    assert 3 == len(heard)
    assert (2, 2, False) == (run.generator.dropped, run.generator.most_open, run.generator.saturated)
    assert "2 sends were dropped: client.max_open = 2 were in flight" == run.generator.why


async def test_every_request_is_sent_at_its_time_whatever_becomes_of_the_others() -> None:
    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.count == 0:
            await asyncio.sleep(1)
        writer.write(GOOD)

    run = await driven(reply, plan([i / 200 for i in range(100)]))
    assert 100 == sum(sample.ok for sample in run.samples)
    lags = sorted(sample.lag or 0.0 for sample in run.samples)
    assert lags[50] < 0.0015
    assert abs(run.generator.lag_p50 - lags[50]) < 1e-3


async def test_a_generator_that_is_late_is_saturated_and_says_why() -> None:
    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        time.sleep(0.1)  # noqa: ASYNC251 - it holds up the loop, which is the generator's too
        writer.write(GOOD)

    run = await driven(reply, plan([i / 100 for i in range(20)]))
    assert run.generator.saturated
    assert run.generator.lag_p99 > 0.05
    assert "the generator was late: p99 of its lag was " in run.generator.why


async def test_in_closed_loop_a_client_sends_after_its_answer() -> None:
    at_once, most = 0, 0

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        writer.write(GOOD)
        return True

    run = await driven(reply, closed(10, 2))
    assert (10, 2) == (sum(sample.ok for sample in run.samples), most)
    assert all(sample.at == sample.begun for sample in run.samples)
    assert list(range(10)) == [sample.index for sample in run.samples]


async def test_a_closed_loop_ends_when_its_time_is_over() -> None:
    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.05)
        writer.write(GOOD)
        return True

    run = await driven(reply, closed(1000, 1, seconds=0.3))
    assert 2 <= len(run.samples) <= 7
    assert all(sample.ok for sample in run.samples)


async def test_progress_is_told_twice_a_second() -> None:
    told: list[Progress] = []
    async with serving(said(GOOD)) as target:
        await drive(plan([i / 20 for i in range(24)]), target, tell=told.append)
    assert 3 == len(told)
    assert told[-1].due - told[-1].sent in (0, 1)  # it may be told between the two
    assert told[-1].sent == told[-1].answered + told[-1].in_flight
    assert 0 == told[-1].errors == told[-1].dropped


async def test_nothing_collects_garbage_while_a_run_lasts() -> None:
    seen: list[bool] = []
    async with serving(said(GOOD)) as target:
        await drive(plan(), target, tell=lambda progress: seen.append(gc.isenabled()))
    assert [False] == seen
    assert gc.isenabled()


async def test_an_error_of_ours_ends_the_run() -> None:
    def tell(progress: Progress) -> None:
        raise ZeroDivisionError("ours")

    async with serving(said(GOOD)) as target:
        with pytest.raises(ZeroDivisionError, match="ours"):
            await drive(plan([0.0, 5.0]), target, tell=tell)


@pytest.mark.parametrize("data", [GOOD, b"", stream(event()), None])
def test_a_run_leaves_nothing_to_the_garbage_collector_which_is_off(data: bytes | None) -> None:
    async def main() -> Counter[type]:
        async with serving(said(data or b"")) as target:
            await drive(plan([i / 400 for i in range(100)]), target if data is not None else refused)
        return Counter(type(each) for each in gc.get_objects())

    refused = Target(f"http://127.0.0.1:{free_port()}")
    gc.collect()
    gc.disable()
    try:
        left = uvloop.run(main())
    finally:
        gc.enable()
    assert {} == {kind: left[kind] for kind in (Connection, Exchange, Answer) if left[kind]}


def _slow(loop_run: object, rate: int) -> tuple[Sample, float]:
    """A stream of 6 KB from a server that notes how long it took to be rid of it."""
    words = [event("x" * 400) for _ in range(12)]

    async def main() -> Sample:
        async with serving(said(stream(*words, usage(), DONE))) as target:
            return (await drive(plan(slow=True, client={"slow_bytes_per_s": rate}), target)).samples[0]

    began = time.monotonic()
    assert callable(loop_run)
    return loop_run(main()), time.monotonic() - began


@pytest.mark.parametrize("loop_run", [asyncio.run, uvloop.run])
def test_a_slow_client_reads_at_its_rate(loop_run: object) -> None:
    sample, took = _slow(loop_run, 10_000)
    assert (Outcome.OK, True, 12) == (sample.outcome, sample.slow, len(sample.arrivals))
    assert 0.6 < took < 2


@pytest.mark.parametrize("data", [GOOD, b"", stream(event()), STREAM_HEAD + piece(event()) + piece(DONE)])
def test_uvloop_sees_what_asyncio_sees(data: bytes) -> None:
    by_loop = [
        [sample.outcome for sample in run(driven(said(data), plan([0.0, 0.01]))).samples]
        for run in (asyncio.run, uvloop.run)
    ]
    assert by_loop[0] == by_loop[1]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for 127.0.0.1, signed by itself."""
    path = tmp_path / "tls.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", f"{path}.key", "-out", str(path)),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(f"{path}.key").read_text())
    return path


@pytest.mark.parametrize("loop_run", [asyncio.run, uvloop.run])
def test_https_is_spoken_to_a_server_that_is_trusted(
    loop_run: object, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)

    async def main() -> list[Outcome]:
        async with serving(said(GOOD), tls) as target:
            return [sample.outcome for sample in (await drive(plan([0.0, 0.05]), target)).samples]

    assert callable(loop_run)
    assert [Outcome.CONNECT] * 2 == loop_run(main())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert [Outcome.OK] * 2 == loop_run(main())


async def test_a_connection_that_was_idle_for_too_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtests.client.IDLE_S", 0.1)
    writers = set()

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        writers.add(writer)
        writer.write(GOOD)
        return True

    run = await driven(reply, plan([0.0, 1.3, 1.6]))
    assert 3 == sum(sample.ok for sample in run.samples)
    assert 3 == len(writers)


async def test_closing_the_client_closes_its_connections() -> None:
    async with serving(said(GOOD, keep=True)) as target, asyncio.TaskGroup() as tasks:
        client = Client(target, await addresses(target), tasks)
        await client.warm(3)
        assert 3 == len(client.open)
        await client.close()
        assert set() == client.open


@pytest.mark.parametrize(
    ("url", "said_"),
    [
        ("127.0.0.1:8000", "is not the URL of a server"),
        ("ftp://host", "is not the URL of a server"),
        ("http://host:99999", "is not the URL of a server"),
        ("http://me:secret@host", "the URL of host carries credentials"),
    ],
)
def test_a_target_that_is_none_says_so_without_its_password(url: str, said_: str) -> None:
    with pytest.raises(TargetError, match=said_) as error:
        Target(url)
    assert "secret" not in str(error.value)


def test_a_header_cannot_bring_another() -> None:
    with pytest.raises(TargetError, match="has a line end"):
        Target("http://host", headers={"x-a": "b\r\nx-c: d"})


@pytest.mark.parametrize(
    "url", ["http://h:1/base", "http://h:1/base/", "http://h:1/base/v1", "http://h:1/base/v1/"]
)
def test_a_base_url_may_end_in_v1(url: str) -> None:
    assert ("/base", 1) == (Target(url).path, Target(url).port)
