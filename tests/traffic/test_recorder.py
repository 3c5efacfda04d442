"""What is over is written down some at a time, and nothing of it is lost or changed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from gateway.traffic.policy import Policy
from gateway.traffic.record import FULL, METADATA, Exchanged, decode
from gateway.traffic.recorder import GATHER_S, GATHERED, TOGETHER_BYTES, Recorder


class Journal:
    def __init__(self) -> None:
        self.records: list[Exchanged] = []
        self.payloads = 0

    def append(self, payload: bytes, records: int = 1) -> bool:
        found = decode(payload)
        assert len(found) == records
        self.records += found
        self.payloads += 1
        return True


class Key:
    id, tenant = "key_1", "acme"


class Policies:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def of(self, route: str, key: str) -> Policy:
        return self._policy


class Exchange:
    """As `gateway.api.exchange` leaves it when it is over."""

    def __init__(self, id: str) -> None:
        self.id, self.path, self.route, self.version = id, "/v1/chat/completions", "support", "support@1"
        self.engine, self.unit, self.status, self.outcome = ("http://e", 2), b"user-1", 200, "ok"
        self.error: str | None = None
        self.streaming, self.loaded_s, self.sent_bytes = False, None, 5
        self.began = time.monotonic() - 0.5
        self.ready, self.first, self.ended = self.began + 0.1, self.began + 0.2, self.began + 0.4
        self.body = self.request = b'{"model": "support"}'
        self.kept: list[bytes] | None = None
        self.memory: Any = None


def recorder(policy: Policy) -> tuple[Recorder, Journal, list[Exchanged]]:
    journal, cleaned = Journal(), list[Exchanged]()
    made = Recorder(journal, Policies(policy), "base", cleaned.append)  # type: ignore[arg-type]
    return made, journal, cleaned


def over(recorder: Recorder, id: str) -> Exchange:
    exchange = Exchange(id)
    recorder.begin(exchange, "support", Key(), {})  # type: ignore[arg-type]
    if exchange.kept is not None:
        exchange.kept += [b"he", b"llo"]
    recorder.ended(exchange)  # type: ignore[arg-type]
    return exchange


async def test_one_that_is_alone_is_written_down_after_a_moment() -> None:
    made, journal, _ = recorder(Policy(consent="contract"))
    exchange = over(made, "a")
    assert journal.records == []
    await asyncio.sleep(GATHER_S * 4)
    (record,) = journal.records
    assert (record.id, record.answer, record.request) == ("a", b"hello", b'{"model": "support"}')
    assert (record.tenant, record.key, record.unit) == ("acme", "key_1", "user-1")
    assert (record.engine, record.level, record.consent) == ("http://e:2", FULL, "contract")
    assert abs(record.at - (time.time() - 0.5)) < 0.3
    assert [round(each or 0, 3) for each in (record.ready_s, record.first_s, record.ended_s)] == [
        0.1,
        0.2,
        0.4,
    ]
    assert exchange.memory is None and exchange.kept is None and exchange.request == b""


async def test_many_are_written_down_at_once_each_once_and_in_order() -> None:
    made, journal, _ = recorder(Policy())
    wanted = [str(number) for number in range(3 * GATHERED + 5)]
    for id in wanted:
        over(made, id)
    assert [record.id for record in journal.records] == wanted[: 3 * GATHERED]
    made.write_down()
    await asyncio.sleep(GATHER_S * 4)
    assert [record.id for record in journal.records] == wanted
    assert journal.payloads == 4


async def test_long_ones_are_handed_over_by_fewer() -> None:
    made, journal, _ = recorder(Policy())
    for id, length in (("a", 10), ("b", TOGETHER_BYTES), ("c", 10)):
        exchange = Exchange(id)
        exchange.body = b"x" * length
        made.begin(exchange, "support", Key(), {})  # type: ignore[arg-type]
        made.ended(exchange)  # type: ignore[arg-type]
    made.write_down()
    assert ([record.id for record in journal.records], journal.payloads) == (["a", "b", "c"], 3)


async def test_what_is_not_to_be_kept_whole_is_cleaned_first() -> None:
    made, journal, cleaned = recorder(Policy(capture="metadata"))
    over(made, "a")
    made.write_down()
    assert journal.records == []
    assert [(record.id, record.level) for record in cleaned] == [("a", METADATA)]


async def test_what_is_not_to_be_remembered_is_not() -> None:
    made, journal, cleaned = recorder(Policy(capture="off"))
    assert over(made, "a").memory is None
    made.write_down()
    assert journal.records == [] and cleaned == []
