"""What the fake engine says: vLLM's answers, byte-shaped, with a text that names the model that served it.

Pure functions of the request, so the same request has the same answer. A token is about a word; `pieces` are
what a stream sends one by one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FINGERPRINT = "vllm-fake"
WORDS = ("swap", "adapter", "engine", "base", "route", "token", "batch", "slot", "prompt", "answer")
DEFAULT_TOKENS = 16

Request = Mapping[str, Any]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `n` answers, in the pieces of its stream."""

    index: int
    pieces: tuple[str, ...]
    finish_reason: str
    stop_reason: str | None = None
    tool: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def choices(request: Request, prompt: str) -> list[Choice]:
    """The `n` answers to a chat or completions request."""
    return [_choice(request, prompt, index) for index in range(request.get("n") or 1)]


def _choice(request: Request, prompt: str, index: int) -> Choice:
    tool = _named_tool(request)
    schema = _schema(request, tool)
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    if schema is not None:
        text = json.dumps(_example(schema, request["model"]))
        pieces = tuple(text[at : at + 4] for at in range(0, len(text), 4))
        return Choice(index, pieces, "stop", tool=tool)
    seed = json.dumps([request["model"], prompt, request.get("seed"), index])
    digest = hashlib.sha256(seed.encode()).digest()
    wanted = limit if request.get("ignore_eos") and limit else DEFAULT_TOKENS
    words = [f" {WORDS[digest[at % 32] % len(WORDS)]}" for at in range(wanted)]
    pieces = (f"{request['model']}:", *words)[:wanted]
    cut, stop = _stopped(pieces, request.get("stop"))
    if limit is not None and len(cut) > limit:
        return Choice(index, cut[:limit], "length")
    whole = "length" if limit == len(pieces) and stop is None else "stop"
    return Choice(index, cut, whole, stop)


def _stopped(pieces: Sequence[str], stop: str | Sequence[str] | None) -> tuple[tuple[str, ...], str | None]:
    text = "".join(pieces)
    found = [(text.find(word), word) for word in ([stop] if isinstance(stop, str) else stop or [])]
    at, word = min((hit for hit in found if hit[0] >= 0), default=(-1, None))
    if word is None:
        return tuple(pieces), None
    kept: list[str] = []
    for piece in pieces:
        if at <= 0:
            break
        kept.append(piece[:at])
        at -= len(piece)
    return tuple(kept), word


def _named_tool(request: Request) -> str | None:
    chosen = request.get("tool_choice")
    if isinstance(chosen, dict):
        return str(chosen["function"]["name"])
    if chosen == "required":
        return str(request["tools"][0]["function"]["name"])
    return None


def _schema(request: Request, tool: str | None) -> Any:
    if tool is not None:
        named = (item["function"] for item in request["tools"] if item["function"]["name"] == tool)
        return next(named).get("parameters") or {"type": "object"}
    wanted = request.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return wanted["json_schema"].get("schema", {"type": "object"})
    return {"type": "object"} if wanted.get("type") == "json_object" else None


