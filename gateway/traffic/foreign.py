"""Exchanges that others have remembered, one a line of JSON, as requests and answers of chat completions.

What a line is, it shows itself:

    choices      a stored completion of OpenAI's, with the messages of its request, which `list()` leaves out
    response     a log: {request, response}; also an output line of OpenAI's Batch API with its request beside
    messages     a conversation that ends with the answer: OpenAI's fine-tuning format, or an export of ours

Pure functions. `Unusable` says what is wrong with a line, and what to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.requestid import ID, when
from gateway.traffic.unit import MAX_UNIT

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
REASON = re.compile(r"[a-z_]{1,32}")
MILLISECONDS = 100_000_000_000
"""As seconds, the year 5138."""
MOST_TOKENS = 2**31
_NOT_THE_REQUESTS = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "request", "messages", "input", "input_user"}
    | {"request_id", "system_fingerprint"}
)
"""Of a stored completion; what else stands there its request has said."""

_decode = msgspec.json.Decoder().decode


class Unusable(ValueError):
    """Why a line cannot be imported, to be read after its name: `is no JSON; …`."""


class Foreign(msgspec.Struct):
    """One exchange. `request` is a body of /v1/chat/completions, `answer` one that it could have had, without
    what nobody reads. `created` is in seconds since 1970, None where nobody said. `ours` is the request id of
    an exchange that a Hotswap has exported."""

    request: dict[str, Any]
    answer: dict[str, Any]
    id: str = ""
    model: str = ""
    created: float | None = None
    unit: str = ""
    ours: str = ""


def read(line: bytes, unit_field: str = "") -> Foreign:
    """`unit_field` is where in a line it stands whom the exchange was for, as `metadata.customer`. Raises
    `Unusable`."""
    try:
        row = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(f"is no JSON ({error}); write one object on each line, in UTF-8") from error
    if not isinstance(row, dict):
        raise Unusable(f"is JSON, but {_kind(row)}; write one object on each line")
    if "response" in row:
        found = _logged(row)
    elif "choices" in row:
        found = _stored(row)
    elif "messages" in row:
        found = _conversation(row)
    else:
        raise Unusable(_unknown(row))
    if found.request.get("store") is False:
        raise Unusable('says "store": false, so nothing of it is kept; leave it out')
    if unit_field:
        found.unit = _unit(row, unit_field)
    return found


def _unknown(row: Mapping[str, Any]) -> str:
    if isinstance(row.get("data"), list):
        return "is a page of a list; write each element of its `data` on a line (jq -c '.data[]')"
    if "custom_id" in row and "body" in row:
        return "is a request without its answer; import the batch's output, and name this file by --requests"
    if "preferred_output" in row:
        return "is a preference; write the conversation with the answer you prefer as `messages`"
    if "prompt" in row:
        return "is of /v1/completions; write the prompt as a user's message, and the answer as an assistant's"
    names = ", ".join(sorted(map(str, row))[:8]) or "nothing"
    return f"has {names}; a line has `messages`, or `request` and `response`, or `choices` and `messages`"


# The three kinds.


def _stored(row: dict[str, Any]) -> Foreign:
    request = _object(row.get("request") or {}, "`request`")
    asked = next(
        (said[name] for name in ("messages", "input") for said in (request, row) if said.get(name)), None
    )
    if asked is None:
        raise Unusable(
            "has an answer, but not what was asked: a list of stored completions leaves it out. "
            "Fetch it with client.chat.completions.messages.list(id), and write it as `messages`"
        )
    said = {name: value for name, value in row.items() if name not in _NOT_THE_REQUESTS}
    if isinstance(row.get("input_user"), str):
        said["user"] = row["input_user"]
    return _made({**said, **request}, asked, row)


def _logged(row: dict[str, Any]) -> Foreign:
    response, error = row["response"], row.get("error")
    if response is None or error:
        raise Unusable(f"failed ({_short(error)}): there is no answer in it; leave it out")
    response = _object(response, "`response`")
    status = response.get("status_code", 200)
    completion = _object(response.get("body", response), "`response.body`")
    if status != 200 or completion.get("error"):
        raise Unusable(f"failed (status {status}): there is no answer in it; leave it out")
    if "choices" not in completion:
        what = _short(completion.get("object"))
        raise Unusable(f"has no chat completion as its response (`object` is {what}); leave it out")
    if row.get("request") is None:
        raise Unusable(
            "has an answer, but not what was asked. Is it a batch's output? "
            "Then name the batch's input file by --requests"
        )
    request = _object(row["request"], "`request`")
    if "messages" not in request and isinstance(request.get("body"), dict):
        request = request["body"]
    if request.get("messages") is None:
        raise Unusable("has no `messages` in its `request`; write there what was asked")
    beside = {name: row[name] for name in ("metadata",) if row.get(name)}
    made = _made({**beside, **request}, request["messages"], completion)
    if made.created is None:
        made.created = _created(row.get("created"))
    return made


def _conversation(row: dict[str, Any]) -> Foreign:
    messages = _messages(row["messages"])
    if not messages or messages[-1]["role"] != "assistant":
        where = f"with a message of {messages[-1]['role']}" if messages else "before it has begun"
        raise Unusable(f"ends {where}; its last message must be the assistant's answer")
    last = messages.pop()
    if last.get("weight") == 0:
        raise Unusable("has an answer of weight 0, that nobody shall learn; leave it out")
    completion = {"choices": [{"message": last}], "created": row.get("created"), "id": row.get("id")}
    request = {name: value for name, value in row.items() if name not in ("id", "created")}
    about = row.get("metadata")
    if not isinstance(about, dict) or not _exported(about):
        return _made(request, messages, completion)
    del request["metadata"]
    made = _made(request, messages, {**completion, "id": about["id"], "model": about["version"]})
    made.ours, made.created = about["id"], when(about["id"]).timestamp()
    return made


def _exported(about: Mapping[str, Any]) -> bool:
    """Whether a row's metadata is what our export writes there."""
    if set(about) != {"id", "route", "version"} or not all(isinstance(each, str) for each in about.values()):
        return False
    return ID.fullmatch(about["id"]) is not None


