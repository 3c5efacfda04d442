"""Engines are found by a list or by name, and no slip of a name server takes them away."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.client import Address
from gateway.fleet.discovery import Answers, Discovery, Removed, Source, name_of, resolve
from tests.fleet.conftest import until

NXDOMAIN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
SERVFAIL = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NAME = "dns://engines.svc:8000"
VANISHED = "vanished from DNS: engines.svc did not name it, 2 times in a row"

Answer = Sequence[str] | OSError


class Network:
    """A name server that answers from a script, a clock that waits for `step`, and who was told what."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.silent = asyncio.Event()
        self.silent.set()
        self.asked: list[tuple[str, int]] = []
        self.cancelled = 0
        self.naps: list[float] = []
        self.told: list[tuple[list[str], list[tuple[str, str]]]] = []
        self._waking: list[asyncio.Future[None]] = []

    async def resolve(self, host: str, port: int) -> Collection[str]:
        self.asked.append((host, port))
        try:
            await self.silent.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        answer = self.answers[host]
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        woken = asyncio.get_running_loop().create_future()
        self._waking.append(woken)
        await woken

    def on_change(self, added: list[Address], removed: list[Removed]) -> None:
        self.told.append(([name_of(each) for each in added], [(name_of(each), why) for each, why in removed]))

    async def rested(self, names: int = 1) -> None:
        """Until every name was looked up and waits for the next time."""
        await until("asleep", lambda: names == len(self._waking))

    async def step(self, answer: Answer, names: int = 1) -> None:
        """The next look-up of every name, which gets this answer."""
        await self.rested(names)
        self.answers = dict.fromkeys(self.answers, answer)
        waking, self._waking = self._waking, []
        for woken in waking:
            woken.set_result(None)
        await self.rested(names)


@pytest.fixture
def network() -> Network:
    return Network()


@asynccontextmanager
async def watching(network: Network, *urls: str, **more: Any) -> AsyncIterator[Discovery]:
    """A discovery that watches; the key of the n-th source is key-n."""
    sources = [Source.parse(url, f"key-{number}") for number, url in enumerate(urls)]
    for source in sources:
        network.answers.setdefault(source.host, [])
    found = Discovery(sources, network.on_change, resolve=network.resolve, sleep=network.sleep, **more)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.watch())
        yield found
        task.cancel()


async def test_fixed_engines_are_told_at_once_with_their_keys(network: Network) -> None:
    async with watching(network, "http://10.0.0.1:8000", "http://10.0.0.2:8001") as found:
        await until("told", lambda: bool(network.told))
        assert [(["10.0.0.1:8000", "10.0.0.2:8001"], [])] == network.told
        assert ["key-0", "key-1"] == [address.key for address in found.addresses]
    assert [] == network.asked


async def test_without_names_there_is_nothing_to_watch(network: Network) -> None:
    source = Source.parse("http://10.0.0.1:8000", None)
    async with asyncio.timeout(5):
        await Discovery([source], network.on_change, resolve=network.resolve).watch()


async def test_every_record_of_a_name_is_an_engine(network: Network) -> None:
    network.answers["engines.svc"] = ["10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2"]
    async with watching(network, NAME) as found:
        await network.rested()
        assert [(["10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8000"], [])] == network.told
        assert {"key-0"} == {address.key for address in found.addresses}
        assert [("engines.svc", 8000)] == network.asked
        assert [] == found.problems


async def test_a_name_is_looked_up_again_after_its_interval(network: Network) -> None:
    async with watching(network, NAME, interval_s=7.0):
        await network.step([])
        assert [7.0, 7.0] == network.naps


async def test_a_new_record_is_a_new_engine_at_once(network: Network) -> None:
    network.answers["engines.svc"] = ["10.0.0.1"]
    async with watching(network, NAME):
        await network.step(["10.0.0.1", "10.0.0.2"])
        assert (["10.0.0.2:8000"], []) == network.told[-1]


async def test_the_same_answer_again_changes_nothing(network: Network) -> None:
    network.answers["engines.svc"] = ["10.0.0.1", "10.0.0.2"]
    async with watching(network, NAME):
        await network.step(["10.0.0.2", "10.0.0.1"])
        assert 1 == len(network.told)


async def test_a_record_that_is_missing_once_takes_no_engine_away(network: Network) -> None:
    network.answers["engines.svc"] = ["10.0.0.1", "10.0.0.2"]
    async with watching(network, NAME):
        for answer in (["10.0.0.1"], ["10.0.0.2"], ["10.0.0.1"], ["10.0.0.2", "10.0.0.1"], []):
            await network.step(answer)
        assert 1 == len(network.told)


