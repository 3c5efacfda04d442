"""Feedback on a real Postgres: amended, said once, and refused with a clear answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.db import Database
from gateway.errors import BadRequest, GatewayError, NotFound, TooLarge, Unavailable
from gateway.traffic.feedback import Feedback, Opinions, bare

ID = "01a20e09119b74edaa8a6546182c7f8d"


@dataclass
class Key:
    id: str = "key_1"
    tenant: str = "default"


REMEMBERED = {
    ID: {"tenant": "default", "redacted": False, "route": "support", "version": "support@1"},
    "other": {"tenant": "default", "redacted": False, "route": "support", "version": "support@2"},
    "strict": {"tenant": "default", "redacted": True, "route": "strict", "version": "strict@1"},
}


async def find(id: str) -> Mapping[str, Any] | None:
    return REMEMBERED.get(id)


@pytest.fixture
def feedback(db: Database) -> Feedback:
    return Feedback(db.engine, find)


def body(**said: Any) -> bytes:
    return json.dumps({"id": f"chatcmpl-{ID}", **said}).encode()


async def test_what_was_said_holds_of_the_exchange(feedback: Feedback) -> None:
    done = await feedback.give(Key(), body(thumb="up", scores={"tone": 0.9}, tags=["kind"]))
    assert done["id"] == f"chatcmpl-{ID}" and done["repeated"] is False
    assert done["feedback"] == {"thumb": "up", "scores": {"tone": 0.9}, "tags": ["kind"]}
    assert await feedback.of([ID, "other"]) == {ID: done["feedback"]}


async def test_later_feedback_amends_field_by_field(feedback: Feedback) -> None:
    await feedback.give(Key(), body(thumb="up", scores={"tone": 0.9, "truth": 0.2}, tags=["kind"]))
    await feedback.give(
        Key(), body(scores={"truth": 0.8}, comment="on second thought", tags=["kind", "right"])
    )
    done = await feedback.give(Key(), body(thumb="down", correction="No."))
    assert done["feedback"] == {
        "thumb": "down",
        "scores": {"tone": 0.9, "truth": 0.8},
        "comment": "on second thought",
        "correction": "No.",
        "tags": ["kind", "right"],
    }


async def test_the_same_said_a_thousand_times_is_said_once(feedback: Feedback, db: Database) -> None:
    for number in range(1000):
        done = await feedback.give(Key(), body(thumb="up"))
        assert done["repeated"] is (number > 0)
    async with db.engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM traffic_feedback")).scalar_one() == 1


async def test_an_idempotency_key_makes_a_retry_harmless(feedback: Feedback) -> None:
    first = await feedback.give(Key(), body(thumb="up", idempotency_key="k1"))
    again = await feedback.give(Key(), body(thumb="down", idempotency_key="k1"))
    assert (first["repeated"], again["repeated"], again["feedback"]["thumb"]) == (False, True, "up")


async def test_exchanges_are_found_by_what_was_thought_of_them(feedback: Feedback) -> None:
    await feedback.give(Key(), body(thumb="up"))
    await feedback.give(Key(), json.dumps({"id": "other", "thumb": "down", "correction": "x"}).encode())
    assert await feedback.exchanges("up") == [ID]
    assert await feedback.exchanges("down") == await feedback.exchanges("corrected") == ["other"]
    assert await feedback.exchanges("any") == ["other", ID]
    with pytest.raises(BadRequest):
        await feedback.exchanges("sideways")


async def test_what_is_said_of_a_strict_route_is_redacted(feedback: Feedback) -> None:
    said = {"id": "strict", "comment": "mail bob@example.com", "correction": "call 4111 1111 1111 1111"}
    done = await feedback.give(Key(), json.dumps(said).encode())
    assert done["feedback"] == {"comment": "mail [EMAIL]", "correction": "call [CARD]"}


@pytest.mark.parametrize(
    ("given", "error", "param"),
    [
        (b"", BadRequest, None),
        (b"[]", BadRequest, None),
        (b"\xff", BadRequest, None),
        (body(), BadRequest, "thumb"),
        (body(thumb="sideways"), BadRequest, None),
        (body(scores={"tone": 1.5}), BadRequest, "scores"),
        (body(scores={"tone": -0.1}), BadRequest, "scores"),
        (b'{"id": "x", "scores": {"tone": 1e999}}', BadRequest, None),
        (body(scores={"": 0.5}), BadRequest, "scores"),
        (body(comment="x" * 10_001), BadRequest, "comment"),
        (body(comment="a\0b"), BadRequest, "comment"),
        (body(tags=["x" * 65]), BadRequest, "tags"),
        (body(tags=[str(number) for number in range(21)]), BadRequest, "tags"),
        (body(stars=5), BadRequest, None),
        (body(comment="x" * 1_000_000), TooLarge, None),
        (json.dumps({"id": "unknown", "thumb": "up"}).encode(), NotFound, "id"),
        (json.dumps({"id": "x" * 300, "thumb": "up"}).encode(), BadRequest, "id"),
    ],
)
async def test_mistakes_are_told(
    feedback: Feedback, given: bytes, error: type[GatewayError], param: str | None
) -> None:
    with pytest.raises(error) as refused:
        await feedback.give(Key(), given)
    assert refused.value.param == param
    assert await feedback.of([ID, "unknown"]) == {}


async def test_opinions_are_of_a_route_and_a_time_each_exchange_once(feedback: Feedback) -> None:
    began = datetime.now(UTC) - timedelta(seconds=5)
    await feedback.give(Key(), body(thumb="down"))
    await feedback.give(Key(), body(thumb="up"))  # on second thoughts
    await feedback.give(Key(), body(correction="so"))
    await feedback.give(Key(), json.dumps({"id": "other", "thumb": "down"}).encode())
    await feedback.give(Key(), json.dumps({"id": "strict", "thumb": "up"}).encode())
    now = datetime.now(UTC) + timedelta(seconds=5)
    assert await feedback.opinions("support", "default", began, now) == Opinions(1, 2, 1)
    assert await feedback.opinions("strict", "default", began, now) == Opinions(0, 1, 1)
    assert await feedback.opinions("support", "acme", began, now) == Opinions()
    assert await feedback.opinions("support", "default", now, now) == Opinions()


async def test_another_tenants_exchange_is_as_unknown_as_none(feedback: Feedback) -> None:
    with pytest.raises(NotFound) as foreign:
        await feedback.give(Key(tenant="acme"), body(thumb="up"))
    with pytest.raises(NotFound) as unknown:
        await feedback.give(Key(), json.dumps({"id": "unknown", "thumb": "up"}).encode())
    assert foreign.value.message.replace(f"chatcmpl-{ID}", "unknown") == unknown.value.message


async def test_while_the_database_is_away_it_says_so() -> None:
    away = Feedback(create_async_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing"), find)
    with pytest.raises(Unavailable):
        await away.give(Key(), body(thumb="up"))


@pytest.mark.parametrize("id", [f"chatcmpl-{ID}", f"cmpl-{ID}", f"resp_{ID}", ID])
def test_ids_of_all_endpoints_are_taken(id: str) -> None:
    assert bare(id) == ID
