"""The openai SDK, sync and async, reads what the engine says and raises its typed errors for ours."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.api.conftest import VERSION, Service, running

MESSAGES: Any = [{"role": "user", "content": "hi"}]


async def chat(service: Service, key: str = "good", **more: Any) -> Any:
    """One call by the sync client, in a thread, and the same by the async one; they must agree."""
    asked = {"model": "base", "messages": MESSAGES} | more
    place: Any = {"base_url": f"{service.url}/v1", "api_key": key, "max_retries": 0}

    def call() -> Any:
        with openai.OpenAI(**place) as client:
            return client.chat.completions.create(**asked)

    async def call_async() -> Any:
        async with openai.AsyncOpenAI(**place) as client:
            return await client.chat.completions.create(**asked)

    one, two = await asyncio.gather(asyncio.to_thread(call), call_async(), return_exceptions=True)
    assert type(one) is type(two)
    if isinstance(one, BaseException):
        raise one
    return one


def client_of(service: Service) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="good", max_retries=0)


async def test_a_chat_is_answered(service: Service) -> None:
    assert VERSION == (await chat(service, model="support")).model


async def test_a_stream_is_read_to_its_end(service: Service) -> None:
    async with client_of(service) as client:
        stream = await client.chat.completions.create(
            model="base", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "base:" == chunks[1].choices[0].delta.content
    assert chunks[-1].usage is not None


async def test_a_response_stream_is_read_to_its_end(service: Service) -> None:
    async with client_of(service) as client:
        stream = await client.responses.create(model="base", input="hi", stream=True)
        events = [event async for event in stream]
    assert "response.completed" == events[-1].type


async def test_models_are_listed(service: Service) -> None:
    async with client_of(service) as client:
        assert ["base", "support", VERSION] == [model.id async for model in client.models.list()]


@pytest.mark.parametrize(
    ("asked", "expected", "code"),
    [
        ({"key": "bad"}, openai.AuthenticationError, "invalid_api_key"),
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"max_tokens": 0}, openai.BadRequestError, None),
        ({"extra_body": {"chat_template": "x"}}, openai.BadRequestError, "field_not_allowed"),
    ],
)
async def test_a_refusal_is_the_sdks_typed_error(
    service: Service, asked: dict[str, Any], expected: type[openai.APIStatusError], code: str | None
) -> None:
    with pytest.raises(expected) as caught:
        await chat(service, **asked)
    assert code == caught.value.code
    assert caught.value.request_id is not None


async def test_a_body_that_is_too_large_is_a_413() -> None:
    async with running(max_body_bytes=1000) as service:
        with pytest.raises(openai.APIStatusError) as caught:
            await chat(service, user="x" * 1000)
    assert 413 == caught.value.status_code


async def test_no_engine_is_an_internal_server_error_with_retry_after(service: Service) -> None:
    service.fleet.ports.clear()
    with pytest.raises(openai.InternalServerError) as caught:
        await chat(service)
    assert (503, "3") == (caught.value.status_code, caught.value.response.headers["retry-after"])


async def test_an_engine_lost_in_mid_stream_raises_and_does_not_end_quietly(service: Service) -> None:
    service.engine.faults.die_after_chunks = 3
    async with client_of(service) as client:
        stream = await client.chat.completions.create(model="base", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="incomplete"):
            async for _ in stream:
                pass


async def test_an_engine_lost_in_mid_answer_is_a_connection_error(service: Service) -> None:
    service.engine.faults.close_mid_body = True
    with pytest.raises(openai.APIConnectionError):
        await chat(service)