async def test_a_record_that_is_missing_twice_vanished(network: Network) -> None:
    network.answers["engines.svc"] = ["10.0.0.1", "10.0.0.2"]
    async with watching(network, NAME) as found:
        await network.step(["10.0.0.1"])
        assert 1 == len(network.told)
        await network.step(["10.0.0.1"])
        assert ([], [("10.0.0.2:8000", VANISHED)]) == network.told[-1]
        assert ["10.0.0.1:8000"] == [name_of(address) for address in found.addresses]


async def test_a_name_without_an_address_twice_has_no_engines(network: Network) -> None:
    network.answers["engines.svc"] = ["10.0.0.1"]
    async with watching(network, NAME) as found:
        await network.step([])
        assert 1 == len(network.told)
        await network.step([])
        assert ([], [("10.0.0.1:8000", VANISHED)]) == network.told[-1]
        assert [f"{NAME}: the name has no address"] == found.problems


async def test_an_engine_that_vanished_may_come_back(network: Network) -> None:
    network.answers["engines.svc"] = ["10.0.0.1"]
    async with watching(network, NAME):
        for answer in ([], [], ["10.0.0.1"]):
            await network.step(answer)
        assert (["10.0.0.1:8000"], []) == network.told[-1]


@pytest.mark.parametrize("failure", [NXDOMAIN, SERVFAIL, OSError("no route")])
async def test_a_look_up_that_fails_leaves_the_last_engines(network: Network, failure: OSError) -> None:
    network.answers["engines.svc"] = ["10.0.0.1"]
    async with watching(network, NAME) as found:
        for _ in range(5):
            await network.step(failure)
        assert 1 == len(network.told)
        why = failure.strerror or str(failure)
        assert [
            f"{NAME}: could not be looked up: {why}; the 1 engines of its last answer stay"
        ] == found.problems


async def test_a_look_up_that_fails_is_no_second_answer(network: Network) -> None:
    network.answers["engines.svc"] = ["10.0.0.1"]
    async with watching(network, NAME):
        for answer in ([], SERVFAIL, ["10.0.0.1"], [], SERVFAIL):
            await network.step(answer)
        assert 1 == len(network.told)
        await network.step([])
        assert [("10.0.0.1:8000", VANISHED)] == network.told[-1][1]


async def test_an_outage_is_logged_once_and_so_is_its_end(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    network.answers["engines.svc"] = NXDOMAIN
    with caplog.at_level(logging.INFO, "gateway.fleet.discovery"):
        async with watching(network, NAME):
            for answer in (NXDOMAIN, SERVFAIL, NXDOMAIN, ["10.0.0.1"], ["10.0.0.1"]):
                await network.step(answer)
    assert [
        f"{NAME}: could not be looked up: Name or service not known; it has no engine",
        f"{NAME}: resolves again, 1 addresses",
    ] == caplog.messages


async def test_a_look_up_that_hangs_fails_and_is_not_begun_a_second_time(network: Network) -> None:
    network.answers["engines.svc"] = ["10.0.0.1"]
    network.silent.clear()
    async with watching(network, NAME, timeout_s=0.01) as found:
        await network.step(["10.0.0.1"])
        await network.step(["10.0.0.1"])
        assert [
            f"{NAME}: could not be looked up: no answer within 0.01 s; it has no engine"
        ] == found.problems
        assert 1 == len(network.asked)
        network.silent.set()  # the late answer counts
        await network.step(["10.0.0.1"])
        assert [(["10.0.0.1:8000"], [])] == network.told
        await network.step(["10.0.0.1"])
        assert 2 == len(network.asked)


async def test_a_name_that_hangs_holds_up_no_other(network: Network) -> None:
    async def one_hangs(host: str, port: int) -> Collection[str]:
        return await network.resolve(host, port) if host == "slow.svc" else ["10.0.0.1"]

    network.silent.clear()
    sources = [Source.parse(f"dns://{name}.svc:8000", None) for name in ("slow", "quick")]
    found = Discovery(sources, network.on_change, resolve=one_hangs, sleep=network.sleep)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.watch())
        await until("the quick one is found", lambda: bool(network.told))
        task.cancel()


async def test_the_end_of_the_watch_ends_a_look_up(network: Network) -> None:
    network.silent.clear()
    async with watching(network, NAME):
        await until("asked", lambda: bool(network.asked))
    assert 1 == network.cancelled


