"""What the gateway relies on in an engine. The fake engine and real vLLM pass the same tests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.contract.conftest import Engine

SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer"}},
    "required": ["count"],
    "additionalProperties": False,
}


def chat(engine: Engine, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Name three colours."}]
    return {"model": engine.base_model, "messages": messages, "temperature": 0, "max_tokens": 8} | more


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The JSON events of a stream that ends with `[DONE]`, in vLLM's exact framing."""
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *parts, done, nothing = answer.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    assert all(part.startswith("data: {") for part in parts)
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def error(answer: httpx.Response) -> dict[str, Any]:
    assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
    return answer.json()["error"]


def test_a_request_without_the_key_is_refused(engine: Engine) -> None:
    assert httpx.get(f"{engine.url}/v1/models", trust_env=False).status_code == 401


def test_a_well_engine_answers_health_with_200(http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200


def test_the_base_is_listed_as_a_model(http: httpx.Client, engine: Engine) -> None:
    assert engine.base_model in [model["id"] for model in http.get("/v1/models").json()["data"]]


def test_a_whole_chat_answer_has_exactly_these_members(http: httpx.Client, engine: Engine) -> None:
    expected = {
        *("id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage"),
        *("prompt_logprobs", "prompt_token_ids", "prompt_text"),
        *("kv_transfer_params", "ec_transfer_params", "metrics"),
    }
    assert expected == set(http.post("/v1/chat/completions", json=chat(engine)).json())


def test_a_choice_has_exactly_these_members(http: httpx.Client, engine: Engine) -> None:
    expected = {
        *("index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts"),
    }
    assert expected == set(http.post("/v1/chat/completions", json=chat(engine)).json()["choices"][0])


def test_the_id_is_the_request_id_with_a_prefix(http: httpx.Client, engine: Engine) -> None:
    assert http.post("/v1/chat/completions", json=chat(engine)).json()["id"] == "chatcmpl-0123abcd"


def test_the_model_is_the_name_that_was_asked_for(http: httpx.Client, engine: Engine) -> None:
    assert http.post("/v1/chat/completions", json=chat(engine)).json()["model"] == engine.base_model


def test_max_tokens_ends_an_answer_with_length(http: httpx.Client, engine: Engine) -> None:
    answer = http.post("/v1/chat/completions", json=chat(engine, max_tokens=2)).json()
    assert ("length", 2) == (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"])


def test_usage_adds_up(http: httpx.Client, engine: Engine) -> None:
    usage = http.post("/v1/chat/completions", json=chat(engine)).json()["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_says_what_the_whole_answer_says(http: httpx.Client, engine: Engine) -> None:
    whole = http.post("/v1/chat/completions", json=chat(engine)).json()
    parts = events(http.post("/v1/chat/completions", json=chat(engine, stream=True)))
    streamed = "".join(part["choices"][0]["delta"].get("content") or "" for part in parts)
    assert whole["choices"][0]["message"]["content"] == streamed


def test_a_stream_begins_with_the_role(http: httpx.Client, engine: Engine) -> None:
    first = events(http.post("/v1/chat/completions", json=chat(engine, stream=True)))[0]
    assert {"role": "assistant", "content": ""} == first["choices"][0]["delta"]


def test_every_chunk_names_request_and_model(http: httpx.Client, engine: Engine) -> None:
    parts = events(http.post("/v1/chat/completions", json=chat(engine, stream=True)))
    assert {("chatcmpl-0123abcd", engine.base_model, "chat.completion.chunk")} == {
        (part["id"], part["model"], part["object"]) for part in parts
    }


def test_the_last_chunk_has_the_finish_reason(http: httpx.Client, engine: Engine) -> None:
    parts = events(http.post("/v1/chat/completions", json=chat(engine, stream=True, max_tokens=3)))
    assert [None] * (len(parts) - 1) + ["length"] == [p["choices"][0]["finish_reason"] for p in parts]


def test_a_stream_has_no_usage_unless_asked(http: httpx.Client, engine: Engine) -> None:
    parts = events(http.post("/v1/chat/completions", json=chat(engine, stream=True)))
    assert not any(part.get("usage") for part in parts)


def test_usage_comes_last_without_choices_when_asked(http: httpx.Client, engine: Engine) -> None:
    asked = chat(engine, stream=True, max_tokens=3, stream_options={"include_usage": True})
    last = events(http.post("/v1/chat/completions", json=asked))[-1]
    assert ([], 3) == (last["choices"], last["usage"]["completion_tokens"])


def test_n_gives_as_many_choices(http: httpx.Client, engine: Engine) -> None:
    answer = http.post("/v1/chat/completions", json=chat(engine, n=2, temperature=1.0, seed=1)).json()
    assert [0, 1] == [choice["index"] for choice in answer["choices"]]


def test_n_above_one_with_greedy_sampling_is_a_400(http: httpx.Client, engine: Engine) -> None:
    answer = http.post("/v1/chat/completions", json=chat(engine, n=2))
    assert (400, 400) == (answer.status_code, error(answer)["code"])


@pytest.mark.parametrize("listed", [False, True])
def test_a_stop_ends_the_text_before_it(http: httpx.Client, engine: Engine, listed: bool) -> None:
    text = http.post("/v1/chat/completions", json=chat(engine)).json()["choices"][0]["message"]["content"]
    stop = text[len(text) // 2 :][:4]
    answer = http.post("/v1/chat/completions", json=chat(engine, stop=[stop] if listed else stop)).json()
    choice = answer["choices"][0]
    assert (text[: text.index(stop)], "stop", stop) == (
        choice["message"]["content"],
        choice["finish_reason"],
        choice["stop_reason"],
    )


def test_a_seed_repeats_an_answer(http: httpx.Client, engine: Engine) -> None:
    asked = chat(engine, seed=7, temperature=1.0)
    one, two = (http.post("/v1/chat/completions", json=asked).json() for _ in range(2))
    assert one["choices"] == two["choices"]


def test_logprobs_come_a_token(http: httpx.Client, engine: Engine) -> None:
    asked = chat(engine, logprobs=True, top_logprobs=2, max_tokens=3)
    content = http.post("/v1/chat/completions", json=asked).json()["choices"][0]["logprobs"]["content"]
    assert [{"token", "logprob", "bytes", "top_logprobs"}] * 3 == [set(entry) for entry in content]
    assert [2, 2, 2] == [len(entry["top_logprobs"]) for entry in content]


def test_a_json_schema_binds_the_answer(http: httpx.Client, engine: Engine) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "counted", "schema": SCHEMA}}
    answer = http.post(
        "/v1/chat/completions", json=chat(engine, response_format=wanted, max_tokens=100)
    ).json()
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["count"], int)


def test_a_named_tool_is_called(http: httpx.Client, engine: Engine) -> None:
    function = {"name": "count", "parameters": SCHEMA, "strict": True}
    asked = chat(
        engine,
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "function", "function": {"name": "count"}},
        max_tokens=100,
    )
    call = http.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["tool_calls"][0]
    assert ("function", "count") == (call["type"], call["function"]["name"])
    assert isinstance(json.loads(call["function"]["arguments"])["count"], int)


