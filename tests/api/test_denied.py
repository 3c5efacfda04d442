"""Every field of the deny list is refused by name, and passes when the deployment allows it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.api.body import members
from gateway.api.denied import FIELDS, check
from gateway.errors import BadRequest
from tests.api.conftest import Service, running

REMOTE = "https://elsewhere.example/cat.png"


def refusal(body: dict[str, Any] | bytes, *allowed: str) -> BadRequest | None:
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    try:
        check(members(encoded), frozenset(allowed))
    except BadRequest as error:
        return error
    return None


def param(body: dict[str, Any] | bytes, *allowed: str) -> str | None:
    """The refused field, None when all pass."""
    error = refusal(body, *allowed)
    assert error is None or error.code == "field_not_allowed"
    return error and error.param


def content(*parts: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}]}


def test_the_list_names_what_the_house_wants_refused() -> None:
    assert FIELDS.keys() >= {
        *("chat_template", "kv_transfer_params", "cache_salt", "request_id", "priority"),
        *("logits_processors", "vllm_xargs", "mm_processor_kwargs", "media_io_kwargs", "prompt_embeds"),
        *("ec_transfer_params", "session_id"),
    }


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_the_list_is_refused_and_the_message_says_how_to_allow_it(field: str) -> None:
    error = refusal({"model": "m", field: {"a": 1}})
    assert error is not None
    assert ("field_not_allowed", field) == (error.code, error.param)
    assert f"{field!r} to server.allow_fields" in error.message


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_the_list_passes_when_allowed_and_when_null(field: str) -> None:
    assert param({"model": "m", field: {"a": 1}}, field) is None
    assert param({"model": "m", field: None}) is None


@pytest.mark.parametrize("field", ["chat_template", "cache_salt"])
async def test_a_refused_field_reaches_no_engine(service: Service, field: str) -> None:
    answer = await service.chat(**{field: "x"})
    assert (400, field) == (answer.status_code, answer.json()["error"]["param"])
    assert [] == service.engine.seen


async def test_an_allowed_field_reaches_the_engine() -> None:
    async with running(allow_fields=("cache_salt",)) as service:
        await service.chat(cache_salt="x")
        assert "x" == service.engine.seen[0]["cache_salt"]


def test_a_refused_field_is_found_under_an_escaped_name() -> None:
    assert "chat_template" == param(rb'{"model": "m", "chat\u005ftemplate": "x"}')


@pytest.mark.parametrize("field", ["lora_path", "lora_request", "LoRA_name"])
def test_an_adapter_cannot_be_named_beside_the_model(field: str) -> None:
    assert field == param({"model": "m", field: "x"})
    assert param({"model": "m", field: "x"}, "lora") is None


def test_template_variables_pass_but_a_template_among_them_does_not() -> None:
    assert param({"model": "m", "chat_template_kwargs": {"enable_thinking": False}}) is None
    hidden = {"model": "m", "chat_template_kwargs": {"chat_template": "{{ x }}"}}
    assert "chat_template_kwargs.chat_template" == param(hidden)


@pytest.mark.parametrize("field", ["structured_outputs", "documents", "tools", "stream_options", "user"])
def test_ordinary_fields_pass(field: str) -> None:
    assert param({"model": "m", field: []}) is None


@pytest.mark.parametrize("kind", ["image_url", "video_url", "audio_url"])
@pytest.mark.parametrize(
    "url", [REMOTE, "http://169.254.169.254/", "file:///etc/passwd", "FILE:///x", " data:x", "ftp://x"]
)
def test_remote_media_are_refused_whatever_their_scheme(kind: str, url: str) -> None:
    for part in ({"type": kind, kind: {"url": url}}, {kind: url}):
        assert kind == param(content({"type": "text", "text": "hi"}, part))
        assert param(content(part), kind) is None


@pytest.mark.parametrize("url", ["data:image/png;base64,AAAA", "DATA:image/png;base64,AAAA", ""])
def test_media_that_bring_their_content_pass(url: str) -> None:
    assert param(content({"type": "image_url", "image_url": {"url": url}})) is None


def test_remote_media_of_the_responses_api_are_refused() -> None:
    part = {"type": "input_image", "image_url": REMOTE}
    assert "image_url" == param({"model": "m", "input": [{"role": "user", "content": [part]}]})


@pytest.mark.parametrize(
    "part",
    [
        rb'{"image\u005furl": {"url": "https://x"}}',
        rb'{"type": "\u0069mage_url", "image\u005furl": {"url": "https://x"}}',
        rb'{"image_url": {"\u0075rl": "https://x"}}',
        rb'{"image_url": {"url": "\u0068ttps://x"}}',
        rb'{"image_url": {"url": "data:x", "url": "https://x"}}',
    ],
)
def test_remote_media_are_found_behind_escapes_and_duplicates(part: bytes) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": [' + part + b"]}]}"
    assert "image_url" == param(body)


@pytest.mark.parametrize("kind", ["image_embeds", "audio_embeds", "video_embeds"])
def test_embeddings_as_content_are_refused(kind: str) -> None:
    assert kind == param(content({"type": kind, kind: "AAAA"}))


def test_prompt_embeddings_as_content_are_refused() -> None:
    assert "prompt_embeds" == param(content({"type": "prompt_embeds", "data": "AAAA"}))
    assert param(content({"type": "prompt_embeds", "data": "AAAA"}), "prompt_embeds") is None


def test_a_url_in_the_text_of_a_message_is_only_text() -> None:
    text = 'see {"image_url": {"url": "https://x"}} \\u0041'
    assert param(content({"type": "text", "text": text})) is None


@pytest.mark.parametrize("kind", ["mcp", "code_interpreter", "web_search_preview", "container"])
def test_a_tool_that_the_engine_would_run_is_refused(kind: str) -> None:
    assert "tools" == param({"model": "m", "tools": [{"type": "function", "name": "f"}, {"type": kind}]})
    assert param({"model": "m", "tools": [{"type": kind}]}, kind) is None


def test_a_property_called_type_in_a_functions_parameters_is_not_a_tool() -> None:
    function = {"name": "f", "parameters": {"type": "object", "properties": {"type": {"type": "string"}}}}
    assert param({"model": "m", "tools": [{"type": "function", "function": function}]}) is None


def test_a_tool_inside_a_namespace_is_looked_at() -> None:
    tools = [{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]
    assert "tools" == param({"model": "m", "tools": tools})
