"""The plugin's adapter routes and its admission. The fake engine and real vLLM pass the same tests.

The engine has two slots and room for four adapters, and its LoRA kernel is vLLM's own: base and adapters take
turns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from tests.contract.conftest import ROOM, SLOTS, Engine, Shelf
from tests.relay.serving import serving_in_thread

PATH = "/hotswap/v1/adapters"


@pytest.fixture
def http(small: Engine) -> Iterator[httpx.Client]:
    """A client of an engine that holds nothing."""
    headers = {"authorization": f"Bearer {small.key}"}
    with httpx.Client(base_url=small.url, headers=headers, timeout=60, trust_env=False) as client:
        idle(client)
        for each in listing(client)["adapters"]:
            client.delete(f"{PATH}/{each['name']}").raise_for_status()
        yield client
        idle(client)


def listing(http: httpx.Client) -> dict[str, Any]:
    answer = http.get(PATH)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def held(http: httpx.Client) -> dict[str, dict[str, Any]]:
    """What is resident, least recently used first, by name."""
    return {each["name"]: each for each in listing(http)["adapters"]}


def put(http: httpx.Client, shelf: Shelf, name: str, digest: str, **more: Any) -> httpx.Response:
    body = {"sha256": digest, "source": shelf.source, "path": shelf.path(digest)} | more
    return http.put(f"{PATH}/{name}", json={key: value for key, value in body.items() if value is not None})


def resident(http: httpx.Client, shelf: Shelf) -> str:
    """The name of a new version that is loaded."""
    name, digest = shelf.version()
    answer = put(http, shelf, name, digest)
    assert answer.status_code == 200, answer.text
    return name


def ask(http: httpx.Client, model: str, header: str | None = None, **more: Any) -> httpx.Response:
    body = {"model": model, "prompt": "One, two,", "temperature": 0, "max_tokens": 2} | more
    headers = {} if header is None else {"x-hotswap-adapter": header}
    return http.post("/v1/completions", json=body, headers=headers)


@contextmanager
def answering(http: httpx.Client, *models: str) -> Iterator[None]:
    """A stream of each model has begun, and does not end before the `with` does."""
    with ExitStack() as stack:
        for model in models:
            body = {"model": model, "prompt": "x", "max_tokens": 1500, "ignore_eos": True, "stream": True}
            answer = stack.enter_context(http.stream("POST", "/v1/completions", json=body))
            parts = answer.iter_bytes()
            stack.callback(lambda kept: None, parts)  # httpx closes the connection when this is collected
            assert next(parts).startswith(b"data: "), answer.status_code
        yield
    idle(http)


def idle(http: httpx.Client) -> None:
    def check() -> bool:
        lines = http.get("/metrics").text.splitlines()
        running = [line for line in lines if line.startswith("vllm:num_requests_running{")]
        in_flight = any(each["in_flight"] for each in held(http).values())
        return not in_flight and all(line.endswith(" 0.0") for line in running)

    until("nothing runs", check)


def until(what: str, check: Callable[[], bool], deadline_s: float = 15) -> None:
    end = time.monotonic() + deadline_s
    while not check():
        assert time.monotonic() < end, f"after {deadline_s} s still not: {what}"
        time.sleep(0.02)


def code(answer: httpx.Response) -> tuple[int, Any]:
    """Status and code of an error in OpenAI's shape."""
    said = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= set(said)
    return answer.status_code, said["code"]


def test_the_report_says_what_the_gateway_builds_on(http: httpx.Client) -> None:
    report = http.get("/hotswap/v1/plugin").json()
    assert {"adapters", "pin", "metrics"} <= set(report["routes"])
    assert {"enabled": True, "apart": True} == report["admission"]
    assert {"disk_loads", "activations", "evictions", "not_now"} == set(report["counters"])
    assert (SLOTS, ROOM) == (report["loras"]["max_loras"], report["loras"]["max_cpu_loras"])
    assert report["max_num_seqs"] > 0
    assert report["base_fingerprint"] is None or 64 == len(report["base_fingerprint"])


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PUT", "/x@1"), ("DELETE", "/x@1"), ("POST", "/x@1/pin"), ("POST", "/x@1/unpin")],
)
def test_no_adapter_route_answers_without_the_key(small: Engine, method: str, path: str) -> None:
    assert 401 == httpx.request(method, f"{small.url}{PATH}{path}", trust_env=False).status_code


