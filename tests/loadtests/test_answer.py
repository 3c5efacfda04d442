"""Bytes of an answer to a sample: what counts as content, and every way to be wrong."""

from __future__ import annotations

import gzip
import json
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.answer import Answer
from loadtests.events import Events
from loadtests.sample import Outcome, Sample
from tests.loadtests.servers import DONE, WHOLE, event, usage


class Heard:
    """An answer that hears pieces at the given times; what came of it is `sample`."""

    def __init__(self, *, stream: bool = True) -> None:
        self.sample = Sample(index=0, at=0.0, route="support", phase="run")
        self.ended = 0
        self.answer = Answer(self.sample, stream=stream, done=self._done)

    def _done(self, answer: Answer) -> None:
        self.ended += 1

    def head(self, status: int = 200, **headers: str) -> Heard:
        pairs = {"content_type": "text/event-stream", **headers}
        self.answer.on_head(
            status, [(name.replace("_", "-").encode(), value.encode()) for name, value in pairs.items()], 0.5
        )
        return self

    def body(self, *pieces: bytes, start: float = 1.0) -> Heard:
        for i, piece in enumerate(pieces):
            self.answer.on_body(piece, start + i)
        return self

    def end(self, now: float = 100.0) -> Sample:
        self.answer.on_end(now)
        assert self.ended == 1
        return self.sample


def streamed(*pieces: bytes) -> Sample:
    return Heard().head().body(*pieces).end()


def whole(body: bytes, **headers: str) -> Sample:
    return Heard(stream=False).head(content_type="application/json", **headers).body(body).end()


def test_times_are_those_of_the_content_chunks_and_of_done() -> None:
    sample = streamed(event(None), event("Hel"), event("lo", "stop"), usage(), DONE)
    assert (2.0, 5.0, (2.0, 3.0)) == (sample.first, sample.last, sample.arrivals)
    assert Outcome.OK is sample.outcome
    assert ("support-v3", "stop") == (sample.version, sample.finish_reason)


def test_tokens_come_from_usage_even_where_a_chunk_holds_several() -> None:
    sample = streamed(event("several words in one"), usage(prompt=11, completion=7, cached=4), DONE)
    assert (11, 4, 7) == (sample.input_tokens, sample.cached_tokens, sample.output_tokens)
    assert sample.usage_known


def test_without_usage_chunks_are_counted_and_that_is_said() -> None:
    sample = streamed(event("a"), event("b"), DONE)
    assert (2, False, Outcome.OK) == (sample.output_tokens, sample.usage_known, sample.outcome)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning": "x"},
        {"reasoning_content": "x"},
        {"tool_calls": [{"index": 0}]},
        {"refusal": "x"},
    ],
)
def test_a_delta_with_anything_said_is_content(delta: dict[str, object]) -> None:
    data = b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"
    assert (1.0,) == streamed(data, DONE).arrivals


@pytest.mark.parametrize(
    "delta", [{}, {"role": "assistant"}, {"content": ""}, {"content": None, "tool_calls": []}]
)
def test_a_delta_with_nothing_said_is_no_content(delta: dict[str, object]) -> None:
    data = b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"
    assert (2.0,) == streamed(data, event("x"), DONE).arrivals


def test_the_text_of_the_completions_api_is_content() -> None:
    assert (1.0,) == streamed(b'data: {"choices":[{"text":"x"}]}\n\n', DONE).arrivals


def test_events_in_one_piece_arrived_together() -> None:
    assert (1.0, 1.0) == streamed(event("a") + event("b") + DONE).arrivals


def test_an_event_arrived_with_its_last_byte() -> None:
    data = event("abc")
    assert (3.0,) == streamed(data[:10], data[10:30], data[30:], DONE).arrivals


@given(st.lists(st.integers(1, 400), max_size=8))
def test_a_stream_means_the_same_however_it_is_cut(cuts: list[int]) -> None:
    data = b": ping\r\n\r\n" + (event("a") + usage(completion=9) + DONE).replace(b"\n", b"\r\n")
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    sample = streamed(*(data[i:j] for i, j in pairwise(edges)))
    assert (Outcome.OK, 9, 1) == (sample.outcome, sample.output_tokens, len(sample.arrivals))


