"""What others have remembered: each format read whole, each line that cannot be told why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.traffic.foreign import Unusable, read

ASKED = [{"role": "user", "content": "write a haiku about ai"}]
ANSWER = {"role": "assistant", "content": "Mind of circuits hum"}
USAGE = {"total_tokens": 31, "completion_tokens": 18, "prompt_tokens": 13}

STORED = {
    "object": "chat.completion",
    "id": "chatcmpl-AyPNinnUqUDYo9SAdA52NobMflmj2",
    "model": "gpt-4o-2024-08-06",
    "created": 1738960610,
    "request_id": "req_ded8ab984ec4bf840f37566c1011c417",
    "tool_choice": None,
    "usage": USAGE,
    "seed": 4944116822809979520,
    "temperature": 1.0,
    "system_fingerprint": "fp_50cad350e4",
    "input_user": "alice",
    "tools": None,
    "metadata": {"ticket": "7"},
    "choices": [
        {
            "index": 0,
            "message": {**ANSWER, "tool_calls": None, "function_call": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "response_format": None,
}
"""As OpenAI's API reference shows an element of GET /v1/chat/completions."""
STORED_MESSAGES = [
    {"id": "chatcmpl-AyPN-0", "name": None, "content_parts": None, **ASKED[0]},
]
"""And of GET /v1/chat/completions/{id}/messages."""
BATCH = {
    "id": "batch_req_wnaDys",
    "custom_id": "request-2",
    "response": {
        "status_code": 200,
        "request_id": "req_c187b3",
        "body": {
            "id": "chatcmpl-9758Iw",
            "object": "chat.completion",
            "created": 1711475054,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": ANSWER, "finish_reason": "stop"}],
            "usage": USAGE,
            "system_fingerprint": None,
        },
    },
    "error": None,
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def line(**row: Any) -> bytes:
    return json.dumps(row).encode()


def said(**row: Any) -> list[Any]:
    """The request's messages, and then the answer's."""
    found = read(line(**row))
    return [*found.request["messages"], *(choice["message"] for choice in found.answer["choices"])]


# Stored completions.


@pytest.mark.parametrize(
    "beside",
    [
        {"messages": STORED_MESSAGES},
        {"input": STORED_MESSAGES},
        {"request": {"messages": STORED_MESSAGES}},
        {"request": {"input": STORED_MESSAGES}},
        {"messages": {"object": "list", "data": STORED_MESSAGES, "has_more": False}},
        {"messages": [*STORED_MESSAGES, {"id": "x-1", "content_parts": None, **ANSWER}]},
        {"input": ASKED[0]["content"]},
    ],
)
def test_a_stored_completion_is_read_with_its_messages_wherever_they_stand(beside: dict[str, Any]) -> None:
    assert said(**STORED, **beside) == [*ASKED, ANSWER]


def test_a_stored_completion_keeps_what_its_request_said() -> None:
    found = read(line(**STORED, messages=STORED_MESSAGES))
    assert found.request == {
        "messages": ASKED,
        "seed": 4944116822809979520,
        "temperature": 1.0,
        "metadata": {"ticket": "7"},
        "user": "alice",
    }
    assert found.answer["usage"] == USAGE and found.answer["choices"][0]["finish_reason"] == "stop"
    assert (found.id, found.model, found.created) == (STORED["id"], "gpt-4o-2024-08-06", 1738960610.0)


def test_parts_that_a_store_keeps_beside_are_the_content() -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    message = {"id": "m", "role": "user", "content": "look", "content_parts": parts}
    assert said(**STORED, messages=[message])[0] == {"role": "user", "content": parts}


# Fine-tuning rows, and our own.


def test_the_last_message_of_a_conversation_is_the_answer() -> None:
    talk = [*ASKED, ANSWER, {"role": "user", "content": "another"}, {"role": "assistant", "content": "no"}]
    found = read(line(messages=talk, tools=[{"type": "function"}], parallel_tool_calls=False))
    assert found.request == {
        "messages": talk[:3],
        "tools": [{"type": "function"}],
        "parallel_tool_calls": False,
    }
    assert found.answer["choices"][0]["message"] == talk[3]
    assert (found.id, found.created, found.ours) == ("", None, "")


def test_a_call_of_a_tool_is_an_answer() -> None:
    answer = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert said(messages=[*ASKED, answer]) == [*ASKED, {"role": "assistant", "tool_calls": [CALL]}]


def test_an_export_of_ours_is_known_by_its_metadata() -> None:
    about = {"id": "01943a3ad5f07abc8123456789abcdef", "route": "support", "version": "support@3f9c2ab71e04"}
    found = read(line(messages=[*ASKED, ANSWER], metadata=about))
    assert (found.ours, found.model) == (about["id"], about["version"])
    assert found.created == int(about["id"][:12], 16) / 1000
    assert "metadata" not in found.request


def test_other_metadata_is_kept() -> None:
    found = read(line(messages=[*ASKED, ANSWER], metadata={"id": "7"}))
    assert (found.request["metadata"], found.ours) == ({"id": "7"}, "")


# Logs and batches.


def test_a_log_is_a_request_and_its_response() -> None:
    request = {"model": "gpt-4o", "messages": ASKED, "temperature": 0, "user": "bob"}
    found = read(line(request=request, response=BATCH["response"]["body"], metadata={"a": "b"}))  # type: ignore[index]
    assert found.request == {**request, "metadata": {"a": "b"}}
    assert found.answer["choices"][0]["message"] == ANSWER and found.answer["usage"] == USAGE
    assert (found.id, found.created, found.model) == ("chatcmpl-9758Iw", 1711475054.0, "gpt-4o-mini")


@pytest.mark.parametrize(
    "request_", [{"messages": ASKED}, {"method": "POST", "url": "/", "body": {"messages": ASKED}}]
)
def test_a_line_of_a_batch_is_read_with_its_request_beside(request_: dict[str, Any]) -> None:
    assert said(**BATCH, request=request_) == [*ASKED, ANSWER]


def test_every_choice_is_kept_and_parts_of_an_answer_are_joined() -> None:
    parts = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    choices = [{"message": parts}, {"message": {"role": "assistant", "refusal": "no"}}]
    (_, first, second) = said(request={"messages": ASKED}, response={"choices": choices})
    assert (first, second) == (
        {"role": "assistant", "content": "ab"},
        {"role": "assistant", "refusal": "no"},
    )


# Whom it was for.


def test_the_unit_is_read_where_it_is_said_to_be() -> None:
    row = line(messages=[*ASKED, ANSWER], metadata={"customer": {"id": 7}})
    assert read(row, "metadata.customer.id").unit == "7"


@pytest.mark.parametrize("field", ["metadata", "metadata.nobody", "messages.role", "user"])
def test_a_line_without_its_unit_is_refused(field: str) -> None:
    with pytest.raises(Unusable, match=f"has no text in {field}"):
        read(line(messages=[*ASKED, ANSWER], metadata={"customer": "c"}), field)


def test_a_unit_that_is_too_long_is_refused() -> None:
    with pytest.raises(Unusable, match="300 characters"):
        read(line(messages=[*ASKED, ANSWER], customer="c" * 300), "customer")


# What cannot be imported.


def conversation(*messages: Any, **more: Any) -> bytes:
    return line(messages=list(messages), **more)


def logged(message: Any, **request: Any) -> bytes:
    return line(request={"messages": ASKED, **request}, response={"choices": [{"message": message}]})


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe{\x00", "is no JSON"),
        (b'{"messages": "\xff"}', "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[1]", "is JSON, but a list"),
        (b"{}", "has nothing; a line has `messages`"),
        (line(text="x", label=1), "has label, text; a line has"),
        (line(object="list", data=[STORED]), "is a page of a list"),
        (line(custom_id="a", body={"messages": ASKED}), "name this file by --requests"),
        (line(input={"messages": ASKED}, preferred_output=[ANSWER]), "is a preference"),
        (line(prompt="a", completion="b"), "is of /v1/completions"),
        (line(**STORED), "messages.list"),
        (line(**{**STORED, "choices": []}, messages=ASKED), "has no choices"),
        (line(**STORED, request="x"), "has a text as `request`"),
        (line(**STORED, messages={"data": STORED_MESSAGES, "has_more": True}), "only the first page"),
        (line(**{**STORED, "created": "today"}, messages=ASKED), 'has `created` "today"'),
        (line(**{**STORED, "created": -1}, messages=ASKED), "has `created` -1"),
        (line(**{**STORED, "created": 1738960610000}, messages=ASKED), "in milliseconds"),
        (line(**{**STORED, "usage": {"prompt_tokens": 2**63}}, messages=ASKED), 'as its "prompt_tokens"'),
        (
            line(**{**STORED, "usage": {"prompt_tokens_details": {"cached_tokens": -1}}}, messages=ASKED),
            'has -1 as its "cached_tokens"',
        ),
        (line(**STORED, messages=[ANSWER]), "nothing was asked"),
        (line(**STORED, messages=[]), "not what was asked"),
        (conversation(), "ends before it has begun"),
        (conversation(*ASKED), "ends with a message of user"),
        (conversation(ANSWER), "nothing was asked"),
        (conversation(*ASKED, {**ANSWER, "weight": 0}), "weight 0"),
        (conversation(*ASKED, {"role": "assistant"}), "without text and without tool calls"),
        (conversation(*ASKED, {"role": "assistant", "content": {}}), "whose content is an object"),
        (conversation(*ASKED, {"role": "assistant", "content": [{"type": "audio"}]}), "no text"),
        (conversation(*ASKED, {"role": "assistant", "function_call": {"name": "f"}}), "`tool_calls`"),
        (conversation(*ASKED, {"role": "assistant", "tool_calls": "f"}), "tool_calls that are a text"),
        (conversation(*ASKED, {"role": "assistant", "tool_calls": [{}]}), "without `function.name`"),
        (conversation({"role": "human", "content": "x"}, ANSWER), 'message 1 whose role is "human"'),
        (conversation("x", ANSWER), "message 1 whose role is a text"),
        (conversation({"role": "user"}, ANSWER), "message 1 without content"),
        (conversation({"role": "user", "content": 7}, ANSWER), "content is a number"),
        (conversation(*ASKED, ANSWER, store=False), '"store": false'),
        (line(messages="x"), "ends with a message of user"),
        (line(messages=7), "messages that are a number"),
        (logged({"role": "assistant", "content": 7}), "has an answer that is a number"),
        (logged("x"), "a choice without a `message`"),
        (logged(ANSWER, store=False), '"store": false'),
        (line(request={}, response={"choices": [{"message": ANSWER}]}), "no `messages` in its `request`"),
        (line(request=[], response={"choices": [{"message": ANSWER}]}), "has a list as `request`"),
        (line(request={"messages": ASKED}, response="x"), "has a text as `response`"),
        (line(request={"messages": ASKED}, response={"object": "response"}), '`object` is "response"'),
        (line(request={"messages": ASKED}, response={"error": {"code": "x"}}), "failed"),
        (line(**{**BATCH, "response": None, "error": {"code": "batch_expired"}}), "batch_expired"),
        (line(custom_id="a", response={"status_code": 429, "body": {"error": {}}}), "failed (status 429)"),
        (line(**BATCH), "name the batch's input file by --requests"),
    ],
)
def test_a_line_that_cannot_be_imported_says_why(bad: bytes, says: str) -> None:
    with pytest.raises(Unusable) as told:
        read(bad)
    assert says in str(told.value)


def test_the_values_of_a_line_are_not_in_its_refusal() -> None:
    secret = "alice@example.com"
    for bad in (conversation({"role": "user", "content": secret}), line(request={}, response=secret)):
        with pytest.raises(Unusable) as told:
            read(bad)
        assert secret not in str(told.value)
