"""Traffic as users see it: remembered, read back, and nothing lost when the gateway dies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.traffic.lake import Lake
from tests.conftest import TINY
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.peft_folder import random_adapter

SETTINGS = {
    "HOTSWAP_TRAFFIC__SEGMENT_AGE_S": "0.2",
    "HOTSWAP_TRAFFIC__SHIP_EVERY_S": "0.2",
    "HOTSWAP_TRAFFIC__CONSENT": "terms of 2026",
}
QUESTION = "Where is my card? I am alice@example.com."


@pytest.fixture(scope="module")
def house(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("traffic")
    with Fake() as fake, House(folder, tiny_base, before([fake], **SETTINGS)) as running:
        wait_for("it serves", lambda: ["serving"] == [each["status"] for each in running.fleet()])
        for name in ("support", "secret", "quiet"):
            running.add(name, random_adapter(folder / name, TINY, seed=len(name)), promote=True)
        yield running


@pytest.fixture(scope="module")
def sdk(house: House) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as client:
        yield client


def ask(sdk: openai.OpenAI, model: str = "support", **more: Any) -> str:
    """Asks, and returns the answer's id."""
    answer = sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=4, **more
    )
    return answer.id


def told(house: House, *words: str) -> Any:
    done = house.cli("traffic", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def bare(id: str) -> str:
    return id.removeprefix("chatcmpl-")


def lake(house: House) -> Lake:
    return Lake(str(house.state / "lake"))


def shipped(house: House, id: str) -> int:
    """How often it is in the lake."""
    found = lake(house).query(f"SELECT count(*) AS n FROM lake WHERE id = '{bare(id)}'").read_all()
    return int(found.column("n").to_pylist()[0])


def test_an_exchange_can_be_looked_at_at_once_and_after_it_was_shipped(
    house: House, sdk: openai.OpenAI
) -> None:
    id = ask(sdk, user="alice", metadata={"ticket": "7"}, store=True)
    wait_for("it is in the journal", lambda: told(house, "ls", "--unit", "alice")["data"], 10)
    for _ in range(2):
        row = told(house, "show", id)
        assert row["messages"] == [{"role": "user", "content": QUESTION}]
        assert row["response"][0]["role"] == "assistant" and row["response"][0]["content"]
        assert (row["route"], row["unit"], row["status"], row["error"]) == ("support", "alice", 200, "")
        assert (row["metadata"], row["consent"]) == ({"ticket": "7"}, "terms of 2026")
        assert row["version"].startswith("support@") and row["completion"] == 4
        assert row["parameters"]["max_tokens"] == 4 and row["key"].startswith("key_")
        wait_for("it is shipped", lambda: shipped(house, id), 20)
    assert shipped(house, id) == 1


def test_a_stream_is_put_together(house: House, sdk: openai.OpenAI) -> None:
    said, id = "", ""
    for chunk in sdk.chat.completions.create(
        model="support", messages=[{"role": "user", "content": "Hello"}], max_tokens=6, stream=True
    ):
        id = chunk.id
        said += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    wait_for("it is there", lambda: told(house, "ls", "--limit", "1")["data"][0]["id"] == bare(id), 10)
    row = told(house, "show", id)
    assert row["response"][0]["content"] == said and row["streaming"]
    assert 0 < row["ttft_ms"] <= row["duration_ms"]


def test_a_client_that_leaves_is_remembered_with_what_it_had_got(house: House) -> None:
    body = {"model": "support", "messages": [], "max_tokens": 2000, "stream": True, "user": "left"}
    with httpx.stream(
        "POST", f"{house.url}/v1/chat/completions", json=body, headers=house.headers, timeout=30
    ) as answer:
        for number, _ in enumerate(answer.iter_lines()):
            if number == 8:
                break
    wait_for("it is there", lambda: told(house, "ls", "--unit", "left")["data"], 10)
    (row,) = told(house, "ls", "--unit", "left")["data"]
    assert (row["error"], row["outcome"]) == ("client_left", "client_left")
    assert row["completion"] >= 2


def test_a_refusal_is_remembered_with_its_code(house: House) -> None:
    body = {"model": "support", "messages": [], "chat_template": "x", "user": "denied"}
    answer = httpx.post(f"{house.url}/v1/chat/completions", json=body, headers=house.headers)
    wait_for("it is there", lambda: told(house, "ls", "--unit", "denied")["data"], 10)
    (row,) = told(house, "ls", "--unit", "denied", "--error", "any")["data"]
    assert (row["status"], row["error"]) == (400, answer.json()["error"]["code"])


def test_store_false_wins(house: House, sdk: openai.OpenAI) -> None:
    ask(sdk, user="forgetful", store=False)
    ask(sdk, user="after it")
    wait_for("the later one is there", lambda: told(house, "ls", "--unit", "after it")["data"], 10)
    assert told(house, "ls", "--unit", "forgetful")["data"] == []


def test_a_policy_of_metadata_keeps_no_words(house: House, sdk: openai.OpenAI) -> None:
    assert house.cli("traffic", "policy", "set", "--route", "quiet", "--capture", "metadata").returncode == 0
    id = ask(sdk, "quiet", user="bob")
    wait_for("it is there", lambda: told(house, "ls", "--unit", "bob")["data"], 10)
    row = told(house, "show", id)
    assert (row["messages"], row["response"], row["parameters"]) == (None, None, None)
    assert (row["completion"], row["finish_reason"], row["full"]) == (4, "length", False)
    assert {"kind": "route", "name": "quiet"}.items() <= told(house, "policy", "ls")["data"][0].items()


def test_strict_redaction_lets_no_raw_value_touch_the_disk(house: House, sdk: openai.OpenAI) -> None:
    done = house.cli("traffic", "policy", "set", "--route", "secret", "--redact", "strict")
    assert done.returncode == 0, done.stderr
    planted = "carol.planted@example.org"
    answer = sdk.chat.completions.create(
        model="secret", messages=[{"role": "user", "content": f"I am {planted}"}], max_tokens=4, user=planted
    )
    wait_for("it is shipped", lambda: shipped(house, answer.id), 20)
    row = told(house, "show", answer.id)
    assert row["messages"] == [{"role": "user", "content": "I am [EMAIL]"}]
    assert row["unit"].startswith("h:") and row["redacted"]
    exported = house.cli("traffic", "export", "--route", "secret")
    assert "[EMAIL]" in exported.stdout and planted not in exported.stdout
    needle = planted.encode()
    for path in house.state.rglob("*"):
        if path.is_file() and needle in path.read_bytes():
            raise AssertionError(f"{path} holds the planted value")


def test_a_key_may_ask_for_less_than_its_route(house: House) -> None:
    made = json.loads(house.cli("keys", "create", "--json", "--label", "private").stdout)
    done = house.cli("traffic", "policy", "set", "--key", made["id"], "--capture", "off")
    assert done.returncode == 0, done.stderr
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=made["secret"]) as private:
        ask(private, user="private")
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=house.key) as public:
        ask(public, user="public")
    wait_for("the later one is there", lambda: told(house, "ls", "--unit", "public")["data"], 10)
    assert told(house, "ls", "--key", made["id"])["data"] == []