def test_a_put_version_is_resident_registered_and_answers_under_its_name(
    http: httpx.Client, shelf: Shelf
) -> None:
    name = resident(http, shelf)
    told = held(http)[name]
    assert {"name", "slot", "pinned", "rank", "bytes", "last_used_s", "in_flight"} == set(told)
    assert (False, 8, 0) == (told["pinned"], told["rank"], told["in_flight"])
    assert told["slot"] in range(SLOTS) and told["bytes"] > 0
    assert name in [model["id"] for model in http.get("/v1/models").json()["data"]]
    assert name == ask(http, name).json()["model"]


def test_a_second_put_is_success_and_reads_nothing(http: httpx.Client, shelf: Shelf) -> None:
    name, digest = shelf.version()
    put(http, shelf, name, digest).raise_for_status()
    before = listing(http)["counters"]
    answer = put(http, shelf, name, digest)
    assert {"name": name, "loaded": True, "fetched": False, "evicted": False} == {
        key: value for key, value in answer.json().items() if key != "ms"
    }
    assert answer.json()["ms"] >= 0
    assert before == listing(http)["counters"]


def test_a_put_can_evict_another_in_the_same_call_but_not_one_in_use(
    http: httpx.Client, shelf: Shelf
) -> None:
    old, (new, digest) = resident(http, shelf), shelf.version()
    with answering(http, old):
        assert (409, "in_flight") == code(put(http, shelf, new, digest, evict=old))
        assert old in held(http) and new not in held(http)
    answer = put(http, shelf, new, digest, evict=old)
    assert (200, True) == (answer.status_code, answer.json()["evicted"])
    assert new in held(http) and old not in held(http)
    assert 404 == ask(http, old).status_code and new == ask(http, new).json()["model"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sha256": "a" * 64, "path": "/x/sha256/" + "a" * 64}, (400, "bad_name")),
        ({"sha256": "a" * 63}, (400, "bad_name")),
        ({"sha256": None}, (400, "bad_body")),
        ({"path": "/elsewhere"}, (400, "bad_path")),
        ({"path": "sha256/x"}, (400, "bad_path")),
        ({"path": None, "source": None}, (400, "bad_source")),
        ({"path": None, "source": "file:///etc"}, (400, "bad_source")),
        ({"path": None, "source": "http://user:pw@127.0.0.1:1"}, (400, "bad_source")),
        ({"path": None, "source": "http://127.0.0.1:1/x"}, (400, "bad_source")),
        ({"path": None, "source": "http://127.0.0.1:9"}, (502, "source_failed")),
    ],
    ids=str,
)
def test_a_wrong_put_is_refused_and_says_why(
    http: httpx.Client, shelf: Shelf, change: dict[str, Any], expected: tuple[int, str]
) -> None:
    name, digest = shelf.version()
    assert expected == code(put(http, shelf, name, digest, **change))
    assert name not in held(http)


def test_a_path_that_is_not_there_is_vllms_404(http: httpx.Client, shelf: Shelf) -> None:
    name, digest = shelf.version()
    answer = put(http, shelf, name, digest, path=f"/nowhere/sha256/{digest}")
    assert (404, "engine_error") == code(answer)
    assert "/nowhere" not in answer.text


def test_a_version_is_fetched_by_its_digest_once(http: httpx.Client, shelf: Shelf) -> None:
    name, digest = shelf.version()
    fetched = put(http, shelf, name, digest, path=None)
    assert (200, True) == (fetched.status_code, fetched.json().get("fetched")), fetched.text
    assert name == ask(http, name).json()["model"]
    http.delete(f"{PATH}/{name}").raise_for_status()
    assert False is put(http, shelf, name, digest, path=None).json()["fetched"]
    assert name in held(http)


def test_a_version_that_the_source_does_not_have_is_a_404(http: httpx.Client, shelf: Shelf) -> None:
    digest = "0123456789ab" * 5 + "cdef"
    assert (404, "unknown_version") == code(put(http, shelf, f"x@{digest[:12]}", digest, path=None))


def test_files_of_another_digest_are_refused_and_not_kept(http: httpx.Client, shelf: Shelf) -> None:
    name, digest = shelf.version()
    _, other = shelf.version()

    async def liar(scope: Any, receive: Any, send: Any) -> None:
        from adapters.archive import pack

        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in pack(shelf.store.path(other)):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    with serving_in_thread(liar) as port:
        answer = put(http, shelf, name, digest, path=None, source=f"http://127.0.0.1:{port}")
    assert (422, "digest_mismatch") == code(answer)
    assert name not in [model["id"] for model in http.get("/v1/models").json()["data"]]
    assert True is put(http, shelf, name, digest, path=None).json()["fetched"]