def _made(request: Mapping[str, Any], asked: Any, completion: Mapping[str, Any]) -> Foreign:
    """`asked` are the messages of the request, in whichever of the forms they come."""
    choices = _choices(completion["choices"])
    messages = _messages(asked)
    if messages and _same(messages[-1], choices[0]["message"]):  # a store's list goes on to the answer
        messages.pop()
    if not messages:
        raise Unusable("has an answer, and nothing was asked; write the messages before it, too")
    kept = {name: value for name, value in request.items() if value is not None and value != {}}
    kept.pop("input", None)
    model = completion.get("model") or kept.get("model")
    answer: dict[str, Any] = {"choices": choices}
    if isinstance(completion.get("usage"), dict):
        answer["usage"] = _usage(completion["usage"])
    return Foreign(
        request={**kept, "messages": messages},
        answer=answer,
        id=_name(completion.get("id")),
        model=_name(model),
        created=_created(completion.get("created")),
    )


# Their parts.


def _messages(asked: Any) -> list[dict[str, Any]]:
    """As a request has them: without what a store adds to each, and without what is null."""
    if isinstance(asked, dict) and isinstance(asked.get("data"), list):  # a page of them
        if asked.get("has_more"):
            raise Unusable("has only the first page of its messages; fetch the others, too")
        asked = asked["data"]
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    if not isinstance(asked, list):
        raise Unusable(f"has messages that are {_kind(asked)}; write a list of them")
    return [_message(number, message) for number, message in enumerate(asked, 1)]