def test_stats_and_export_agree_with_what_was_asked(house: House, sdk: openai.OpenAI) -> None:
    for _ in range(5):
        ask(sdk, user="counted")
    wait_for("they are there", lambda: len(told(house, "ls", "--unit", "counted")["data"]) == 5, 10)
    (row,) = told(house, "stats", "--unit", "counted")
    assert (row["route"], row["requests"], row["errors"], row["completion"]) == ("support", 5, 0, 20)
    done = house.cli("traffic", "export", "--unit", "counted")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 5
    assert [message["role"] for message in lines[0]["messages"]] == ["user", "assistant"]
    assert "5 exchanges" in done.stderr


def test_pages_follow_each_other_and_miss_nothing(house: House, sdk: openai.OpenAI) -> None:
    ids = [bare(ask(sdk, user="paged")) for _ in range(7)]
    wait_for("they are there", lambda: len(told(house, "ls", "--unit", "paged")["data"]) == 7, 10)
    seen, after = [], ""
    while True:
        page = told(house, "ls", "--unit", "paged", "--limit", "3", *(["--after", after] if after else []))
        seen += [row["id"] for row in page["data"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == ids[::-1]


def test_feedback_is_taken_shown_and_found(house: House, sdk: openai.OpenAI) -> None:
    id = ask(sdk, user="pleased")
    wait_for("it is there", lambda: told(house, "ls", "--unit", "pleased")["data"], 10)
    said = {"id": id, "thumb": "down", "correction": "It is on its way.", "scores": {"helpful": 0.2}}
    answer = httpx.post(f"{house.url}/v1/feedback", json=said, headers=house.headers, timeout=30)
    assert answer.status_code == 200, answer.text
    assert told(house, "show", id)["feedback"] == {name: said[name] for name in said if name != "id"}
    (row,) = told(house, "ls", "--feedback", "corrected")["data"]
    assert (row["id"], row["feedback"]["thumb"]) == (bare(id), "down")
    assert told(house, "ls", "--feedback", "up")["data"] == []
    unknown = {"id": "chatcmpl-" + "0" * 32, "thumb": "up"}
    answer = httpx.post(f"{house.url}/v1/feedback", json=unknown, headers=house.headers, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "exchange_not_found")
    assert house.cli("traffic", "forget", "--request", id).returncode == 0
    answer = httpx.post(f"{house.url}/v1/feedback", json=said, headers=house.headers, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "exchange_not_found")


def stored(sdk: openai.OpenAI, id: str) -> Any:
    """It, once it is remembered."""

    def look() -> Any:
        try:
            return sdk.chat.completions.retrieve(id)
        except openai.NotFoundError:
            return None

    return wait_for(f"{id} is there", look, 10)


def test_a_stored_completion_is_read_changed_and_deleted_by_the_sdk(house: House, sdk: openai.OpenAI) -> None:
    answered = sdk.chat.completions.create(
        model="support",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=4,
        store=True,
        metadata={"ticket": "8"},
    )
    id = answered.id
    kept = stored(sdk, id)
    assert (kept.id, kept.model, kept.metadata) == (id, answered.model, {"ticket": "8"})
    (choice,), (was,) = kept.choices, answered.choices
    assert (choice.message.content, choice.finish_reason) == (was.message.content, was.finish_reason)
    assert abs(kept.created - answered.created) <= 1
    assert answered.usage is not None and kept.usage.total_tokens == answered.usage.total_tokens
    (message,) = sdk.chat.completions.messages.list(id)
    assert (message.id, message.role, message.content) == (f"{id}-0", "user", QUESTION)

    changed = sdk.chat.completions.update(id, metadata={"state": "open"})
    assert changed.metadata == {"state": "open"} and changed.choices == kept.choices
    assert [id] == [each.id for each in sdk.chat.completions.list(metadata={"state": "open"})]
    assert [] == list(sdk.chat.completions.list(metadata={"ticket": "8"}))
    assert told(house, "show", id)["metadata"] == {"state": "open"}
    listed = {row["id"]: row["metadata"] for row in told(house, "ls")["data"]}
    assert json.loads(listed[bare(id)]) == {"state": "open"}

    gone = sdk.chat.completions.delete(id)
    assert (gone.id, gone.deleted, gone.object) == (id, True, "chat.completion.deleted")
    for call in (sdk.chat.completions.retrieve, sdk.chat.completions.delete):
        with pytest.raises(openai.NotFoundError, match=id):
            call(id)
    assert [] == list(sdk.chat.completions.list(metadata={"state": "open"}))
    assert house.cli("traffic", "show", id).returncode != 0
    with pytest.raises(openai.NotFoundError):
        sdk.post("/feedback", body={"id": id, "thumb": "up"}, cast_to=object)
    wait_for("it is erased", lambda: told(house, "forgotten")[0]["erased_at"], 60)
    assert shipped(house, id) == 0


def test_the_sdk_goes_through_all_pages_of_stored_completions(house: House, sdk: openai.OpenAI) -> None:
    made = [ask(sdk, store=True, metadata={"run": "paged"}) for _ in range(5)]
    ask(sdk, metadata={"run": "paged"})  # remembered, and not stored
    stored(sdk, made[-1])
    orders: tuple[tuple[Any, list[str]], ...] = (("asc", made), ("desc", made[::-1]))
    for order, wanted in orders:
        found = sdk.chat.completions.list(limit=2, order=order, metadata={"run": "paged"})
        assert wanted == [each.id for each in found]
    assert made[-1:] == [each.id for each in sdk.chat.completions.list(after=made[-2], model="support")]
    assert [] == list(sdk.chat.completions.list(model="secret"))
    mistakes: tuple[dict[str, Any], ...] = (
        {"limit": 101},
        {"order": "up"},
        {"metadata": {"k": "x" * 513}},
        {"after": "x"},
    )
    for wrong in mistakes:
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.chat.completions.list(**wrong)
        assert refused.value.param == next(iter(wrong))


def test_stored_completions_are_their_tenants(house: House, sdk: openai.OpenAI) -> None:
    id = ask(sdk, store=True)
    stored(sdk, id)
    made = json.loads(house.cli("keys", "create", "--json", "--tenant", "acme").stdout)
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=made["secret"], max_retries=0) as other:
        assert [] == list(other.chat.completions.list())
        for call in (
            other.chat.completions.retrieve,
            other.chat.completions.delete,
            lambda id: other.chat.completions.messages.list(id),
            lambda id: other.chat.completions.update(id, metadata={}),
        ):
            with pytest.raises(openai.NotFoundError) as refused:
                call(id)
            assert refused.value.code == "completion_not_found"
        done = house.cli("traffic", "policy", "set", "--key", made["id"], "--capture", "off")
        assert done.returncode == 0, done.stderr
        with pytest.raises(openai.NotFoundError, match="does not remember"):
            other.chat.completions.list()
    assert sdk.chat.completions.retrieve(id).id == id


def test_a_unit_can_be_forgotten(house: House, sdk: openai.OpenAI) -> None:
    kept = [ask(sdk, user=unit) for unit in ("dave", "erin", "dave")]
    wait_for("they are shipped", lambda: shipped(house, kept[-1]), 20)
    ask(sdk, user="dave")  # this one is in the journal still
    done = house.cli("traffic", "forget", "--unit", "dave")
    assert done.returncode == 0, done.stderr
    assert told(house, "ls", "--unit", "dave")["data"] == []
    assert len(told(house, "ls", "--unit", "erin")["data"]) == 1
    wait_for("it is erased", lambda: told(house, "forgotten")[0]["erased_at"], 60)
    assert told(house, "forgotten")[0]["rows_erased"] >= 2
    assert [shipped(house, id) for id in kept] == [0, 1, 0]
    for folder in ("journal", "lake"):
        files = [path for path in (house.state / folder).rglob("*") if path.is_file()]
        assert files and not [path for path in files if b"dave" in path.read_bytes()]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "chatcmpl-nothing"), "is remembered"),
        (("ls", "--after", "garbage"), "no cursor"),
        (("ls", "--since", "yesterday"), "is no time"),
        (("policy", "set", "--capture", "off"), "--route ROUTE or --key"),
        (("policy", "set", "--route", "x", "--sample", "2"), "0<=x<=1"),
    ],
)
def test_mistakes_are_told(house: House, words: tuple[str, ...], says: str) -> None:
    done = house.cli("traffic", *words)
    assert done.returncode != 0 and says in done.stderr


