"""What was answered, out of the bytes that were passed on: text, tool calls, finish reasons, usage.

Never on the request path. An event stream is put together as the `openai` SDK does it: deltas of one choice
are joined, tool calls by their index. What cannot be read is left out and counted, never raised: an answer
that an engine garbled is still an exchange that happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode

CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the engine counted them; None where it did not say."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None


@dataclass(slots=True)
class Answer:
    """`messages` has one assistant message for each choice, in OpenAI's shape; `deltas` counts those of text
    or of arguments that came as events, which is what an answer cut short can be metered by. `error` is the
    code of an error event. `broken` counts events, or whole answers, that were no JSON.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    finish_reasons: list[str | None] = field(default_factory=list)
    usage: Usage = Usage()
    deltas: int = 0
    error: str | None = None
    broken: int = 0

    @property
    def text(self) -> str:
        """Of the first choice."""
        content = self.messages[0].get("content") if self.messages else None
        return content if isinstance(content, str) else ""


def read(path: str, body: bytes, *, streaming: bool) -> Answer:
    """The answer of a generation at `path`; an empty one where nothing was answered, or for embeddings."""
    answer = Answer()
    if not body:
        return answer
    bodies = list(_events(body, answer)) if streaming else [_json(body, answer)]
    objects = [each for each in bodies if isinstance(each, dict)]
    for each in objects:
        _note(each, answer)
    if path == RESPONSES:
        _responses(objects, answer, streaming=streaming)
    elif path in (CHAT, COMPLETIONS):
        choices: dict[int, _Choice] = {}
        for each in objects:
            for said in _dicts(each.get("choices")):
                _add(choices, said, answer, streaming=streaming)
        for _, choice in sorted(choices.items()):
            answer.messages.append(choice.message())
            answer.finish_reasons.append(choice.finish_reason)
    return answer


# Event streams.


def _events(body: bytes, answer: Answer) -> Iterator[Any]:
    """The JSON of every event, in order."""
    data: list[bytes] = []
    for line in (*body.replace(b"\r\n", b"\n").split(b"\n"), b""):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            joined, data = b"\n".join(data), []
            if joined.strip() != b"[DONE]":
                yield _json(joined, answer)


def _json(body: bytes, answer: Answer) -> Any:
    try:
        # An engine that cuts a character in two still said the rest.
        return _decode(body if body.isascii() else body.decode(errors="replace"))
    except (msgspec.DecodeError, RecursionError):
        answer.broken += 1
        return None


def _note(each: Mapping[str, Any], answer: Answer) -> None:
    """What stands beside the choices."""
    inner = each.get("response")
    for usage in (each.get("usage"), inner.get("usage") if isinstance(inner, dict) else None):
        if isinstance(usage, dict):
            answer.usage = _usage(usage)
    error = each.get("error")
    if isinstance(error, dict):
        answer.error = str(error.get("code") or error.get("type") or "error")


def _usage(usage: Mapping[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(
        _count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        _count(usage.get("completion_tokens", usage.get("output_tokens"))),
        _count(cached),
    )


# Choices.


@dataclass(slots=True)
class _Choice:
    """One choice, as far as it has come. Parts are joined once, at the end: a long answer has thousands."""

    finish_reason: str | None = None
    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[int, _Call] = field(default_factory=dict)

    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        message.update({name: "".join(parts) for name, parts in self.texts.items()})
        if self.calls:
            message["tool_calls"] = [call.whole() for _, call in sorted(self.calls.items())]
        return message


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def whole(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


_TEXTS = {"content": "content", "reasoning_content": "reasoning_content", "reasoning": "reasoning_content"}
_TEXTS["refusal"] = "refusal"
MOST_CHOICES = 1024


def _add(choices: dict[int, _Choice], choice: Mapping[str, Any], answer: Answer, *, streaming: bool) -> None:
    index = choice.get("index", 0)
    if not isinstance(index, int) or (index not in choices and len(choices) >= MOST_CHOICES):
        answer.broken += 1
        return
    into = choices.setdefault(index, _Choice())
    reason = choice.get("finish_reason")
    if isinstance(reason, str):
        into.finish_reason = reason
    said = choice.get("delta" if streaming else "message")
    came = 0
    if isinstance(said, dict):
        for name, kept in _TEXTS.items():
            came += _text(into, kept, said.get(name))
        for at, call in enumerate(_dicts(said.get("tool_calls"))):
            came += _call(into, at, call)
    came += _text(into, "content", choice.get("text"))
    answer.deltas += 1 if streaming and came else 0


def _text(into: _Choice, name: str, value: Any) -> int:
    if not isinstance(value, str):
        return 0
    into.texts.setdefault(name, []).append(value)
    return len(value)


def _call(into: _Choice, at: int, call: Mapping[str, Any]) -> int:
    index = call.get("index", at)
    if not isinstance(index, int):
        return 0
    whole = into.calls.setdefault(index, _Call())
    if isinstance(call.get("id"), str):
        whole.id = call["id"]
    function = call.get("function")
    if not isinstance(function, dict):
        return 0
    if isinstance(function.get("name"), str):
        whole.name += function["name"]
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return 0
    whole.arguments.append(arguments)
    return len(arguments)


# /v1/responses.


def _responses(objects: list[dict[str, Any]], answer: Answer, *, streaming: bool) -> None:
    """A whole one, the last event of a stream that has one, or the deltas of a stream cut short."""
    whole = [each.get("response") for each in objects] if streaming else objects
    done = [each for each in whole if isinstance(each, dict) and _dicts(each.get("output"))]
    choice = _Choice()
    for each in objects if streaming else ():
        if isinstance(each.get("delta"), str):
            answer.deltas += 1
            kind = str(each.get("type"))
            if not done and kind == "response.output_text.delta":
                _text(choice, "content", each["delta"])
            elif not done and kind == "response.function_call_arguments.delta":
                into = choice.calls.setdefault(_count(each.get("output_index")) or 0, _Call())
                into.arguments.append(each["delta"])
    for at, item in enumerate(_dicts(done[-1].get("output")) if done else ()):
        if item.get("type") == "function_call":
            choice.calls[at] = _Call(
                str(item.get("call_id", "")), str(item.get("name", "")), [str(item.get("arguments", ""))]
            )
        for part in _dicts(item.get("content")):
            _text(choice, "content", part.get("text"))
    if not choice.texts and not choice.calls:
        return
    last = done[-1] if done else {}
    answer.messages.append(choice.message())
    answer.finish_reasons.append(_finish_reason(last, choice))


def _finish_reason(response: Mapping[str, Any], choice: _Choice) -> str | None:
    """In the words of chat completions."""
    details = response.get("incomplete_details")
    if isinstance(details, dict):
        return "length" if details.get("reason") == "max_output_tokens" else str(details.get("reason"))
    if response.get("status") != "completed":
        return None
    return "tool_calls" if choice.calls else "stop"


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
