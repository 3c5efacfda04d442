"""Metrics of the engine and of the gateway while a run lasts: polled, kept, summed up.

A source that is missing, or fails, is named with its reason; it never ends the run. Times are unix time, as
`Driven.started` is. Use it around the run, in the same loop (parsing a page of vLLM's takes some 2 ms, once
every `every_s`) or, with a run in several processes, beside it:

    async with scraping([Source("engine", "http://127.0.0.1:8001/metrics")], every_s=1) as metrics:
        driven = await drive(plan, target)
    metrics.save(folder / "metrics.jsonl"); metrics.summary(since=driven.started)
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from loadtests.answer import Headers
from loadtests.client import Client, addresses
from loadtests.proc import CPU, RSS, ProcessGone, cost
from loadtests.prometheus import FormatError, Series, parse
from loadtests.sample import Outcome
from loadtests.slope import slope
from loadtests.target import Target, TargetError

LARGEST = 16 << 20
TIMEOUT_S = 5.0
MB = 1e6


@dataclass(frozen=True, slots=True)
class Source:
    """A Prometheus page, a process (`pid`: CPU and memory of its tree), or both under one name."""

    name: str
    url: str | None = None
    key: str | None = field(default=None, repr=False)
    pid: int | None = None


class ScrapeFailed(Exception):
    """This poll of a source brought nothing. The message says why."""


class Metrics:
    """What was scraped. One column of values a series, NaN where a poll did not have it."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._tables = {source.name: _Table() for source in sources}

    def add(self, source: str, at: float, series: Sequence[Series]) -> None:
        """What one poll of `source` brought, at unix time `at`."""
        self._tables[source].add(at, series)

    def failed(self, source: str, why: str) -> None:
        """A poll of `source` brought nothing."""
        table = self._tables[source]
        table.failures += 1
        table.why = why

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row a poll: {"at", "source", "values": {series: value}}, without what is no number."""
        for name, table in self._tables.items():
            for i, at in enumerate(table.times):
                values = {key: column[i] for key, column in table.columns.items() if math.isfinite(column[i])}
                yield {"at": round(at, 3), "source": name, "values": values}

    def save(self, path: Path) -> None:
        """`rows` as JSON Lines."""
        with path.open("wb") as file:
            file.writelines(msgspec.json.encode(row) + b"\n" for row in self.rows())

    def summary(self, since: float = -math.inf, until: float = math.inf) -> dict[str, Any]:
        """By source: {"polls", "failures", "why", "series": {name: figures}}.

        Figures are "first", "last", "delta", "mean" and "max". `delta` is what a counter grew by (a restart
        begins at 0), None for what may also fall. `why` is the last failure's reason, or None. A source with
        a pid also has "memory_mb_per_hour": {"per_hour", "low", "high"} (95 % interval), or None for too few
        polls. Only polls from `since` to `until` count.
        """
        return {name: table.summary(since, until) for name, table in self._tables.items()}


class _Table:
    def __init__(self) -> None:
        self.times = array("d")
        self.columns: dict[str, array[float]] = {}
        self.counting: set[str] = set()
        self.failures = 0
        self.why: str | None = None

    def add(self, at: float, series: Sequence[Series]) -> None:
        polls = len(self.times)
        self.times.append(at)
        for each in series:
            column = self.columns.get(each.name)
            if column is None:
                column = self.columns[each.name] = array("d", [math.nan]) * polls
            column.append(each.value)
            if each.counts:
                self.counting.add(each.name)
        for column in self.columns.values():
            del column[polls + 1 :]  # a page that has a series twice
            if len(column) == polls:
                column.append(math.nan)

    def summary(self, since: float, until: float) -> dict[str, Any]:
        inside = [i for i, at in enumerate(self.times) if since <= at <= until]
        series = {}
        for name, column in sorted(self.columns.items()):
            values = [column[i] for i in inside if math.isfinite(column[i])]
            if values:
                series[name] = _summed(values, name in self.counting)
        found: dict[str, Any] = {
            "polls": len(inside),
            "failures": self.failures,
            "why": self.why,
            "series": series,
        }
        if RSS in self.columns:
            line = slope([self.times[i] for i in inside], [self.columns[RSS][i] / MB for i in inside])
            found["memory_mb_per_hour"] = None if line is None else asdict(line)
        return found


def _summed(values: Sequence[float], counts: bool) -> dict[str, float | None]:
    grown = sum(
        after - before if after >= before else after  # a restart begins at 0
        for before, after in pairwise(values)
    )
    return {
        "first": values[0],
        "last": values[-1],
        "delta": grown if counts else None,
        "mean": math.fsum(values) / len(values),
        "max": max(values),
    }


@asynccontextmanager
async def scraping(sources: Sequence[Source], *, every_s: float = 1.0) -> AsyncIterator[Metrics]:
    """Polls every source now, each `every_s` seconds, and once more at the end.

    What the block raises is raised by itself, not in a group.
    """
    metrics = Metrics(sources)
    over = asyncio.Event()
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        for source in sources:
            tasks.create_task(_poll(source, metrics, every_s, over, tasks))
        try:
            yield metrics
        except Exception as error:  # noqa: BLE001 (raised below)
            failure = error
        finally:
            over.set()
    if failure is not None:
        raise failure


async def _poll(
    source: Source, metrics: Metrics, every_s: float, over: asyncio.Event, tasks: asyncio.TaskGroup
) -> None:
    page = None if source.url is None else _Remote(source.url, source.key, tasks)
    try:
        last = False
        while not last:
            last = over.is_set()
            began = time.monotonic()
            try:
                metrics.add(source.name, time.time(), await _series(source, page))
            except ScrapeFailed as error:
                metrics.failed(source.name, str(error))
            if not last:
                await _wait(over, max(0.0, began + every_s - time.monotonic()))
    finally:
        if page is not None:
            await page.close()


async def _wait(over: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await over.wait()


async def _series(source: Source, page: _Remote | None) -> list[Series]:
    if page is None and source.pid is None:
        raise ScrapeFailed(f"source {source.name!r} has neither a URL nor a pid")
    try:
        found = [] if page is None else parse(await page.read())
        if source.pid is not None:
            now = await asyncio.to_thread(cost, source.pid)
            found += [Series(CPU, now.cpu_s, True), Series(RSS, now.rss_bytes, False)]
    except (FormatError, ProcessGone) as error:
        raise ScrapeFailed(str(error)) from error
    return found


class _Remote:
    """A page on a server, read again and again."""

    def __init__(self, url: str, key: str | None, tasks: asyncio.TaskGroup) -> None:
        self._url, self._key, self._tasks = url, key, tasks
        self._client: Client | None = None

    async def read(self) -> str:
        """Its text now. Raises `ScrapeFailed`."""
        parts = urlsplit(self._url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            target = Target(f"{parts.scheme}://{parts.netloc}", self._key)
            if self._client is None:
                self._client = Client(target, await addresses(target), self._tasks)
        except TargetError as error:
            raise ScrapeFailed(str(error)) from error
        page = _Page()
        exchange = self._client.send(target.get(path), page)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await page.text
        except TimeoutError as error:
            raise ScrapeFailed(f"{path} was not answered within {TIMEOUT_S:g} s") from error
        finally:
            if not page.finished or page.text.cancelled():
                exchange.abort()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


class _Page:
    """Receives one page, whole."""

    def __init__(self) -> None:
        self.text: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.whole = False  # each page on a connection of its own: an idle one may close at any time
        self._status = 0
        self._body = bytearray()

    @property
    def finished(self) -> bool:
        return self.text.done()

    def on_sent(self, now: float) -> None:
        pass

    def on_head(self, status: int, headers: Headers, now: float) -> None:
        self._status = status

    def on_body(self, piece: bytes, now: float) -> None:
        self._body += piece
        if len(self._body) > LARGEST:
            self._fail(f"the page has more than {LARGEST >> 20} MiB")

    def on_end(self, now: float) -> None:
        if self._status != 200:
            self._fail(f"status {self._status}: {self._body[:100].decode(errors='replace')}")
        elif not self.finished:
            self.text.set_result(self._body.decode(errors="replace"))

    def on_lost(self, outcome: Outcome, detail: str, now: float) -> None:
        self._fail(detail)

    def _fail(self, why: str) -> None:
        if not self.finished:
            self.text.set_exception(ScrapeFailed(why))