def test_the_gateway_killed_under_load_loses_nothing_older_than_a_tenth_of_a_second(
    tiny_base: Path, tmp_path: Path
) -> None:
    answered: list[tuple[float, str]] = []
    over = threading.Event()

    def keep_asking(house: House) -> None:
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as sdk:
            while not over.is_set():
                try:
                    id = ask(sdk, "tiny")
                except openai.OpenAIError:
                    return
                answered.append((time.monotonic(), id))

    with Fake() as fake:
        house = House(tmp_path, tiny_base, before([fake], **SETTINGS))
        for _ in range(2):
            house.start()
            wait_for("it serves", lambda: ["serving"] == [each["status"] for each in house.fleet()])
            over.clear()
            clients = [threading.Thread(target=keep_asking, args=(house,)) for _ in range(4)]
            for each in clients:
                each.start()
            time.sleep(1.5)
            killed = time.monotonic()
            house.kill()
            over.set()
            for each in clients:
                each.join()
            answered[:] = [each for each in answered if each[0] < killed - 0.1]
        house.start()
        wait_for("all are shipped", lambda: shipped(house, answered[-1][1]), 30)
        rows = lake(house).query("SELECT id, count(*) AS n FROM lake GROUP BY id").read_all()
        counts = dict(zip(rows.column("id").to_pylist(), rows.column("n").to_pylist(), strict=True))
        house.stop()
    assert len(answered) > 50
    assert {counts.get(bare(id)) for _, id in answered} == {1}
    assert set(counts.values()) == {1}
