"""A request whose engine fails it before the first byte goes to another one, and not without end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.fleet.fake_engine import FakeEngine
from tests.api.conftest import ENGINE_KEY, VERSION, Service, running
from tests.relay.serving import serving


@dataclass
class Two:
    """A service before two engines; requests go to `first` unless something keeps them away."""

    service: Service
    first: FakeEngine
    second: FakeEngine
    ports: tuple[int, int]


@asynccontextmanager
async def two_engines(begin_s: float = 30.0, stall_s: float = 30.0) -> AsyncIterator[Two]:
    second = FakeEngine(model="base", key=ENGINE_KEY)
    second.loras.paths[VERSION] = "/somewhere"
    async with running(begin_s=begin_s, stall_s=stall_s) as service, serving(second) as port:
        (first_port,) = service.fleet.ports
        service.fleet.ports.append(port)
        service.fleet.always_first = True
        yield Two(service, service.engine, second, (first_port, port))


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    async with two_engines() as started:
        yield started


async def test_an_engine_that_is_not_there_costs_nobody_an_answer(two: Two) -> None:
    gone = 1  # nobody listens on port 1
    two.service.fleet.ports[0] = gone
    answer = await two.service.chat()
    assert 200 == answer.status_code
    assert [(str(gone), True)] == [(engine, fatal) for engine, _, fatal in two.service.fleet.failures]
    assert [str(two.ports[1])] == two.service.fleet.answered


async def test_moving_away_from_a_dead_engine_costs_no_budget(two: Two) -> None:
    two.service.fleet.ports[0] = 1
    two.service.spend_retries()
    assert 200 == (await two.service.chat()).status_code


async def test_an_engine_that_answers_500_is_blamed_when_another_can_answer(two: Two) -> None:
    two.first.faults.fail_next = 1
    assert 200 == (await two.service.chat()).status_code
    ((engine, reason, fatal),) = two.service.fleet.failures
    assert (str(two.ports[0]), False) == (engine, fatal)
    assert "500" in reason


async def test_a_request_that_every_engine_answers_with_500_is_to_blame_itself(two: Two) -> None:
    two.first.faults.fail_next = two.second.faults.fail_next = 1
    answer = await two.service.chat()
    assert 500 == answer.status_code
    assert [] == two.service.fleet.failures


async def test_without_budget_a_500_is_the_answer(two: Two) -> None:
    two.service.spend_retries()
    two.first.faults.fail_next = 1
    assert 500 == (await two.service.chat()).status_code
    assert 0 == two.second.served


async def test_a_bad_request_is_not_tried_again(two: Two) -> None:
    answer = await two.service.chat(temperature=-1)
    assert 400 == answer.status_code
    assert 0 == len(two.second.seen)


async def test_garbage_is_a_failure_of_the_engine_and_another_answers(two: Two) -> None:
    two.first.faults.garbage = "bytes"
    assert 200 == (await two.service.chat()).status_code
    assert [str(two.ports[0])] == [engine for engine, *_ in two.service.fleet.failures]


async def test_a_shut_door_sends_the_request_back_to_the_front_of_its_queue(two: Two) -> None:
    two.service.fleet.always_first = False  # so that the second turn is at the other engine
    for number in range(8):  # another gateway's adapters
        assert two.first.plugin.admission.enter(f"other-{number}@0123456789ab") is None
    answer = await two.service.chat(model="support")
    assert 200 == answer.status_code
    (wait,) = two.service.fleet.waits
    assert wait["again"] and wait["since"] is not None
    assert 1 == two.service.fleet.refused
    assert 0 == two.service.fleet.held


async def test_an_answer_that_breaks_off_is_a_failure_of_its_engine(two: Two) -> None:
    two.first.faults.die_after_chunks = 2
    answer = await two.service.chat(stream=True)
    assert "engine_lost" in answer.text
    assert "[DONE]" not in answer.text
    assert [str(two.ports[0])] == [engine for engine, *_ in two.service.fleet.failures]
    assert 0 == two.second.served


async def test_an_engine_that_hangs_is_given_up_and_another_answers() -> None:
    async with two_engines(begin_s=0.5) as two:
        two.first.faults.hang = True
        answer = await two.service.chat()
    assert 200 == answer.status_code
    ((engine, reason, _),) = two.service.fleet.failures
    assert str(two.ports[0]) == engine
    assert "did not begin an answer within 0.5 s" in reason


async def test_when_every_engine_is_gone_the_client_is_told_to_come_again(two: Two) -> None:
    two.service.fleet.ports[:] = [1, 2]
    answer = await two.service.chat()
    assert 503 == answer.status_code
    assert int(answer.headers["retry-after"]) >= 1
    assert 0 == two.service.fleet.held


async def test_an_engine_that_hangs_after_its_head_is_given_up_and_another_answers() -> None:
    async with two_engines(stall_s=0.5) as two:
        two.first.faults.hang_after_head = True
        answer = await two.service.chat(stream=True)
    assert "[DONE]" in answer.text
    ((_, reason, _),) = two.service.fleet.failures
    assert "added nothing to its answer within 0.5 s" in reason


async def test_half_a_chunk_ends_a_stream_with_an_error_event_and_counts(two: Two) -> None:
    two.first.faults.half_chunk = 2
    answer = await two.service.chat(stream=True)
    assert "engine_lost" in answer.text
    assert "[DONE]" not in answer.text
    assert 1 == len(two.service.fleet.failures)


async def test_a_web_page_is_no_answer(two: Two) -> None:
    two.first.faults.garbage = "html"
    answer = await two.service.chat()
    assert "application/json" == answer.headers["content-type"]
    ((_, reason, _),) = two.service.fleet.failures
    assert "text/html" in reason
