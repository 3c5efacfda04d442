"""Rows: what a record says, flat, and nothing raised whatever it holds."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.traffic.lake import COLUMNS, batch_of
from gateway.traffic.record import METADATA, decode, encode
from gateway.traffic.row import Row, row_of
from tests.traffic.records import AT, record


def sent(**request: Any) -> bytes:
    return json.dumps({"model": "support", **request}).encode()


def test_a_record_survives_its_encoding() -> None:
    given = record(3)
    assert decode(encode(given, given)) == [given, given]
    assert decode(msgspec.msgpack.encode(given)) == [given]  # as it was written until December 2026


def test_a_row_says_what_was_asked_and_answered() -> None:
    row = row_of(record(3, ended_s=0.25, loaded_s=0.02))
    assert json.loads(row["messages"] or "") == [{"role": "user", "content": "question 3"}]
    assert json.loads(row["response"] or "") == [{"role": "assistant", "content": "answer 3"}]
    assert json.loads(row["parameters"] or "") == {"model": "support", "temperature": 0, "user": "user-3"}
    assert (row["day"], row["route"], row["keep_days"]) == ("2026-11-18", "support", 90)
    assert (row["prompt"], row["completion"], row["counted"]) == (10, 3, True)
    assert (row["ttft_ms"], row["duration_ms"], row["load_ms"]) == (50.0, 250.0, 20.0)
    assert (row["at"], row["unit"], row["error"], row["finish_reason"]) == (
        round((AT + 3) * 1e6),
        "user-3",
        "",
        "stop",
    )
    assert not row["cut"]


def test_a_row_has_the_lakes_columns_in_its_order() -> None:
    assert list(Row.__annotations__) == list(COLUMNS) == list(row_of(record()))
    assert batch_of([row_of(record(1)), row_of(record(2, level=METADATA, request=b""))]).num_rows == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"outcome": "client_left"}, "client_left"),
        ({"outcome": "engine_lost"}, "engine_lost"),
        ({"error": "queue_full", "status": 429, "answer": b'{"error": {}}'}, "queue_full"),
        (
            {"streaming": True, "answer": b'data: {"error": {"code": "engine_lost"}}\n\n'},
            "engine_lost",
        ),
    ],
)
def test_what_went_wrong_is_marked(changes: dict[str, Any], error: str) -> None:
    assert row_of(record(**changes))["error"] == error


def test_a_stream_cut_short_is_counted_by_its_deltas() -> None:
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
    row = row_of(record(streaming=True, outcome="client_left", answer=event * 3))
    assert (row["completion"], row["counted"], row["error"]) == (3, False, "client_left")
    assert json.loads(row["response"] or "")[0]["content"] == "word word word "


def test_a_very_long_answer_is_marked_as_cut() -> None:
    assert row_of(record(sent_bytes=10_000_000))["cut"]


@pytest.mark.parametrize(
    ("header", "request_body", "unit"),
    [
        ("from the header", sent(user="u", messages=[]), "from the header"),
        ("", sent(user="u", prompt_cache_key="p", safety_identifier="s"), "s"),
        ("", sent(user="u", prompt_cache_key="p"), "p"),
        ("", sent(user="u", messages=[{"role": "user", "content": "x"}]), "u"),
        ("", sent(user=5), ""),
        ("", b"", ""),
    ],
)
def test_whom_it_was_for(header: str, request_body: bytes, unit: str) -> None:
    assert row_of(record(unit=header, request=request_body))["unit"] == unit


def test_a_conversation_stays_together_without_a_name() -> None:
    first = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    later = [*first, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "More"}]
    other = [first[0], {"role": "user", "content": "Bye"}]
    units = [row_of(record(request=sent(messages=each)))["unit"] for each in (first, later, other)]
    assert units[0] == units[1] != units[2]
    assert units[0].startswith("h:")


@pytest.mark.parametrize("request_body", [b"\xff", b"[]", b"null", b'{"messages": 5}', b"[" * 100_000])
def test_a_request_that_cannot_be_read_costs_no_row(request_body: bytes) -> None:
    row = row_of(record(request=request_body))
    assert row["response"] is not None and row["status"] == 200


def test_tools_and_metadata_have_columns_of_their_own() -> None:
    body = sent(messages=[], tools=[{"type": "function"}], metadata={"ticket": "7"}, top_p=1)
    row = row_of(record(request=body))
    assert (row["tools"], row["metadata"]) == ('[{"type":"function"}]', '{"ticket":"7"}')
    assert json.loads(row["parameters"] or "") == {"model": "support", "top_p": 1}


def test_completions_and_responses_keep_their_prompts() -> None:
    assert row_of(record(path="/v1/completions", request=sent(prompt="Once")))["messages"] == '"Once"'
    assert row_of(record(path="/v1/responses", request=sent(input="Why?")))["messages"] == '"Why?"'