def test_an_unknown_model_is_a_404_about_model(http: httpx.Client, engine: Engine) -> None:
    answer = http.post("/v1/chat/completions", json=chat(engine, model="nobody@000000000000"))
    said = error(answer)
    assert (404, "NotFoundError", "model", 404) == (
        answer.status_code,
        said["type"],
        said["param"],
        said["code"],
    )
    assert said["message"].startswith("The model `nobody@000000000000` does not exist.")


@pytest.mark.parametrize(
    ("change", "param"),
    [({"max_tokens": 0}, "max_tokens"), ({"temperature": -1}, "temperature")],
)
def test_an_impossible_value_is_a_400_that_names_it(
    http: httpx.Client, engine: Engine, change: dict[str, Any], param: str
) -> None:
    answer = http.post("/v1/chat/completions", json=chat(engine, **change))
    assert (400, param) == (answer.status_code, error(answer)["param"])


def test_a_missing_field_is_a_400(http: httpx.Client, engine: Engine) -> None:
    answer = http.post("/v1/chat/completions", json={"model": engine.base_model})
    assert (400, "body.messages") == (answer.status_code, error(answer)["param"])


def test_a_body_that_is_not_json_is_a_400(http: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    answer = http.post("/v1/chat/completions", content=b"{", headers=headers)
    assert (400, 400) == (answer.status_code, error(answer)["code"])


def test_a_completion_has_its_id_and_object(http: httpx.Client, engine: Engine) -> None:
    asked = {"model": engine.base_model, "prompt": "One, two,", "max_tokens": 4, "temperature": 0}
    answer = http.post("/v1/completions", json=asked).json()
    assert ("cmpl-0123abcd", "text_completion") == (answer["id"], answer["object"])


def test_a_completion_streams_what_it_says_whole(http: httpx.Client, engine: Engine) -> None:
    asked = {"model": engine.base_model, "prompt": "One, two,", "max_tokens": 4, "temperature": 0}
    whole = http.post("/v1/completions", json=asked).json()["choices"][0]["text"]
    parts = events(http.post("/v1/completions", json=asked | {"stream": True}))
    assert whole == "".join(part["choices"][0]["text"] for part in parts)


def test_a_response_takes_its_id_from_the_body(http: httpx.Client, engine: Engine) -> None:
    asked = {"model": engine.base_model, "input": "hi", "max_output_tokens": 4, "request_id": "resp_7"}
    answer = http.post("/v1/responses", json=asked).json()
    assert ("resp_7", "response", "message") == (
        answer["id"],
        answer["object"],
        answer["output"][0]["type"],
    )


def test_a_response_stream_is_named_events_without_done(http: httpx.Client, engine: Engine) -> None:
    asked = {"model": engine.base_model, "input": "hi", "max_output_tokens": 4, "stream": True}
    parts = http.post("/v1/responses", json=asked).text.split("\n\n")
    names = [part.partition("\n")[0].removeprefix("event: ") for part in parts]
    assert ("response.created", "response.completed", "") == (names[0], names[-2], names[-1])


def test_a_generating_base_has_no_embeddings(http: httpx.Client, engine: Engine) -> None:
    asked = {"model": engine.base_model, "input": "hi"}
    assert http.post("/v1/embeddings", json=asked).status_code == 404


@pytest.fixture
def loaded(http: httpx.Client, engine: Engine) -> Iterator[str]:
    """The name of an adapter that is loaded for one test."""
    name = "contract@0123456789ab"
    load(http, engine, name).raise_for_status()
    yield name
    http.post("/v1/unload_lora_adapter", json={"lora_name": name})


def load(http: httpx.Client, engine: Engine, name: str, path: str | None = None) -> httpx.Response:
    body = {"lora_name": name, "lora_path": path or str(engine.adapter_dir)}
    return http.post("/v1/load_lora_adapter", json=body)


def test_a_loaded_adapter_is_listed_under_the_base(http: httpx.Client, engine: Engine, loaded: str) -> None:
    cards = {card["id"]: card for card in http.get("/v1/models").json()["data"]}
    assert engine.base_model == cards[loaded]["parent"]


def test_a_loaded_adapter_answers_under_its_name(http: httpx.Client, engine: Engine, loaded: str) -> None:
    assert loaded == http.post("/v1/chat/completions", json=chat(engine, model=loaded)).json()["model"]


def test_an_adapter_answers_otherwise_than_the_base(http: httpx.Client, engine: Engine, loaded: str) -> None:
    base, adapter = (
        http.post("/v1/chat/completions", json=chat(engine, model=model, logprobs=True)).json()["choices"]
        for model in (engine.base_model, loaded)
    )
    assert base != adapter


def test_a_second_load_of_a_name_is_a_400_that_says_so(
    http: httpx.Client, engine: Engine, loaded: str
) -> None:
    answer = load(http, engine, loaded)
    assert 400 == answer.status_code
    assert f"The lora adapter '{loaded}' has already been loaded." in error(answer)["message"]


def test_a_load_from_nowhere_is_a_404(http: httpx.Client, engine: Engine) -> None:
    answer = load(http, engine, "contract@ffffffffffff", str(engine.adapter_dir / "nowhere"))
    assert (404, "NotFoundError") == (answer.status_code, error(answer)["type"])


def test_an_unloaded_adapter_is_unknown(http: httpx.Client, engine: Engine, loaded: str) -> None:
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": loaded}).status_code == 200
    assert http.post("/v1/chat/completions", json=chat(engine, model=loaded)).status_code == 404


def test_unloading_an_unknown_adapter_is_a_404(http: httpx.Client) -> None:
    answer = http.post("/v1/unload_lora_adapter", json={"lora_name": "contract@eeeeeeeeeeee"})
    assert (404, "NotFoundError") == (answer.status_code, error(answer)["type"])


def test_the_plugin_reports_its_boot_and_its_checks(http: httpx.Client) -> None:
    report = http.get("/hotswap/v1/plugin").json()
    assert {
        *("plugin_version", "vllm_version", "boot_id", "device", "lora_kernel"),
        *("prompt_logprobs_fixed", "self_test", "loras"),
    } <= set(report)
    assert {"max_loras", "max_lora_rank", "max_cpu_loras"} <= set(report["loras"])
    assert report["boot_id"] == http.get("/hotswap/v1/plugin").json()["boot_id"]


def running(http: httpx.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running{")
    )


def wait_until_running(http: httpx.Client, count: float) -> None:
    deadline = time.monotonic() + 10
    while running(http) != count:
        assert time.monotonic() < deadline, f"running is {running(http)}, not {count}, after 10 s"


def test_a_client_that_leaves_a_stream_ends_its_work(http: httpx.Client, engine: Engine) -> None:
    wait_until_running(http, 0)
    endless = chat(engine, stream=True, max_tokens=900, ignore_eos=True)
    with http.stream("POST", "/v1/chat/completions", json=endless) as answer:
        parts = answer.iter_bytes()  # kept: httpx closes the connection when this is collected
        assert next(parts).startswith(b"data: ")
        wait_until_running(http, 1)
    wait_until_running(http, 0)
