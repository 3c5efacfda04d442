"""The data plane: who may ask, what is asked, what the engine gets, and what comes back when it cannot."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest

from tests.api.conftest import VERSION, Service, running
from tests.relay.serving import talking, until

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer good\r\n"


def error(answer: httpx.Response) -> dict[str, Any]:
    """The error body, which has exactly OpenAI's members, on an answer with a request id."""
    assert len(answer.headers["x-request-id"]) == 32
    assert {"error"} == set(answer.json())
    assert {"message", "type", "param", "code"} == set(answer.json()["error"])
    return answer.json()["error"]


def status_and_code(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, error(answer)["code"]


async def head_of_answer(service: Service, request: bytes) -> bytes:
    """The head of what comes back for `request`, which need not be whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    return answer


async def test_the_base_answers_under_its_name(service: Service) -> None:
    answer = (await service.chat()).json()
    assert "base" == answer["model"]
    assert answer["choices"][0]["message"]["content"].startswith("base:")


@pytest.mark.parametrize("name", ["support", "support@v1", VERSION])
async def test_a_route_and_its_pins_are_answered_by_the_version(service: Service, name: str) -> None:
    assert VERSION == (await service.chat(model=name)).json()["model"]


async def test_the_engines_id_is_the_request_id(service: Service) -> None:
    answer = await service.chat()
    assert f"chatcmpl-{answer.headers['x-request-id']}" == answer.json()["id"]


async def test_a_request_id_of_the_clients_is_not_taken(service: Service) -> None:
    body = {"model": "base", "messages": []}
    answer = await service.http.post("/v1/chat/completions", json=body, headers={"x-request-id": "mine"})
    assert "mine" != answer.headers["x-request-id"]
    assert "mine" not in answer.json()["id"]


async def test_a_response_has_the_request_id_too(service: Service) -> None:
    answer = await service.post("/v1/responses", input="hi")
    assert f"resp_{answer.headers['x-request-id']}" == answer.json()["id"]


async def test_members_that_nobody_knows_pass_through(service: Service) -> None:
    await service.chat(tomorrow={"a": [1, 2.50, "é"]})
    assert {"a": [1, 2.50, "é"]} == service.engine.seen[0]["tomorrow"]


async def test_a_duplicate_member_is_settled_before_it_is_checked(service: Service) -> None:
    body = b'{"model": "support", "model": "base", "messages": []}'
    await service.http.post("/v1/chat/completions", content=body)
    assert [{"model": "base", "messages": []}] == service.engine.seen


async def test_an_escaped_member_is_the_member_it_spells(service: Service) -> None:
    body = rb'{"\u006dodel": "\u0073upport", "messages": []}'
    await service.http.post("/v1/chat/completions", content=body)
    assert [{"model": VERSION, "messages": []}] == service.engine.seen


async def test_a_request_without_a_good_key_is_a_401(service: Service) -> None:
    answer = await service.http.post("/v1/chat/completions", headers={"authorization": "Bearer bad"})
    assert (401, "invalid_api_key") == status_and_code(answer)


async def test_the_key_is_checked_before_the_body_is_read(service: Service) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n"
    assert (await head_of_answer(service, head)).startswith(b"HTTP/1.1 401")


async def test_a_body_of_50_mb_is_refused_by_its_length_alone(service: Service) -> None:
    answer = await head_of_answer(service, POST + b"content-length: 52428800\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_body_of_50_mb_that_is_sent_all_the_same_gets_its_413(service: Service) -> None:
    answer = await service.http.post("/v1/chat/completions", content=b" " * 50 * 2**20)
    assert (413, "body_too_large") == status_and_code(answer)


async def test_a_chunked_body_is_refused_as_soon_as_it_is_over_the_limit() -> None:
    async with running(max_body_bytes=1000) as service:
        request = POST + b"transfer-encoding: chunked\r\n\r\n" + b"3e9\r\n" + b" " * 1001 + b"\r\n"
        assert (await head_of_answer(service, request)).startswith(b"HTTP/1.1 413")


async def test_a_body_at_the_limit_is_read() -> None:
    async with running(max_body_bytes=1000) as service:
        body = json.dumps({"model": "base", "messages": []}).encode().ljust(1000)
        assert 200 == (await service.http.post("/v1/chat/completions", content=body)).status_code


async def test_a_body_that_comes_too_slowly_is_a_408_and_the_connection_closes() -> None:
    async with running(body_timeout_s=0.05) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(POST + b"content-length: 100\r\n\r\n{")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_client_that_leaves_within_its_body_reaches_no_engine(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(POST + b'content-length: 100\r\n\r\n{"model"')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert 200 == (await service.chat()).status_code  # comes after it
    assert 1 == service.fleet.leased
    assert [] == [record for record in caplog.records if record.name.startswith("hotswap")]


async def test_expect_100_continue_is_answered(service: Service) -> None:
    request = POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    assert (await head_of_answer(service, request)).startswith(b"HTTP/1.1 100 Continue")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b'{"model": "base"} tail',
        b'{"model": NaN}',
        b'{"model": "base", "x": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"[1]",
        b'"base"',
        b"null",
        b'{"model":"base","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["empty", "cut", "words", "tail", "nan", "latin1", "bom", "array", "string", "null", "deep"],
)
async def test_a_body_that_is_not_a_json_object_is_a_400_and_reaches_no_engine(
    service: Service, body: bytes
) -> None:
    answer = await service.http.post("/v1/chat/completions", content=body)
    assert (400, "invalid_json") == status_and_code(answer)
    assert 0 == service.fleet.leased


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "missing_required_parameter"),
        (b'{"model": 7}', "invalid_type"),
        (b'{"model": null}', "invalid_type"),
        (b'{"model": ["base"]}', "invalid_type"),
    ],
)
async def test_a_model_that_is_not_a_name_is_a_400_about_model(
    service: Service, body: bytes, code: str
) -> None:
    answer = await service.http.post("/v1/chat/completions", content=body)
    assert (400, code) == status_and_code(answer)
    assert "model" == error(answer)["param"]


async def test_an_unknown_model_is_a_404_and_reaches_no_engine(service: Service) -> None:
    assert (404, "model_not_found") == status_and_code(await service.chat(model="nobody"))
    assert 0 == service.fleet.leased


async def test_a_wrong_method_is_a_405_that_names_the_right_one(service: Service) -> None:
    answer = await service.http.get("/v1/completions")
    assert (405, "method_not_allowed") == status_and_code(answer)
    assert "POST" == answer.headers["allow"]


async def test_options_needs_no_key_and_tells_the_methods(service: Service) -> None:
    answer = await service.http.options("/v1/completions", headers={"authorization": ""})
    assert (204, "POST, OPTIONS") == (answer.status_code, answer.headers["allow"])


async def test_an_unknown_path_is_a_404_in_openais_shape(service: Service) -> None:
    assert (404, "unknown_url") == status_and_code(await service.http.get("/v1/assistants"))


async def test_a_load_endpoint_of_the_engine_is_not_reachable(service: Service) -> None:
    answer = await service.post("/v1/load_lora_adapter", lora_name="x", lora_path="/etc")
    assert (404, "unknown_url") == status_and_code(answer)


async def test_models_lists_what_the_routes_say(service: Service) -> None:
    answer = (await service.http.get("/v1/models")).json()
    assert ("list", ["base", "support", VERSION]) == (answer["object"], [m["id"] for m in answer["data"]])


@pytest.mark.parametrize("name", ["base", "support", "support@v1", "support%40v1", VERSION])
async def test_a_model_can_be_looked_up_by_any_of_its_names(service: Service, name: str) -> None:
    answer = (await service.http.get(f"/v1/models/{name}")).json()
    assert (name.replace("%40", "@"), "model") == (answer["id"], answer["object"])


async def test_an_unknown_model_cannot_be_looked_up(service: Service) -> None:
    assert (404, "model_not_found") == status_and_code(await service.http.get("/v1/models/nobody"))


@pytest.mark.parametrize(
    ("field", "value"), [("previous_response_id", "resp_1"), ("background", True), ("conversation", "c_1")]
)
async def test_a_response_that_needs_a_stored_one_is_refused(
    service: Service, field: str, value: Any
) -> None:
    answer = await service.post("/v1/responses", input="hi", **{field: value})
    assert (400, "unsupported_parameter") == status_and_code(answer)
    assert field == error(answer)["param"]


async def test_a_response_may_say_that_it_needs_no_stored_one(service: Service) -> None:
    answer = await service.post("/v1/responses", input="hi", previous_response_id=None, background=False)
    assert 200 == answer.status_code


async def test_a_stored_response_cannot_be_fetched(service: Service) -> None:
    answer = await service.http.get("/v1/responses/resp_1")
    assert (404, "response_not_found") == status_and_code(answer)


async def test_a_base_without_embeddings_says_so(service: Service) -> None:
    answer = await service.post("/v1/embeddings", input="hi")
    assert (400, "embeddings_not_served") == status_and_code(answer)


async def test_a_4xx_of_the_engine_keeps_its_words_and_loses_its_numeric_code(service: Service) -> None:
    answer = await service.chat(max_tokens=0)
    assert (400, None) == status_and_code(answer)
    assert ("invalid_request_error", "max_tokens") == (error(answer)["type"], error(answer)["param"])
    assert "must be at least 1" in error(answer)["message"]


async def test_a_5xx_of_the_engine_tells_nothing_of_its_inside(service: Service) -> None:
    service.engine.faults.fail_next = 1
    answer = await service.chat()
    assert (500, "engine_error") == status_and_code(answer)
    assert "list index" not in answer.text


async def test_a_dead_engine_is_a_503_with_retry_after(service: Service) -> None:
    service.engine.faults.dead = True
    answer = await service.chat()
    assert (503, "engine_unavailable") == status_and_code(answer)
    assert int(answer.headers["retry-after"]) >= 1


async def test_no_engine_is_a_503_with_the_fleets_retry_after(service: Service) -> None:
    service.fleet.ports.clear()
    answer = await service.chat()
    assert (503, "3") == (answer.status_code, answer.headers["retry-after"])


async def test_a_request_that_got_no_byte_goes_to_another_engine(service: Service) -> None:
    async def dead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with talking(dead) as port:
        service.fleet.ports.insert(0, port)
        assert 200 == (await service.chat()).status_code
    assert 2 == service.fleet.leased


async def test_a_request_is_not_sent_twice_to_the_engine_that_dropped_it(service: Service) -> None:
    asked = 0

    async def dead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(1)

    async with talking(dead) as port:
        service.fleet.ports[:] = [port]
        assert (503, "engine_unavailable") == status_and_code(await service.chat())
    assert 1 == asked


async def test_a_version_that_a_restarted_engine_forgot_is_loaded_and_asked_again(service: Service) -> None:
    service.engine.restart()
    answer = await service.chat(model="support")
    assert (200, VERSION) == (answer.status_code, answer.json()["model"])
    assert 1 == service.fleet.stale


async def test_a_version_that_stays_forgotten_is_a_503_not_a_404(service: Service) -> None:
    service.engine.restart()
    service.fleet.loads_when_stale = False
    assert 503 == (await service.chat(model="support")).status_code
    assert 2 == len(service.engine.seen)


async def test_an_engine_that_refuses_our_key_is_not_the_clients_401(service: Service) -> None:
    service.engine.key = "another"
    assert (503, "engine_unavailable") == status_and_code(await service.chat())


async def test_a_lease_is_returned_after_an_answer_and_after_a_failure(service: Service) -> None:
    await service.chat()
    service.engine.faults.fail_next = 1
    await service.chat()
    assert (2, 0) == (service.fleet.leased, service.fleet.held)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/completions", {"prompt": "hi", "prompt_logprobs": 1}),
        ("/v1/completions", {"prompt": "hi", "echo": True, "logprobs": 1}),
        ("/v1/chat/completions", {"messages": [], "prompt_logprobs": 0}),
        ("/v1/chat/completions", {"messages": [], "echo": True}),
    ],
)
@pytest.mark.parametrize(("safe", "at_once"), [(False, 1), (True, 4)])
async def test_prompt_logprobs_take_turns_on_an_engine_that_would_die_of_two(
    service: Service, path: str, more: dict[str, Any], safe: bool, at_once: int
) -> None:
    service.fleet.prompt_logprobs_safe = safe
    service.engine.faults.prefill_delay_s = 0.1
    answers = await asyncio.gather(*(service.post(path, **more) for _ in range(4)))
    assert [200] * 4 == [answer.status_code for answer in answers]
    assert at_once == service.engine.prompt_logprobs_peak


async def test_other_requests_do_not_wait_for_prompt_logprobs(service: Service) -> None:
    service.fleet.prompt_logprobs_safe = False
    service.engine.faults.hang = True
    first = asyncio.create_task(service.chat(prompt_logprobs=1))
    await until(lambda: len(service.engine.seen) == 1, "the first request reached the engine")
    second = asyncio.create_task(service.chat())
    await until(lambda: len(service.engine.seen) == 2, "the second request reached the engine")
    for task in (first, second):
        task.cancel()
    await asyncio.wait((first, second))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_the_engine_within_100_ms(service: Service, stream: bool) -> None:
    service.engine.faults.token_delay_s = 30
    asked = asyncio.create_task(service.chat(stream=stream))
    await until(lambda: service.engine.running == 1, "the request reached the engine")
    asked.cancel()
    await asyncio.wait((asked,))
    await until(lambda: service.engine.running == 0, "the engine was freed", within_s=0.1)
    await until(lambda: service.fleet.held == 0, "the lease came back", within_s=0.1)


async def test_an_unforeseen_failure_is_a_500_that_is_logged_with_its_request_id(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.fleet.leased = None  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR, logger="hotswap.api"):
        answer = await service.chat()
    assert (500, None) == status_and_code(answer)
    assert answer.headers["x-request-id"] in caplog.text
