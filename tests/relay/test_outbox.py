"""Writes of one turn of the loop: together when there are many, at once when few, always in order."""

from __future__ import annotations

import asyncio

import pytest

from gateway.relay import Outbox
from gateway.relay.outbox import FEW


class Transport:
    """Remembers what was written to it, and when in the turn."""

    def __init__(self, log: list[tuple[str, bytes]], name: str = "a") -> None:
        self._log = log
        self._name = name
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing, "uvloop raises here"
        self._log.append((self._name, data))

    def is_closing(self) -> bool:
        return self.closing


@pytest.fixture
def log() -> list[tuple[str, bytes]]:
    return []


def busy() -> Outbox:
    outbox = Outbox()
    outbox.in_flight = FEW + 1
    return outbox


async def test_with_few_in_flight_a_write_is_sent_at_once(log: list[tuple[str, bytes]]) -> None:
    outbox = Outbox()
    outbox.in_flight = FEW
    outbox.write(Transport(log), b"1")
    assert [("a", b"1")] == log


async def test_with_many_in_flight_writes_go_out_together_in_order(log: list[tuple[str, bytes]]) -> None:
    outbox = busy()
    a, b = Transport(log, "a"), Transport(log, "b")
    outbox.write(a, b"1")
    outbox.write(b, b"2")
    outbox.in_flight = 0  # what was begun together is sent together
    outbox.write(a, b"3")
    assert [] == log
    await asyncio.sleep(0)
    assert [("a", b"1"), ("b", b"2"), ("a", b"3")] == log


async def test_a_write_that_cannot_wait_does_not_overtake_those_that_do(log: list[tuple[str, bytes]]) -> None:
    outbox = busy()
    transport = Transport(log)
    outbox.write(transport, b"1")
    outbox.write_now(transport, b"2")
    assert [("a", b"1"), ("a", b"2")] == log
    await asyncio.sleep(0)
    assert 2 == len(log)


async def test_who_left_within_the_turn_does_not_keep_the_others_from_theirs(
    log: list[tuple[str, bytes]],
) -> None:
    outbox = busy()
    gone, here = Transport(log, "gone"), Transport(log, "here")
    outbox.write(gone, b"1")
    outbox.write(here, b"2")
    gone.closing = True
    await asyncio.sleep(0)
    assert [("here", b"2")] == log


async def test_the_next_turn_begins_anew(log: list[tuple[str, bytes]]) -> None:
    outbox = busy()
    transport = Transport(log)
    for number in (b"1", b"2"):
        outbox.write(transport, number)
        await asyncio.sleep(0)
    assert [("a", b"1"), ("a", b"2")] == log
