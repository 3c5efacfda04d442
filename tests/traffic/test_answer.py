"""Answers put together from the bytes that were passed on, whole, streamed, cut or garbled."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gateway.traffic.answer import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Answer, Usage, read


def stream(*events: Any, done: bool = True) -> bytes:
    said = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return said + (b"data: [DONE]\n\n" if done else b"")


def delta(index: int = 0, reason: str | None = None, **parts: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": parts, "finish_reason": reason}]}


def call(index: int, **function: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": function}]}


USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 8},
}


def test_a_whole_chat_answer() -> None:
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    body = json.dumps(
        {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
    )
    assert read(CHAT, body.encode(), streaming=False) == Answer(
        [{"role": "assistant", "content": "Hello"}], ["stop"], Usage(12, 3, 8)
    )


def test_a_stream_is_joined_by_choice() -> None:
    body = stream(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(1, content="Other"),
        delta(content="lo"),
        delta(reason="stop"),
        delta(1, reason="length"),
        {"choices": [], "usage": USAGE},
    )
    answer = read(CHAT, body, streaming=True)
    assert [message["content"] for message in answer.messages] == ["Hello", "Other"]
    assert (answer.finish_reasons, answer.usage) == (["stop", "length"], Usage(12, 3, 8))
    assert (answer.text, answer.deltas, answer.error) == ("Hello", 3, None)


def test_tool_calls_are_joined_by_index() -> None:
    first = {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "look", "arguments": '{"a'}}]}
    second = {"tool_calls": [{"index": 1, "id": "call_2", "function": {"name": "take"}}]}
    body = stream(
        delta(**first),
        delta(**second),
        delta(**call(0, arguments='": 1}')),
        delta(**call(1, arguments="{}"), reason="tool_calls"),
    )
    answer = read(CHAT, body, streaming=True)
    assert answer.finish_reasons == ["tool_calls"]
    assert answer.messages[0] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}},
            {"id": "call_2", "type": "function", "function": {"name": "take", "arguments": "{}"}},
        ],
    }


def test_a_stream_cut_short_says_what_came_and_why() -> None:
    error = {"error": {"message": "The engine stopped", "code": "engine_lost"}}
    answer = read(CHAT, stream(delta(content="Half an"), error, done=False), streaming=True)
    assert (answer.text, answer.finish_reasons, answer.error) == ("Half an", [None], "engine_lost")
    half = stream(delta(content="Half"), delta(content=" an answer"))[:-40]
    assert read(CHAT, half, streaming=True).text == "Half"


def test_completions_and_their_streams() -> None:
    whole = json.dumps({"choices": [{"index": 0, "text": "once", "finish_reason": "length"}]}).encode()
    assert read(COMPLETIONS, whole, streaming=False).text == "once"
    body = stream(*({"choices": [{"index": 0, "text": text}]} for text in ("on", "ce")))
    assert read(COMPLETIONS, body, streaming=True).text == "once"


def test_responses_whole_streamed_and_cut() -> None:
    made = {
        "id": "resp_1",
        "status": "completed",
        "output": [
            {"type": "message", "content": [{"type": "output_text", "text": "Look:"}]},
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
        ],
        "usage": {
            "input_tokens": 5,
            "output_tokens": 2,
            "input_tokens_details": {"cached_tokens": 1},
        },
    }
    whole = read(RESPONSES, json.dumps(made).encode(), streaming=False)
    assert (whole.text, whole.finish_reasons, whole.usage) == ("Look:", ["tool_calls"], Usage(5, 2, 1))
    (made_call,) = whole.messages[0]["tool_calls"]
    assert made_call["function"] == {"name": "look", "arguments": "{}"}
    deltas = [{"type": "response.output_text.delta", "delta": text} for text in ("Lo", "ok:")]
    streamed = read(
        RESPONSES, stream(*deltas, {"type": "response.completed", "response": made}), streaming=True
    )
    assert (streamed.messages, streamed.usage, streamed.deltas) == (whole.messages, whole.usage, 2)
    cut = read(RESPONSES, stream(*deltas, done=False), streaming=True)
    assert (cut.text, cut.finish_reasons) == ("Look:", [None])


def test_embeddings_have_usage_and_no_message() -> None:
    body = json.dumps({"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 4}}).encode()
    assert read(EMBEDDINGS, body, streaming=False) == Answer(usage=Usage(4, None, None))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b'{"choices": 3, "usage": [], "error": "no"}',
        b'{"choices": [null, {"index": "x"}, {"delta": {"content": 5, "tool_calls": [{"index": []}]}}]}',
        b"[" * 100_000,
        b"data: [" * 1000,
        b"data",
        b"\n\n\n",
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS])
@pytest.mark.parametrize("streaming", [True, False])
def test_garbage_is_no_answer_and_no_exception(body: bytes, path: str, streaming: bool) -> None:
    for given in (body, b"data: " + body + b"\n\n"):
        assert read(path, given, streaming=streaming).text == ""


def test_invalid_utf_8_costs_its_characters_only() -> None:
    body = b'data: {"choices": [{"index": 0, "delta": {"content": "caf\xc3"}}]}\n\n' + stream(
        delta(content="!")
    )
    answer = read(CHAT, body, streaming=True)
    assert (answer.text, answer.broken) == ("caf\ufffd!", 0)


def test_broken_events_are_counted_and_the_others_kept() -> None:
    body = b"data: {broken\n\n" + stream(delta(content="whole"))
    answer = read(CHAT, body, streaming=True)
    assert (answer.text, answer.broken) == ("whole", 1)


def test_other_framing_is_read_as_well() -> None:
    event = b'data:{"choices": [{"index": 0,\r\ndata: "delta": {"content": "ok"}}]}\r\n\r\n'
    assert read(CHAT, b": hello\r\n\r\nevent: x\r\n" + event, streaming=True).text == "ok"


def test_a_tool_call_of_5_mb_is_joined_in_linear_time() -> None:
    part = "x" * 50
    body = stream(*(delta(**call(0, arguments=part)) for _ in range(100_000)))
    began = time.process_time()
    answer = read(CHAT, body, streaming=True)
    assert len(answer.messages[0]["tool_calls"][0]["function"]["arguments"]) == 5_000_000
    assert time.process_time() - began < 5.0