def test_residency_is_what_the_engine_holds_after_loads_and_evictions(
    http: httpx.Client, shelf: Shelf
) -> None:
    before = listing(http)["counters"]
    names = [resident(http, shelf) for _ in range(ROOM + 1)]
    assert names[1:] == list(held(http))
    assert {0, 1} == {held(http)[name]["slot"] for name in names[-SLOTS:]}
    assert [None] * (ROOM - SLOTS) == [held(http)[name]["slot"] for name in names[1:-SLOTS]]
    after = listing(http)["counters"]
    assert (ROOM + 1, ROOM + 1, 1) == tuple(
        after[each] - before[each] for each in ("disk_loads", "activations", "evictions")
    )


def test_a_request_for_an_evicted_version_reads_it_again(http: httpx.Client, shelf: Shelf) -> None:
    names = [resident(http, shelf) for _ in range(ROOM + 1)]
    before = listing(http)["counters"]
    assert names[0] == ask(http, names[0]).json()["model"]
    until("it is resident again", lambda: names[0] == list(held(http))[-1])
    after = listing(http)["counters"]
    assert (1, 1) == tuple(after[each] - before[each] for each in ("disk_loads", "evictions"))
    assert names[1] not in held(http)


def test_a_request_for_a_resident_version_without_a_slot_is_an_activation_and_no_load(
    http: httpx.Client, shelf: Shelf
) -> None:
    names = [resident(http, shelf) for _ in range(SLOTS + 1)]
    before = listing(http)["counters"]
    ask(http, names[0])
    until("it is in a slot", lambda: held(http)[names[0]]["slot"] is not None)
    assert [*names[1:], names[0]] == list(held(http))
    after = listing(http)["counters"]
    assert (0, 1) == tuple(after[each] - before[each] for each in ("disk_loads", "activations"))


def test_a_pinned_version_survives_evictions_and_an_unpinned_one_does_not(
    http: httpx.Client, shelf: Shelf
) -> None:
    pinned = resident(http, shelf)
    assert {"name": pinned, "pinned": True} == http.post(f"{PATH}/{pinned}/pin").json()
    for _ in range(ROOM):
        resident(http, shelf)
    assert True is held(http)[pinned]["pinned"]
    assert {"name": pinned, "pinned": False} == http.post(f"{PATH}/{pinned}/unpin").json()
    assert False is held(http)[pinned]["pinned"]
    resident(http, shelf)
    assert pinned not in held(http)


def test_pinning_an_evicted_version_reads_it_again(http: httpx.Client, shelf: Shelf) -> None:
    names = [resident(http, shelf) for _ in range(ROOM + 1)]
    assert 200 == http.post(f"{PATH}/{names[0]}/pin").status_code
    assert True is held(http)[names[0]]["pinned"]


def test_so_many_cannot_be_pinned_that_a_batch_of_others_finds_no_room(
    http: httpx.Client, shelf: Shelf
) -> None:
    names = [resident(http, shelf) for _ in range(ROOM - SLOTS + 1)]
    assert [200] * (ROOM - SLOTS) == [http.post(f"{PATH}/{name}/pin").status_code for name in names[:-1]]
    assert (409, "no_room") == code(http.post(f"{PATH}/{names[-1]}/pin"))


@pytest.mark.parametrize("verb", ["pin", "unpin"])
def test_what_is_not_registered_cannot_be_pinned(http: httpx.Client, verb: str) -> None:
    assert (404, "unknown_adapter") == code(http.post(f"{PATH}/nobody@000000000000/{verb}"))


def test_a_removed_version_is_gone_from_names_slot_and_cache(http: httpx.Client, shelf: Shelf) -> None:
    kept, gone = resident(http, shelf), resident(http, shelf)
    slot = held(http)[gone]["slot"]
    assert {"name": gone, "removed": True} == http.delete(f"{PATH}/{gone}").json()
    assert [kept] == list(held(http))
    assert 404 == ask(http, gone).status_code
    follower = resident(http, shelf)
    assert slot == held(http)[follower]["slot"]