def _example(schema: Any, text: str) -> Any:
    """A value that satisfies the everyday part of JSON schema."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: _example(part, text) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [_example(schema.get("items", {}), text) for _ in range(schema.get("minItems", 1))]
        case "integer":
            return schema.get("minimum", 0)
        case "number":
            return float(schema.get("minimum", 0))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return text


def usage(prompt: str, answers: Sequence[Choice]) -> Json:
    """Token counts."""
    before, after = len(prompt.split()), sum(len(choice.pieces) for choice in answers)
    return {"prompt_tokens": before, "total_tokens": before + after, "completion_tokens": after}


def chat(head: Json, request: Request, prompt: str, answers: Sequence[Choice]) -> Json:
    """A whole chat answer. `head` has id, created and model."""
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    return {
        "id": head["id"],
        "object": "chat.completion",
        "created": head["created"],
        "model": head["model"],
        "choices": [_chat_choice(request, choice) for choice in answers],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage(prompt, answers) | details,
        "prompt_logprobs": _prompt_logprobs(prompt) if request.get("prompt_logprobs") is not None else None,
        "prompt_token_ids": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _chat_choice(request: Request, choice: Choice) -> Json:
    message: Json = {
        "role": "assistant",
        "content": choice.text if choice.tool is None else "",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": None,
    }
    if choice.tool is not None:
        message["tool_calls"] = [_tool_call(choice.tool, choice.text, choice.index)]
    return {
        "index": choice.index,
        "message": message,
        "logprobs": _chat_logprobs(request, choice.pieces),
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "token_ids": None,
        "routed_experts": None,
    }


def _tool_call(name: str, arguments: str, index: int) -> Json:
    return {
        "id": f"chatcmpl-tool-{hashlib.sha256(f'{name}{index}'.encode()).hexdigest()[:16]}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def chat_events(head: Json, request: Request, prompt: str, answers: Sequence[Choice]) -> list[Json]:
    """The events of a chat stream, in order, without `[DONE]`."""
    events: list[Json] = []

    def event(choice: Json, **more: Any) -> None:
        events.append(_chunk(head, "chat.completion.chunk", [choice]) | more)

    for choice in answers:
        opening = {"role": "assistant", "content": ""}
        first = {"index": choice.index, "delta": opening, "logprobs": None, "finish_reason": None}
        event(first, prompt_token_ids=None, prompt_text=None)
    options = request.get("stream_options") or {}
    stamp = {} if options.get("include_usage") else {"system_fingerprint": FINGERPRINT}
    for choice in answers:
        deltas: list[tuple[Json, Json | None]]
        deltas = [({"content": piece}, _chat_logprobs(request, (piece,))) for piece in choice.pieces]
        if choice.tool is not None:
            call = _tool_call(choice.tool, "", choice.index) | {"index": 0, "function": {"name": choice.tool}}
            calls = [call, *({"index": 0, "function": {"arguments": piece}} for piece in choice.pieces)]
            deltas = [*(({"content": None, "tool_calls": [call]}, None) for call in calls), ({}, None)]
        for at, (delta, logprobs) in enumerate(deltas):
            part: Json = {"index": choice.index, "delta": delta, "logprobs": logprobs}
            if at < len(deltas) - 1:
                event(part | {"finish_reason": None, "token_ids": None})
            else:
                last = {"finish_reason": choice.finish_reason, "stop_reason": choice.stop_reason}
                event(part | last | {"token_ids": None}, **stamp)
    return events + _usage_event(head, "chat.completion.chunk", options, prompt, answers)


def completion(head: Json, request: Request, prompt: str, answers: Sequence[Choice]) -> Json:
    """A whole completions answer."""
    echoed = prompt if request.get("echo") else ""
    return {
        "id": head["id"],
        "object": "text_completion",
        "created": head["created"],
        "model": head["model"],
        "choices": [
            {
                "index": choice.index,
                "text": echoed + choice.text,
                "logprobs": _logprobs(request, choice.pieces),
                "finish_reason": choice.finish_reason,
                "stop_reason": choice.stop_reason,
                "token_ids": None,
                "prompt_logprobs": _prompt_logprobs(prompt) if wants_prompt_logprobs(request) else None,
                "prompt_token_ids": None,
                "routed_experts": None,
            }
            for choice in answers
        ],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage(prompt, answers) | {"prompt_tokens_details": None, "completion_tokens_details": None},
        "kv_transfer_params": None,
    }


def completion_events(head: Json, request: Request, prompt: str, answers: Sequence[Choice]) -> list[Json]:
    """The events of a completions stream, in order, without `[DONE]`."""
    events: list[Json] = []
    options = request.get("stream_options") or {}
    for choice in answers:
        for at, piece in enumerate(choice.pieces):
            last = at == len(choice.pieces) - 1
            part = {
                "index": choice.index,
                "text": piece,
                "logprobs": _logprobs(request, (piece,)),
                "finish_reason": choice.finish_reason if last else None,
                "stop_reason": choice.stop_reason if last else None,
                "prompt_token_ids": None,
                "token_ids": None,
            }
            stamp = {"system_fingerprint": FINGERPRINT} if last and not options.get("include_usage") else {}
            events.append(_chunk(head, "text_completion", [part]) | stamp)
    return events + _usage_event(head, "text_completion", options, prompt, answers)


def _chunk(head: Json, kind: str, parts: list[Json]) -> Json:
    return {"id": head["id"], "object": kind, "created": head["created"], "model": head["model"]} | {
        "choices": parts
    }


def _usage_event(head: Json, kind: str, options: Json, prompt: str, answers: Sequence[Choice]) -> list[Json]:
    if not options.get("include_usage"):
        return []
    counted = {"usage": usage(prompt, answers), "system_fingerprint": FINGERPRINT}
    return [_chunk(head, kind, []) | counted]


def wants_prompt_logprobs(request: Request) -> bool:
    """Whether vLLM would compute log-probabilities of the prompt."""
    echoed = request.get("echo") and ("messages" in request or request.get("logprobs") is not None)
    return request.get("prompt_logprobs") is not None or bool(echoed)


def _chat_logprobs(request: Request, pieces: Sequence[str]) -> Json | None:
    if not request.get("logprobs"):
        return None
    entries = [{"token": piece, "logprob": -0.5, "bytes": list(piece.encode())} for piece in pieces]
    return {"content": [e | {"top_logprobs": [e] * (request.get("top_logprobs") or 0)} for e in entries]}


def _logprobs(request: Request, pieces: Sequence[str]) -> Json | None:
    if request.get("logprobs") is None:
        return None
    offsets = [sum(map(len, pieces[:at])) for at in range(len(pieces))]
    return {
        "text_offset": offsets,
        "token_logprobs": [-0.5] * len(pieces),
        "tokens": list(pieces),
        "top_logprobs": [{piece: -0.5} for piece in pieces],
    }


def _prompt_logprobs(prompt: str) -> list[Json | None]:
    words = prompt.split()[1:]
    return [None, *({"1": {"logprob": -1.5, "rank": 1, "decoded_token": word}} for word in words)]


def response(head: Json, request: Request, prompt: str, answer: Choice) -> Json:
    """A whole answer of the responses API."""
    counted = usage(prompt, [answer])
    part: Json = {"annotations": [], "text": answer.text, "type": "output_text", "logprobs": None}
    message = {"id": f"msg_{head['id']}", "content": [part], "role": "assistant", "status": "completed"}
    cut = answer.finish_reason == "length"
    return {
        "id": head["id"],
        "created_at": head["created"],
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": request.get("instructions"),
        "metadata": request.get("metadata"),
        "model": head["model"],
        "object": "response",
        "output": [message | {"type": "message", "phase": None}],
        "parallel_tool_calls": True,
        "temperature": request.get("temperature", 1.0),
        "tool_choice": "auto",
        "tools": request.get("tools", []),
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": request.get("max_output_tokens"),
        "previous_response_id": None,
        "status": "incomplete" if cut else "completed",
        "truncation": "disabled",
        "usage": {
            "input_tokens": counted["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": counted["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counted["total_tokens"],
        },
    }


def response_events(whole: Json, answer: Choice) -> list[Json]:
    """The events of a responses stream; each goes out under its `type`."""
    item = whole["output"][0]
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    begun = whole | {"output": [], "status": "in_progress", "usage": None}
    empty = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
    started = item | {"content": [], "status": "in_progress"}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "item": started, "output_index": 0},
        {"type": "response.content_part.added", "part": empty} | at,
        *(
            {"type": "response.output_text.delta", "delta": piece, "logprobs": []} | at
            for piece in answer.pieces
        ),
        {"type": "response.output_text.done", "text": answer.text, "logprobs": []} | at,
        {"type": "response.content_part.done", "part": item["content"][0]} | at,
        {"type": "response.output_item.done", "item": item, "output_index": 0},
        {"type": "response.completed", "response": whole},
    ]
    return [event | {"sequence_number": number} for number, event in enumerate(events)]