def test_byte_by_byte_is_a_stream_too() -> None:
    data = event(None) + event("a") + usage() + DONE
    sample = streamed(*(data[i : i + 1] for i in range(len(data))))
    assert (Outcome.OK, 7) == (sample.outcome, sample.output_tokens)


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (b"data:x\n\n", [b"x"]),
        (b"data: x\n\n: ping\n\ndata: y\n\n", [b"x", b"y"]),
        (b"event: message\nid: 1\ndata: x\n\n", [b"x"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: x\r\n\r\ndata: y\r\n\r\n", [b"x", b"y"]),
        (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
        (b"data: x\r\rdata: y\r\r", [b"x", b"y"]),
        (b"data: x\n\n\n\ndata: y\n\n", [b"x", b"y"]),
        (b"data: x\n", []),
    ],
)
def test_events_are_read_as_the_standard_says(sent: bytes, heard: list[bytes]) -> None:
    assert heard == list(Events(1000).feed(sent))
    one_by_one = Events(1000)
    assert heard == [data for i in range(len(sent)) for data in one_by_one.feed(sent[i : i + 1])]


def test_a_line_of_a_megabyte_is_an_event() -> None:
    sample = streamed(event("x" * 1_000_000), DONE)
    assert (Outcome.OK, 1) == (sample.outcome, len(sample.arrivals))


def test_an_event_that_never_ends_is_overrun() -> None:
    events = Events(1000)
    assert [] == list(events.feed(b"data: " + b"x" * 2000))
    assert events.overrun


def test_done_without_its_empty_line_is_the_end_all_the_same() -> None:
    assert Outcome.OK is streamed(event("a"), b"data: [DONE]").outcome


def test_bytes_after_done_change_nothing() -> None:
    sample = streamed(event("a"), DONE, b'data: {"error":{"message":"late"}}\n\n')
    assert (Outcome.OK, 2.0) == (sample.outcome, sample.last)


@pytest.mark.parametrize(
    ("pieces", "outcome", "detail"),
    [
        ((event("a"),), Outcome.TRUNCATED, "the stream ended without [DONE], after 1 chunk"),
        ((), Outcome.TRUNCATED, "the stream ended without [DONE], after 0 chunks"),
        ((DONE,), Outcome.NO_TOKENS, "the stream had no content before [DONE]"),
        ((event(None), usage(), DONE), Outcome.NO_TOKENS, "the stream had no content before [DONE]"),
        ((event("a"), b'data: {"error":{"message":"engine died"}}\n\n'), Outcome.ERROR_BODY, "engine died"),
        (
            (b'event: error\ndata: {"object":"error","message":"old style"}\n\n',),
            Outcome.ERROR_BODY,
            "old style",
        ),
        ((b'{"error":{"message":"bare JSON"}}\n\n',), Outcome.ERROR_BODY, "bare JSON"),
        ((b'{"error":"bare and unfinished"}',), Outcome.ERROR_BODY, "bare and unfinished"),
        ((b"data: {oops\n\n",), Outcome.BAD_BODY, "an event is not a chunk"),
        ((b'data: {"id":1}\n\n',), Outcome.BAD_BODY, 'no choices: {"id":1}'),
        ((b'data: {"choices":3}\n\n',), Outcome.BAD_BODY, "an event is not a chunk"),
    ],
)
def test_a_stream_that_is_wrong_is_counted_under_its_name(
    pieces: tuple[bytes, ...], outcome: Outcome, detail: str
) -> None:
    sample = streamed(*pieces)
    assert outcome is sample.outcome
    assert sample.detail.startswith(detail)


def test_what_came_before_a_failure_is_kept() -> None:
    sample = streamed(event("a"), event("b"))
    assert ((1.0, 2.0), 1.0, 100.0) == (sample.arrivals, sample.first, sample.last)


def test_a_whole_answer_begins_and_ends_with_its_body() -> None:
    sample = whole(WHOLE)
    assert (100.0, 100.0, ()) == (sample.first, sample.last, sample.arrivals)
    assert (Outcome.OK, 5, 3, "stop") == (
        sample.outcome,
        sample.input_tokens,
        sample.output_tokens,
        sample.finish_reason,
    )


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"error":{"message":"no"}}', Outcome.ERROR_BODY),
        (b"", Outcome.BAD_BODY),
        (b"<html>", Outcome.BAD_BODY),
        (b"[]", Outcome.BAD_BODY),
        (b'{"status":"ok"}', Outcome.BAD_BODY),
        (b'{"choices":[{"message":{"content":""}}]}', Outcome.NO_TOKENS),
        (b'{"choices":[]}', Outcome.NO_TOKENS),
        (b'{"choices":[{"message":{"tool_calls":[{}]}}],"error":null}', Outcome.OK),
    ],
)
def test_a_whole_answer_is_counted_under_its_name(body: bytes, outcome: Outcome) -> None:
    assert outcome is whole(body).outcome