async def test_an_engine_that_two_entries_name_is_one_until_both_have_lost_it(network: Network) -> None:
    network.answers = {"a.svc": ["10.0.0.1"], "b.svc": ["10.0.0.1"]}
    async with watching(network, "dns://a.svc:8000", "dns://b.svc:8000", "http://10.0.0.9:8000") as found:
        await network.rested(2)
        assert 1 == sum(name_of(address) == "10.0.0.1:8000" for address in found.addresses)
        told = len(network.told)
        await network.step([], names=2)
        assert told == len(network.told)
        await network.step([], names=2)
        assert ["10.0.0.9:8000"] == [name_of(address) for address in found.addresses]


async def test_an_engine_whose_first_entry_lost_it_goes_on_with_the_key_of_the_second(
    network: Network,
) -> None:
    network.answers = {"a.svc": ["10.0.0.1"]}
    async with watching(network, "dns://a.svc:8000", "http://10.0.0.1:8000") as found:
        await network.rested()
        assert ["key-0"] == [address.key for address in found.addresses]
        await network.step([])
        await network.step([])
        assert ["key-1"] == [address.key for address in found.addresses]
        added, removed = network.told[-1]
        assert (["10.0.0.1:8000"], ["10.0.0.1:8000"]) == (added, [name for name, _ in removed])


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("dns://engines.svc", "is not dns://name:port"),
        ("dns://:8000", "is not dns://name:port"),
        ("dns://engines.svc:0", "is not dns://name:port"),
        ("dns:///engines.svc:8000", "is not dns://name:port"),
        ("dns://engines.svc:8000/v1", "is not dns://name:port"),
        ("dns://engines.svc:8000?x=1", "is not dns://name:port"),
        ("dns://engines.svc:99999", "dns://engines.svc:99999.*Port out of range"),
        ("dns://engines..svc:8000", "dns://engines..svc:8000.*label"),
        (f"dns://{'x' * 64}.svc:8000", "label"),
        ("dns://user:secret@engines.svc:8000", "'dns://engines.svc:8000' has a user or password"),
        ("http://user:secret@10.0.0.1:8000", "'http://10.0.0.1:8000' has a user or password"),
        ("http://[::1:8000", r"engine url 'http://\[::1:8000': Invalid IPv6"),
        ("https://10.0.0.1:8000", "is not http://host:port"),
        ("10.0.0.1:8000", "is not http://host:port"),
        ("", "is not http://host:port"),
    ],
)
def test_what_is_no_address_and_no_name_is_refused_by_what_is_wrong_with_it(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as refused:
        Source.parse(url, None)
    assert "secret" not in str(refused.value)


def test_a_key_is_not_shown() -> None:
    assert "s3cret" not in repr(Source.parse(NAME, "s3cret"))


async def test_the_systems_resolver_finds_this_machine() -> None:
    assert "127.0.0.1" in await resolve("localhost", 8000)
    assert ["127.0.0.1"] == await resolve("127.0.0.1", 8000)


async def test_a_name_that_has_no_address_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_data(*question: object, **more: object) -> object:
        raise socket.gaierror(socket.EAI_NODATA, "No address associated with hostname")

    monkeypatch.setattr(socket, "getaddrinfo", no_data)
    assert [] == await resolve("engines.svc", 8000)


@pytest.mark.parametrize("failure", [NXDOMAIN, SERVFAIL])
async def test_a_name_that_is_not_there_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, failure: OSError
) -> None:
    def fails(*question: object, **more: object) -> object:
        raise failure

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(OSError, match=failure.strerror):
        await resolve("engines.svc", 8000)


async def test_a_resolver_that_hangs_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hangs(*question: object, **more: object) -> list[Any]:
        asked.set()
        assert answer.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 8000))]

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(resolve("engines.svc", 8000))
        await until("asked", asked.is_set)  # the loop runs on
        assert not looking.done()
        answer.set()
        assert ["10.0.0.1"] == await looking


HOSTS = st.frozensets(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]))


@settings(deadline=None)  # the machine may be busy
@given(st.lists(HOSTS, min_size=1, max_size=20))
def test_who_was_named_in_one_of_the_last_two_answers_is_there_and_nobody_else(
    said: list[frozenset[str]],
) -> None:
    answers = Answers()
    for hosts in said:
        answers.answered(hosts)
    assert frozenset().union(*said[-2:]) == set(answers.hosts)


def test_who_is_known_keeps_its_place() -> None:
    answers = Answers()
    for hosts in (["10.0.0.3"], ["10.0.0.1", "10.0.0.3"], ["10.0.0.1"], ["10.0.0.2", "10.0.0.1", "10.0.0.3"]):
        answers.answered(hosts)
    assert ("10.0.0.3", "10.0.0.1", "10.0.0.2") == answers.hosts
