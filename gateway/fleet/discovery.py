"""Where the engines are that somebody else runs: a fixed list, names in DNS, or both.

`http://host:port` is one engine. `dns://name:port` is as many as the name has A and AAAA records, which are
looked up again every few seconds (a headless service in Kubernetes). What an answer says is believed when it
says it twice: a name server that leaves half of the records out for once takes no engine out of service. A
look-up that fails says nothing about engines, so the last answer stands.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.fleet.client import Address

logger = logging.getLogger(__name__)

LOOKUP_TIMEOUT_S = 5.0
"""What glibc gives one name server before it asks the next (resolv.conf(5), options timeout)."""

MISSING_TWICE = 2

_EMPTY = {
    code for name in ("EAI_NODATA", "EAI_ADDRFAMILY") if (code := getattr(socket, name, None)) is not None
}
"""The name is there and has no address: that is an answer. NXDOMAIN is EAI_NONAME, SERVFAIL EAI_AGAIN."""

Resolve = Callable[[str, int], Awaitable[Collection[str]]]
"""(host, port) → IP addresses, none where the name has none. Raises `OSError` when the look-up failed."""

Removed = tuple[Address, str]
"""An address, and why it is one no more."""


def name_of(address: Address) -> str:
    """What an engine at this address is called: host:port, with an IPv6 host in brackets."""
    return address.url.removeprefix("http://")


async def resolve(host: str, port: int) -> list[str]:
    """All addresses that the system's resolver knows, in a thread of the loop's. Raises `OSError`."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _EMPTY:
            return []
        raise
    return [str(sockaddr[0]) for *_, sockaddr in found]


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of `engines`: a fixed address, or a name to look up. `key` goes with every engine of it."""

    url: str
    host: str
    port: int
    dns: bool
    key: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, key: str | None) -> Source:
        """Raises `ValueError` for anything but http://host:port and dns://name:port, naming what is wrong."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError as error:
            raise ValueError(f"engine url {url!r}: {error}") from error
        if "@" in parts.netloc:
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            raise ValueError(
                f"engine url {bare!r} has a user or password before it; use api_key_env for keys"
            )
        if parts.scheme != "dns":
            address = Address.parse(url, key)
            return cls(url, address.host, address.port, dns=False, key=key)
        if not host or not port or parts.path or parts.query or parts.fragment:
            raise ValueError(
                f"engine url {url!r} is not dns://name:port: two slashes, a name, the port of every engine "
                "behind it, and nothing else"
            )
        return cls(url, host, port, dns=True, key=key)

    def at(self, host: str) -> Address:
        return Address(host, self.port, self.key)


class Answers:
    """What one name was said to have, belief included: pure, without a clock."""

    def __init__(self) -> None:
        self._missing: dict[str, int] = {}  # how many answers in a row left it out

    @property
    def hosts(self) -> tuple[str, ...]:
        """Those believed in, in the order in which they came."""
        return tuple(self._missing)

    def answered(self, hosts: Collection[str]) -> None:
        """Whoever is named is there at once; whoever is not is gone when it was not for the second time."""
        absent = {host: count + 1 for host, count in self._missing.items() if host not in hosts}
        for host, count in absent.items():
            if count >= MISSING_TWICE:
                del self._missing[host]
            else:
                self._missing[host] = count
        for host in sorted(set(hosts)):
            self._missing[host] = 0


class Discovery:
    """Tells which engines there are, from when `watch` runs.

    `on_change(added, removed)` is called with what is new and with what is gone and why; never with both
    empty. An address that two sources have is one engine, with the first one's key, until both have lost it;
    where that changes its key it is removed and added, so do what `removed` says first. What it raises ends
    `watch`. `resolve` and `sleep` are for tests. Durations are seconds.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        on_change: Callable[[list[Address], list[Removed]], None],
        *,
        interval_s: float = 5.0,
        timeout_s: float = LOOKUP_TIMEOUT_S,
        resolve: Resolve = resolve,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sources = tuple(sources)
        self._on_change = on_change
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._sleep = sleep
        self._answers = {source: Answers() for source in self._sources if source.dns}
        self._problems: dict[Source, str] = {}
        self._known: dict[str, Address] = {}

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where engines are, as far as is known."""
        return tuple(self._known.values())

    @property
    def problems(self) -> list[str]:
        """Why a name gives no engines, or only those of an earlier answer. Empty when all is well."""
        return [f"{source.url}: {problem}" for source, problem in self._problems.items()]

    async def watch(self) -> None:
        """Tells of fixed addresses at once, then of names, until cancelled. Returns when there are none."""
        self._compare("")
        async with asyncio.TaskGroup() as group:
            for source in self._answers:
                group.create_task(self._watch(source), name=f"look up {source.host}")

    async def _watch(self, source: Source) -> None:
        lookup: asyncio.Future[Collection[str]] | None = None
        try:
            while True:
                # One that hangs is waited for again, instead of leaving thread after thread behind.
                lookup = lookup or asyncio.ensure_future(self._resolve(source.host, source.port))
                await asyncio.wait({lookup}, timeout=self._timeout_s)
                if not lookup.done():
                    self._failed(source, f"no answer within {self._timeout_s:g} s")
                else:
                    self._ended(source, lookup)
                    lookup = None
                await self._sleep(self._interval_s)
        finally:
            if lookup is not None:
                lookup.cancel()
                with suppress(asyncio.CancelledError, OSError):
                    await lookup

    def _ended(self, source: Source, lookup: asyncio.Future[Collection[str]]) -> None:
        try:
            hosts = lookup.result()
        except OSError as error:
            self._failed(source, error.strerror or str(error) or type(error).__name__)
            return
        if hosts:
            if self._problems.pop(source, None) is not None:
                logger.info("%s: resolves again, %d addresses", source.url, len(set(hosts)))
        else:
            self._say(source, "the name has no address")
        self._answers[source].answered(hosts)
        self._compare(f"vanished from DNS: {source.host} did not name it, {MISSING_TWICE} times in a row")

    def _failed(self, source: Source, why: str) -> None:
        count = len(self._answers[source].hosts)
        left = f"the {count} engines of its last answer stay" if count else "it has no engine"
        self._say(source, f"could not be looked up: {why}; {left}")

    def _say(self, source: Source, problem: str) -> None:
        """In the log once an outage, however its reason changes."""
        if source not in self._problems:
            logger.warning("%s: %s", source.url, problem)
        self._problems[source] = problem

    def _found(self) -> Iterator[Address]:
        for source in self._sources:
            if source.dns:
                yield from map(source.at, self._answers[source].hosts)
            else:
                yield source.at(source.host)

    def _compare(self, why_gone: str) -> None:
        found: dict[str, Address] = {}
        for address in self._found():
            found.setdefault(name_of(address), address)  # two entries for one engine: the first one's key
        before, self._known = self._known, found
        added = [address for name, address in found.items() if before.get(name) != address]
        removed = [(address, why_gone) for name, address in before.items() if found.get(name) != address]
        if added or removed:
            self._on_change(added, removed)