def test_a_whole_answer_to_a_request_for_a_stream_is_a_bad_body() -> None:
    sample = Heard().head(content_type="application/json").body(WHOLE).end()
    assert Outcome.BAD_BODY is sample.outcome
    assert sample.detail.startswith("a whole answer, when a stream was asked for")


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (301, Outcome.REDIRECT),
        (307, Outcome.REDIRECT),
        (400, Outcome.STATUS_4XX),
        (404, Outcome.STATUS_4XX),
        (429, Outcome.RATE_LIMITED),
        (500, Outcome.STATUS_5XX),
        (502, Outcome.STATUS_5XX),
        (503, Outcome.UNAVAILABLE),
    ],
)
def test_a_status_is_counted_under_its_name(status: int, outcome: Outcome) -> None:
    sample = Heard().head(status).body(b'{"error":{"message":"because"}}').end()
    assert (outcome, status) == (sample.outcome, sample.status)
    assert "because" in sample.detail


def test_a_redirect_says_where_to() -> None:
    assert "to https://elsewhere/" == Heard().head(302, location="https://elsewhere/").end().detail


def test_a_refusal_whose_connection_broke_is_still_that_refusal() -> None:
    heard = Heard().head(429).body(b'{"error":{"mess')
    heard.answer.on_lost(Outcome.RESET, "it broke", 9.0)
    assert Outcome.RATE_LIMITED is heard.sample.outcome


def test_a_connection_that_broke_says_how_far_it_got() -> None:
    heard = Heard().head().body(event("a"), event("b"))
    heard.answer.on_lost(Outcome.RESET, "it broke", 9.0)
    assert (Outcome.RESET, "it broke, after 2 chunks", 9.0) == (
        heard.sample.outcome,
        heard.sample.detail,
        heard.sample.last,
    )


def test_an_answer_that_we_gave_up_on_has_no_end() -> None:
    heard = Heard().head().body(event("a"))
    heard.answer.on_lost(Outcome.TIMEOUT, "too long", 9.0)
    assert heard.sample.last is None


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_stream_is_read_and_flagged(coding: str, pack: object) -> None:
    assert callable(pack)
    data = pack(event("a") + usage() + DONE)
    sample = Heard().head(content_encoding=coding).body(data[:20], data[20:]).end()
    assert (Outcome.OK, True, 7) == (sample.outcome, sample.compressed, sample.output_tokens)


def test_a_coding_that_we_cannot_read_is_a_bad_body() -> None:
    heard = Heard().head(content_encoding="br").body(b"\x00")
    assert Outcome.BAD_BODY is heard.sample.outcome
    assert "content-encoding br, when identity was asked for" == heard.sample.detail


def test_compressed_nonsense_is_a_bad_body() -> None:
    assert Outcome.BAD_BODY is Heard().head(content_encoding="gzip").body(b"not gzip at all").end().outcome


@pytest.mark.parametrize(("value", "seconds"), [("1500", 1.5), ("0.5", 0.0005), ("soon", None), ("-1", None)])
def test_a_cold_start_is_what_the_gateway_says(value: str, seconds: float | None) -> None:
    assert seconds == Heard().head(x_hotswap_load_ms=value).body(event("a"), DONE).end().loaded_s


def test_a_detail_has_200_characters_at_most() -> None:
    assert 200 == len(whole(json.dumps({"error": {"message": "x" * 999}}).encode()).detail)