def _message(number: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        role = _short(message.get("role")) if isinstance(message, dict) else _kind(message)
        raise Unusable(
            f"has a message {number} whose role is {role}; it is one of {', '.join(sorted(ROLES))}"
        )
    kept = {name: value for name, value in message.items() if value is not None}
    if "content_parts" in message:  # as OpenAI stores it
        kept.pop("id", None)
        parts = kept.pop("content_parts", None)
        if parts:
            kept["content"] = parts
    content = kept.setdefault("content", None)
    if not (content is None or isinstance(content, str | list)):
        raise Unusable(f"has a message {number} whose content is {_kind(content)}; write a text or parts")
    if content is None and kept["role"] != "assistant":
        raise Unusable(f"has a message {number} without content; write what {kept['role']} said")
    return kept


def _choices(choices: Any) -> list[dict[str, Any]]:
    if not isinstance(choices, list) or not choices:
        raise Unusable("has no choices: there is no answer in it; leave it out")
    made = []
    for index, choice in enumerate(choices):
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise Unusable("has a choice without a `message`; only chat completions can be imported")
        reason = choice.get("finish_reason")
        known = reason if isinstance(reason, str) and REASON.fullmatch(reason) else None
        made.append({"index": index, "message": _answered(message), "finish_reason": known})
    return made


def _answered(message: Mapping[str, Any]) -> dict[str, Any]:
    """An assistant's message, of what is read of one (`gateway.traffic.answer`)."""
    if message.get("function_call"):
        raise Unusable("answers with a `function_call`, which OpenAI has given up; write it as `tool_calls`")
    names = ("refusal", "reasoning_content", "reasoning")
    kept = {name: message[name] for name in names if isinstance(message.get(name), str)}
    calls = message.get("tool_calls") or []
    content = message.get("content")
    if isinstance(content, list):
        content = _joined(content)
    if isinstance(content, str):
        kept["content"] = content
    elif content is not None:
        raise Unusable(f"has an answer that is {_kind(content)}; write a text")
    if calls:
        if not isinstance(calls, list):
            raise Unusable(f"has tool_calls that are {_kind(calls)}; write a list of them")
        kept["tool_calls"] = [_call(call) for call in calls]
    if not kept:
        raise Unusable("has an answer without text and without tool calls; leave it out")
    return {"role": "assistant", **kept}


def _joined(parts: list[Any]) -> str:
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    said = [text for text in texts if isinstance(text, str)]
    if len(said) < len(texts):
        raise Unusable("has an answer with parts that are no text; write the text alone")
    return "".join(said)


def _call(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unusable(
            "has a tool call without `function.name`; write {id, type, function: {name, arguments}}"
        )
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    made = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"id": call["id"], **made} if isinstance(call.get("id"), str) else made


def _same(message: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """Whether the last message of a request is the answer itself."""
    if message["role"] != "assistant":
        return False
    try:
        return _answered(message) == answer
    except Unusable:
        return False


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """As it is. A number that is no count of tokens would not fit into the lake."""
    details = usage.get("prompt_tokens_details")
    for within in (usage, details if isinstance(details, dict) else {}):
        for name, value in within.items():
            if isinstance(value, int) and not 0 <= value < MOST_TOKENS:
                raise Unusable(
                    f"has {_short(value)} as its {_short(name)}; write how many they were, or nothing"
                )
    return usage


def _created(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise Unusable(f"has `created` {_short(value)}; write seconds since 1970, or leave it out")
    if value > MILLISECONDS:
        raise Unusable(f"has `created` {_short(value)}, which is in milliseconds; write seconds since 1970")
    return float(value)


def _unit(row: Mapping[str, Any], field: str) -> str:
    at: Any = row
    for name in field.split("."):
        at = at.get(name) if isinstance(at, dict) else None
    if isinstance(at, int) and not isinstance(at, bool):
        at = str(at)
    if not isinstance(at, str) or not at or "\0" in at:
        raise Unusable(f"has no text in {field} (--unit-field); write there whom it was for")
    if len(at) > MAX_UNIT:
        raise Unusable(f"has {len(at):,} characters in {field} (--unit-field); a unit has at most {MAX_UNIT}")
    return at


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable(f"has {_kind(value)} as {name}; write an object")
    return value


def _name(value: Any) -> str:
    return value[:200] if isinstance(value, str) else ""


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _short(value: Any) -> str:
    return msgspec.json.encode(value)[:80].decode(errors="replace")
