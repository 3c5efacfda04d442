"""Stored completions on a real lake, journal and Postgres: what is there, for whom, in OpenAI's shape."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.db import Database
from gateway.errors import BadRequest, GatewayError, NotFound, TooLarge, Unavailable
from gateway.requestid import when
from gateway.settings import Settings, TrafficSettings
from gateway.traffic import stored as stored_module
from gateway.traffic.amendments import Amendments, drop_expired
from gateway.traffic.cleaner import cleaned
from gateway.traffic.eraser import Eraser
from gateway.traffic.forgetting import Forgetting
from gateway.traffic.journal import Journal
from gateway.traffic.lake import Lake, batch_of
from gateway.traffic.policy import Policies, Policy, Rule
from gateway.traffic.query import Forgotten, Wanted
from gateway.traffic.read import Question, answer
from gateway.traffic.readers import Readers
from gateway.traffic.record import METADATA, Exchanged, encode
from gateway.traffic.row import row_of
from gateway.traffic.stored import Page, StoredCompletions
from tests.traffic.records import record

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Where is it?"}], "name": "al"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function"}]},
]


@dataclass
class Key:
    id: str = "key_1"
    tenant: str = "default"


def asked(store: Any = True, **more: Any) -> bytes:
    return json.dumps({"model": "support", "messages": MESSAGES, "store": store, **more}).encode()


def of(request: bytes | None = None, **changes: Any) -> Exchanged:
    """A stored exchange, asked when its id says."""
    made = record(1, request=asked() if request is None else request, **changes)
    return msgspec.structs.replace(made, at=when(made.id).timestamp())


class Place:
    """`now` is what is forgotten, by a reader in this process."""

    def __init__(self, folder: Path, db: Database) -> None:
        self.folder = folder
        self.lake = Lake(str(folder / "lake"))
        self.engine = db.engine
        self.forgetting = Forgetting(db.engine, b"s" * 32)
        self.policies = Policies(db.engine, Policy())
        self.amendments = Amendments(db.engine)
        self.stored = StoredCompletions(self, self.forgetting, self.policies, self.amendments)
        self.questions = 0
        self._writers = 0

    async def ask(
        self, operation: str, wanted: Wanted, forgotten: Sequence[Forgotten]
    ) -> AsyncIterator[bytes]:
        self.questions += 1
        journal = str(self.folder / "journal")
        for piece in answer(Question(operation, wanted, self.lake.uri, journal, {}, tuple(forgotten))):
            yield piece

    def ship(self, *records: Exchanged) -> None:
        self._writers += 1
        self.lake.append([batch_of([row_of(each) for each in records])], f"writer-{self._writers}", 1)

    def journal(self, *records: Exchanged) -> None:
        writer = Journal(self.folder / "journal")
        writer.start()
        for each in records:
            writer.append(encode(each))
        writer.stop()

    async def ids(self, part: Page = Page(limit=100), key: Key = Key(), **how: Any) -> list[str]:  # noqa: B008
        told = json.loads(await self.stored.list(key, part, **how))
        return [bare(each["id"]) for each in told["data"]]

    async def paged(self, limit: int, *, oldest_first: bool = True, **how: Any) -> list[list[str]]:
        """Every page, as the SDK asks for them."""
        pages: list[list[str]] = []
        after = None
        while True:
            told = json.loads(await self.stored.list(Key(), Page(after, limit, oldest_first), **how))
            pages.append([bare(each["id"]) for each in told["data"]])
            assert (told["first_id"], told["last_id"]) == (told["data"][0]["id"], told["data"][-1]["id"])
            if not told["has_more"]:
                return pages
            after = told["last_id"]


def joined(pages: list[list[str]]) -> list[str]:
    return [id for page in pages for id in page]


def bare(id: str) -> str:
    assert id.startswith("chatcmpl-")
    return id.removeprefix("chatcmpl-")


@pytest.fixture
def place(tmp_path: Path, db: Database) -> Place:
    (tmp_path / "journal").mkdir()
    return Place(tmp_path, db)


async def test_a_completion_is_as_it_was_answered(place: Place) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    given = of(asked(temperature=0.5, seed=7, user="al", tools=tools, metadata={"ticket": "7"}))
    place.ship(given)
    told = json.loads(await place.stored.retrieve(Key(), f"chatcmpl-{given.id}"))
    message = {"role": "assistant", "content": "answer 1"}
    assert told == {
        "id": f"chatcmpl-{given.id}",
        "object": "chat.completion",
        "created": int(given.at),
        "model": "support@3f9c2ab71e04",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
        "metadata": {"ticket": "7"},
        "request_id": given.id,
        "input_user": "al",
        "tools": tools,
        "temperature": 0.5,
        "top_p": None,
        "seed": 7,
        "presence_penalty": None,
        "frequency_penalty": None,
        "response_format": None,
        "tool_choice": None,
    }
    assert json.loads(await place.stored.list(Key(), Page()))["data"] == [told]


async def test_tokens_that_nobody_counted_are_no_usage(place: Place) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    given = of(streaming=True, answer=f"data: {json.dumps(chunk)}\n\n".encode(), sent_bytes=1)
    place.ship(given)
    told = json.loads(await place.stored.retrieve(Key(), given.id))
    assert told["usage"] is None and told["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize(
    "other",
    [
        of(asked(False)),
        of(asked(None)),
        of(asked("true")),
        of(json.dumps({"messages": [], "response_format": {"store": True}}).encode()),
        of(asked(None, response_format={"store": True})),
        of(path="/v1/responses"),
        of(error="queue_full", status=429),
        of(outcome="client_left"),
        of(level=METADATA, cleaned=True, request=b"", answer=b""),
        of(sent_bytes=9_000_000),
        of(answer=b'{"choices": []}'),
        of(tenant="acme"),
    ],
    ids=lambda other: other.path,
)
async def test_only_what_was_stored_went_well_and_is_whole_is_there(place: Place, other: Exchanged) -> None:
    given = of()
    place.ship(given, other)
    assert [given.id] == await place.ids()
    for call in (place.stored.retrieve, place.stored.delete):
        with pytest.raises(NotFound) as refused:
            await call(Key(), f"chatcmpl-{other.id}")
        assert (refused.value.code, refused.value.param) == ("completion_not_found", "completion_id")


@pytest.mark.parametrize(
    "id", ["chatcmpl-" + "0" * 32, "nonsense", "", "' OR ''='", "f" * 12 + "7" + "0" * 19]
)
async def test_an_unknown_id_is_told_as_another_tenants_is(place: Place, id: str) -> None:
    foreign = of(tenant="acme")
    place.ship(foreign)
    with pytest.raises(NotFound) as unknown:
        await place.stored.retrieve(Key(), id)
    with pytest.raises(NotFound) as others:
        await place.stored.retrieve(Key(), foreign.id)
    assert unknown.value.message == others.value.message.replace(repr(foreign.id), repr(id[:64]))


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_follow_each_other_both_ways(place: Place, limit: int) -> None:
    given = sorted((of() for _ in range(7)), key=lambda each: each.id)
    place.ship(*given[3:5], given[0])
    place.journal(*given[1:3], *given[5:])
    ids = [each.id for each in given]
    pages = await place.paged(limit)
    assert joined(pages) == ids and len(pages) == -(-7 // limit)
    assert joined(await place.paged(limit, oldest_first=False)) == ids[::-1]


async def test_a_page_goes_on_after_one_that_was_deleted(place: Place) -> None:
    first, second = sorted((of(), of()), key=lambda each: each.id)
    place.ship(first, second)
    await place.stored.delete(Key(), first.id)
    assert [second.id] == await place.ids(Page(after=f"chatcmpl-{first.id}"))


async def test_a_page_that_has_grown_too_long_ends_early(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = sorted((of() for _ in range(4)), key=lambda each: each.id)
    place.ship(*given)
    monkeypatch.setattr("gateway.traffic.reader.PAGE_BYTES", 10)
    monkeypatch.setattr(stored_module, "PAGE_BYTES", 10)
    assert [[each.id] for each in given] == await place.paged(3)


async def test_they_are_found_by_model_and_metadata(place: Place) -> None:
    one = of(asked(metadata={"ticket": "7", "team": "é\"'"}))
    two = of(asked(metadata={"ticket": "8"}), version="support@000000000000")
    three = of(asked(metadata="7"), route="other", version="other@1")
    four = of(asked(metadata={"inner": {"ticket": "7"}}), route="tiny", version="tiny")
    place.ship(one, two, three, four)
    assert {one.id, two.id} == set(await place.ids(model="support"))
    assert [two.id] == await place.ids(model="support@000000000000")
    assert [four.id] == await place.ids(model="tiny")
    assert [one.id] == await place.ids(metadata={"ticket": "7"})
    assert [one.id] == await place.ids(metadata={"ticket": "7", "team": "é\"'"})
    assert [] == await place.ids(metadata={"ticket": "7", "team": "x"})
    assert [] == await place.ids(metadata={"ticket": "7"}, model="other")


async def test_metadata_is_what_was_said_last(place: Place) -> None:
    given = of(asked(metadata={"ticket": "7"}))
    place.ship(given)
    told = json.loads(await place.stored.update(Key(), given.id, b'{"metadata": {"state": "open"}}'))
    assert told["metadata"] == {"state": "open"} and told["choices"]
    assert told == json.loads(await place.stored.retrieve(Key(), given.id))
    assert [given.id] == await place.ids(metadata={"state": "open"})
    assert [] == await place.ids(metadata={"ticket": "7"})
    await place.stored.update(Key(), given.id, b'{"metadata": null}')
    assert json.loads(await place.stored.retrieve(Key(), given.id))["metadata"] == {}
    assert [] == await place.ids(metadata={"state": "open"})


def number_of(given: Exchanged) -> str:
    number: str = json.loads(given.request)["metadata"]["n"]
    return number


@pytest.mark.parametrize("amended", [1000, 2])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_by_metadata_know_what_was_changed(
    place: Place, monkeypatch: pytest.MonkeyPatch, amended: int, limit: int
) -> None:
    """Also where more was changed than fits into one question, some of it of exchanges that are gone."""
    monkeypatch.setattr(stored_module, "AMENDED", amended)
    given = sorted((of(asked(metadata={"n": str(n % 2)})) for n in range(12)), key=lambda each: each.id)
    place.ship(*given)
    tomorrow = date.today() + timedelta(days=1)
    for n, each in enumerate(given):
        if n % 3 == 0:  # those that were even are not, and the other way round
            now = "0" if number_of(each) == "1" else "1"
            await place.amendments.put(each.id, "default", {"n": now}, tomorrow)
    for _ in range(5):
        await place.amendments.put(of().id, "default", {"n": "1"}, tomorrow)
    meant = [each.id for n, each in enumerate(given) if (number_of(each) == "1") != (n % 3 == 0)]
    assert joined(await place.paged(limit, metadata={"n": "1"})) == meant
    assert joined(await place.paged(limit, metadata={"n": "1"}, oldest_first=False)) == meant[::-1]


async def test_on_a_strict_route_metadata_is_redacted(place: Place) -> None:
    given = cleaned(of(asked(user="jane-doe"), redacted=True), b"s" * 32)
    place.ship(given)
    told = json.loads(await place.stored.update(Key(), given.id, b'{"metadata": {"of": "bob@example.com"}}'))
    assert told["metadata"] == {"of": "[EMAIL]"} and told["input_user"].startswith("h:")
    assert await place.amendments.of([given.id]) == {given.id: {"of": "[EMAIL]"}}


def metadata(**pairs: Any) -> bytes:
    return json.dumps({"metadata": pairs}).encode()


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        (b"", BadRequest, None),
        (b"[]", BadRequest, "metadata"),
        (b"{}", BadRequest, "metadata"),
        (b'{"metadata": []}', BadRequest, "metadata"),
        (b'{"metadata": "\xff"}', BadRequest, None),
        (b'{"metadata": {}, "model": "x"}', BadRequest, "model"),
        (metadata(n=1), BadRequest, "metadata"),
        (metadata(n=None), BadRequest, "metadata"),
        (metadata(n="x" * 513), BadRequest, "metadata"),
        (metadata(n="a\0b"), BadRequest, "metadata"),
        (metadata(**{"k" * 65: ""}), BadRequest, "metadata"),
        (metadata(**{"": ""}), BadRequest, "metadata"),
        (metadata(**{str(n): "" for n in range(17)}), BadRequest, "metadata"),
        (metadata(n="x" * 200_000), TooLarge, None),
    ],
)
async def test_an_update_that_cannot_be_taken_is_told(
    place: Place, body: bytes, kind: type[GatewayError], param: str | None
) -> None:
    given = of(asked(metadata={"ticket": "7"}))
    place.ship(given)
    with pytest.raises(kind) as refused:
        await place.stored.update(Key(), given.id, body)
    assert refused.value.param == param
    assert json.loads(await place.stored.retrieve(Key(), given.id))["metadata"] == {"ticket": "7"}


async def test_the_most_that_metadata_may_be_is_taken(place: Place) -> None:
    given = of()
    place.ship(given)
    most = {f"{n:064}": "😀" * 512 for n in range(16)}
    await place.stored.update(Key(), given.id, metadata(**most))
    assert json.loads(await place.stored.retrieve(Key(), given.id))["metadata"] == most


async def test_messages_are_what_was_asked_with(place: Place) -> None:
    given = of()
    place.ship(given)
    told = json.loads(await place.stored.messages(Key(), given.id, Page()))
    ids = [f"chatcmpl-{given.id}-{n}" for n in range(3)]
    assert told["data"] == [
        {"id": ids[0], "role": "system", "content": "Be brief.", "name": None, "content_parts": None},
        {
            "id": ids[1],
            "role": "user",
            "content": None,
            "name": "al",
            "content_parts": MESSAGES[1]["content"],
        },
        {"id": ids[2], **MESSAGES[2], "name": None, "content_parts": None},
    ]
    assert (told["first_id"], told["last_id"], told["has_more"]) == (ids[0], ids[2], False)

    async def page(*part: Any) -> tuple[list[str], bool]:
        told = json.loads(await place.stored.messages(Key(), given.id, Page(*part)))
        return [each["id"] for each in told["data"]], told["has_more"]

    assert (ids[:2], True) == await page(None, 2)
    assert (ids[2:], False) == await page(ids[1], 2)
    assert ([ids[2]], True) == await page(None, 1, False)
    assert ([ids[1], ids[0]], False) == await page(ids[2], 2, False)
    assert ([], False) == await page(ids[2], 2)
    for other in ("x", f"chatcmpl-{given.id}-3", ids[0].replace("-0", "-00")):
        with pytest.raises(BadRequest) as refused:
            await page(other, 2)
        assert refused.value.param == "after"


async def test_what_is_deleted_is_gone_at_once_and_then_erased(place: Place, db: Database) -> None:
    given, other = of(), of()
    place.ship(given, other)
    for each in (given, other):
        await place.stored.update(Key(), each.id, metadata(ticket="7"))
    told = json.loads(await place.stored.delete(Key(), f"chatcmpl-{given.id}"))
    assert told == {"id": f"chatcmpl-{given.id}", "object": "chat.completion.deleted", "deleted": True}
    for call in (place.stored.retrieve, place.stored.delete):
        with pytest.raises(NotFound):
            await call(Key(), given.id)
    with pytest.raises(NotFound):
        await place.stored.update(Key(), given.id, metadata(ticket="8"))
    assert [other.id] == await place.ids() == await place.ids(metadata={"ticket": "7"})
    engine = create_engine(db.url)
    try:
        assert Eraser(place.folder / "journal", place.lake, engine, readers_s=0).erase() == 1
    finally:
        engine.dispose()
    assert list(await place.amendments.of([given.id, other.id])) == [other.id]


async def test_metadata_goes_on_the_day_on_which_its_exchange_does(place: Place, db: Database) -> None:
    given = of(keep_days=7)
    place.ship(given)
    await place.stored.update(Key(), given.id, metadata(ticket="7"))
    day = when(given.id).date() + timedelta(days=7)
    async with db.engine.begin() as connection:
        await connection.run_sync(drop_expired, day)
    assert await place.amendments.of([given.id]) != {}
    async with db.engine.begin() as connection:
        await connection.run_sync(drop_expired, day + timedelta(days=1))
    assert place.lake.drop_expired(day) == [] != place.lake.drop_expired(day + timedelta(days=1))
    assert await place.amendments.of([given.id]) == {}


async def test_an_empty_list_says_when_nothing_is_remembered(place: Place) -> None:
    assert [] == await place.ids()
    await place.policies.put(Rule("key", "key_1", capture="metadata"))
    with pytest.raises(NotFound) as refused:
        await place.ids()
    assert refused.value.code == "not_remembered" and "traffic policy" in refused.value.message
    assert [] == await place.ids(key=Key("key_2"))
    await place.policies.put(Rule("route", "quiet", capture="off"))
    with pytest.raises(NotFound):
        await place.ids(key=Key("key_2"), model="quiet@v1")
    place.ship(given := of())  # from before
    assert [given.id] == await place.ids()


async def test_a_route_may_be_remembered_where_others_are_not(place: Place, db: Database) -> None:
    policies = Policies(db.engine, Policy(capture="off"))
    assert not policies.keeps_words("key_1")
    await policies.put(Rule("route", "support", capture="full"))
    assert policies.keeps_words("key_1") and policies.keeps_words("key_1", "support")
    assert not policies.keeps_words("key_1", "other")
    await policies.put(Rule("key", "key_1", sample=0.0))
    assert not policies.keeps_words("key_1")


@pytest.mark.parametrize("after", ["x", "chatcmpl-x", "1795000000000000-abc"])
async def test_a_list_goes_on_after_a_completion_only(place: Place, after: str) -> None:
    with pytest.raises(BadRequest) as refused:
        await place.ids(Page(after=after))
    assert refused.value.param == "after"


async def test_a_filter_that_no_metadata_could_fit_is_told(place: Place) -> None:
    with pytest.raises(BadRequest) as refused:
        await place.ids(metadata={"k": "x" * 513})
    assert refused.value.param == "metadata"


async def test_without_a_lake_it_says_what_is_missing(place: Place) -> None:
    nothing = Readers(Settings(state_dir=place.folder, traffic=TrafficSettings(lake="off")))
    stored = StoredCompletions(nothing, place.forgetting, place.policies, place.amendments)
    for call in (stored.list(Key(), Page()), stored.retrieve(Key(), of().id)):
        with pytest.raises(NotFound, match="hotswap\\[lake\\]") as refused:
            await call
        assert refused.value.code == "no_lake"


async def test_while_the_database_is_away_it_says_so(place: Place, db: Database) -> None:
    given = of()
    place.ship(given)
    away = create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    forgetting = Forgetting(away, b"s" * 32)
    stored = StoredCompletions(place, forgetting, place.policies, Amendments(away))
    calls: list[Any] = [
        stored.list(Key(), Page()),
        stored.list(Key(), Page(), None, {"ticket": "7"}),
        stored.retrieve(Key(), given.id),
        stored.update(Key(), given.id, metadata(ticket="7")),
        stored.delete(Key(), given.id),
        StoredCompletions(place, forgetting, place.policies, place.amendments).delete(Key(), given.id),
    ]
    for call in calls:
        with pytest.raises(Unavailable) as refused:
            await call
        assert refused.value.code == "database_unavailable"
    async with db.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM traffic_metadata")) == 0
