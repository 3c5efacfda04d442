"""The real openai SDK against the gateway on real vLLM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from adapters.base.manifest import BaseManifest
from tests.house import House
from tests.peft_folder import random_adapter

pytestmark = pytest.mark.engine
HELLO = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def version(house: House, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registered version with weights of its own; its route is `sdk`."""
    folder = random_adapter(
        tmp_path_factory.mktemp("sdk") / "a", BaseManifest.read(base_folder), 5, scale=0.02
    )
    return str(house.add("sdk", folder)["name"])


@pytest.fixture(scope="module")
def sdk(house: House) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=house.url + "/v1", api_key=house.key, max_retries=0) as client:
        yield client


def test_a_route_answers_with_its_exact_version(sdk: openai.OpenAI, version: str) -> None:
    answer = sdk.chat.completions.create(model="sdk", messages=HELLO, max_tokens=8)
    assert version == answer.model
    assert answer.choices[0].message.content


@pytest.mark.parametrize("form", ["sdk@v1", "short", "long"])
def test_a_version_can_be_pinned(sdk: openai.OpenAI, house: House, version: str, form: str) -> None:
    digest = house.cli("adapters", "show", version, "--json").stdout
    names = {"short": version, "long": "sdk@" + json.loads(digest)["digest"]}
    answer = sdk.chat.completions.create(model=names.get(form, form), messages=HELLO, max_tokens=4)
    assert version == answer.model


def test_the_base_answers_under_its_name(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="base", messages=HELLO, max_tokens=8)
    assert answer.model == "base"


def test_the_answer_id_is_the_request_id(sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="base", messages=HELLO, max_tokens=4)
    assert "chatcmpl-" + raw.headers["x-request-id"] == raw.parse().id


def test_a_stream_carries_the_version_and_ends(sdk: openai.OpenAI, version: str) -> None:
    chunks = list(sdk.chat.completions.create(model="sdk", messages=HELLO, max_tokens=8, stream=True))
    assert {chunk.model for chunk in chunks} == {version}
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_usage_when_asked(sdk: openai.OpenAI) -> None:
    chunks = list(
        sdk.chat.completions.create(
            model="sdk", messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None
    assert 1 <= usage.completion_tokens <= 8


def test_n_gives_that_many_choices(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="sdk", messages=HELLO, max_tokens=4, n=2, temperature=1)
    assert [0, 1] == [choice.index for choice in answer.choices]


@pytest.mark.parametrize("stop", [" the", [" the", " a"]])
def test_stop_ends_the_answer(sdk: openai.OpenAI, stop: str | list[str]) -> None:
    prompt = [{"role": "user", "content": "Tell me about the sea and the sun."}]
    answer = sdk.chat.completions.create(
        model="base", messages=prompt, max_tokens=200, stop=stop, temperature=0
    )
    text = answer.choices[0].message.content or ""
    assert answer.choices[0].finish_reason == "stop"
    assert not [word for word in ([stop] if isinstance(stop, str) else stop) if word in text]


def test_logprobs_come_for_each_token(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model="sdk", messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert {2} == {len(token.top_logprobs) for token in logprobs.content}


def test_a_seed_repeats_the_answer(sdk: openai.OpenAI) -> None:
    one, two = (
        sdk.chat.completions.create(model="sdk", messages=HELLO, max_tokens=12, seed=11, temperature=1)
        for _ in range(2)
    )
    assert one.choices[0].message.content == two.choices[0].message.content


def test_a_named_tool_is_called(sdk: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
    }
    answer = sdk.chat.completions.create(
        model="sdk",
        messages=[{"role": "user", "content": "Weather in Paris?"}],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": schema, "strict": True}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=60,
        temperature=0,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "weather"  # type: ignore[union-attr]
    assert "city" in json.loads(calls[0].function.arguments)  # type: ignore[union-attr]


def test_a_json_schema_is_obeyed(sdk: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}},
        "required": ["mood"],
        "additionalProperties": False,
    }
    answer = sdk.chat.completions.create(
        model="sdk",
        messages=[{"role": "user", "content": "How do you feel?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}},
        max_tokens=40,
    )
    assert json.loads(answer.choices[0].message.content or "")["mood"] in ("good", "bad")


def test_completions_answer(sdk: openai.OpenAI, version: str) -> None:
    answer = sdk.completions.create(model="sdk", prompt="The sea is", max_tokens=6)
    assert version == answer.model
    assert answer.choices[0].text


def test_responses_answer(sdk: openai.OpenAI, version: str) -> None:
    answer = sdk.responses.create(model="sdk", input="Say hello.", max_output_tokens=8)
    assert version == answer.model
    assert answer.output


def test_responses_stream(sdk: openai.OpenAI) -> None:
    kinds = [
        event.type
        for event in sdk.responses.create(model="sdk", input="Hi", max_output_tokens=8, stream=True)
    ]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")


def test_embeddings_of_a_base_without_them_are_refused_clearly(sdk: openai.OpenAI) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError), match="embeddings"):
        sdk.embeddings.create(model="base", input="hello")


def test_models_lists_base_route_and_version(sdk: openai.OpenAI, version: str) -> None:
    assert {"base", "sdk", version} <= {model.id for model in sdk.models.list()}
    assert sdk.models.retrieve(version).id == version


async def test_the_async_client_streams(house: House, version: str) -> None:
    async with openai.AsyncOpenAI(base_url=house.url + "/v1", api_key=house.key, max_retries=0) as client:
        stream = await client.chat.completions.create(model="sdk", messages=HELLO, max_tokens=4, stream=True)
        assert {version} == {chunk.model async for chunk in stream}


def test_an_unknown_key_is_an_authentication_error(house: House) -> None:
    with (
        openai.OpenAI(base_url=house.url + "/v1", api_key="hs-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.models.list()
    assert refused.value.code == "invalid_api_key"


def test_an_unknown_model_is_a_not_found_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.chat.completions.create(model="nobody", messages=HELLO)
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"


def test_a_bad_body_is_a_bad_request_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model="sdk", messages="not a list")  # type: ignore[call-overload]
    assert refused.value.type == "invalid_request_error"


def test_a_body_over_the_limit_is_413(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.chat.completions.create(model="sdk", messages=[{"role": "user", "content": "x" * 50_000_000}])
    assert refused.value.status_code == 413


def test_an_inference_key_cannot_administrate(house: House) -> None:
    made = json.loads(house.cli("keys", "create", "--label", "test", "--json").stdout)
    answer = httpx.get(
        house.url + "/admin/v1/adapters", headers={"authorization": f"Bearer {made['secret']}"}
    )
    assert answer.status_code == 403