def test_a_name_that_vllm_was_told_to_forget_can_still_be_removed(http: httpx.Client, shelf: Shelf) -> None:
    name = resident(http, shelf)
    http.post("/v1/unload_lora_adapter", json={"lora_name": name}).raise_for_status()
    assert name in held(http)
    assert 200 == http.delete(f"{PATH}/{name}").status_code
    assert name not in held(http)


def test_removing_what_is_unknown_is_a_404(http: httpx.Client) -> None:
    assert (404, "unknown_adapter") == code(http.delete(f"{PATH}/nobody@000000000000"))


def test_a_version_in_use_is_not_removed(http: httpx.Client, shelf: Shelf) -> None:
    name = resident(http, shelf)
    with answering(http, name):
        assert 1 == held(http)[name]["in_flight"]
        assert (409, "in_flight") == code(http.delete(f"{PATH}/{name}"))
    assert 200 == http.delete(f"{PATH}/{name}").status_code


def test_a_version_is_found_in_the_metrics(http: httpx.Client, shelf: Shelf) -> None:
    name = resident(http, shelf)
    lines = http.get("/metrics").text.splitlines()
    label = f'{{name="{name}"}}'
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("hotswap_"))
    told = held(http)[name]
    assert 1.0 == float(values[f"hotswap_adapter_resident{label}"])
    assert told["slot"] == float(values[f"hotswap_adapter_slot{label}"])
    assert 0.0 == float(values[f"hotswap_adapter_pinned{label}"])
    assert told["bytes"] == float(values[f"hotswap_adapter_bytes{label}"])
    assert (SLOTS, ROOM) == (float(values["hotswap_slots"]), float(values["hotswap_cpu_slots"]))
    counters = listing(http)["counters"]
    assert counters == {each: float(values[f"hotswap_{each}_total"]) for each in counters}


def test_a_removed_version_leaves_the_metrics(http: httpx.Client, shelf: Shelf) -> None:
    name = resident(http, shelf)
    http.delete(f"{PATH}/{name}").raise_for_status()
    assert name not in http.get("/metrics").text


def test_with_all_slots_in_flight_another_adapter_is_told_not_now_and_one_of_them_enters(
    http: httpx.Client, shelf: Shelf
) -> None:
    names = [resident(http, shelf) for _ in range(SLOTS + 1)]
    before = listing(http)["counters"]
    with answering(http, *names[:SLOTS]):
        refused = ask(http, names[-1])
        assert (503, "not_now") == code(refused)
        assert "slots" == refused.headers["x-hotswap-not-now"]
        assert names[0] == ask(http, names[0]).json()["model"]
    after = listing(http)["counters"]
    assert (1, 0) == tuple(after[each] - before[each] for each in ("not_now", "disk_loads"))
    assert names[-1] == ask(http, names[-1]).json()["model"]


def test_the_header_is_what_is_counted_and_the_body_what_is_served(http: httpx.Client, shelf: Shelf) -> None:
    names = [resident(http, shelf) for _ in range(SLOTS + 1)]
    with answering(http, *names[:SLOTS]):
        assert (503, "not_now") == code(ask(http, names[0], header=names[-1]))
        assert names[0] == ask(http, names[0], header=names[1]).json()["model"]


def test_base_and_adapters_take_turns(http: httpx.Client, small: Engine, shelf: Shelf) -> None:
    name = resident(http, shelf)
    with answering(http, name):
        refused = ask(http, small.base_model)
        assert (503, "apart") == (refused.status_code, refused.headers["x-hotswap-not-now"])
    until("it is the base's turn", lambda: ask(http, small.base_model).status_code == 200)
    with answering(http, small.base_model):
        assert "apart" == ask(http, name).headers["x-hotswap-not-now"]


@pytest.mark.parametrize("risky", [{"prompt_logprobs": 1}, {"echo": True, "logprobs": 1}], ids=str)
def test_prompt_logprobs_are_refused_and_end_nothing(
    http: httpx.Client, small: Engine, risky: dict[str, Any]
) -> None:
    assert (400, "prompt_logprobs_unsafe") == code(ask(http, small.base_model, **risky))
    until("the base answers", lambda: ask(http, small.base_model).status_code == 200)


def test_an_unknown_model_is_still_vllms_404(http: httpx.Client) -> None:
    said = json.loads(ask(http, "nobody@000000000000").text)["error"]
    assert ("model", 404) == (said["param"], said["code"])
