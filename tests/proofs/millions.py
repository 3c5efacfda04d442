"""A lake of ten million exchanges: counted, listed, exported and forgotten from, as a user does it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil
from arro3.core import RecordBatch

from gateway.traffic.lake import ROW_GROUP, Lake
from gateway.traffic.query import Wanted
from gateway.traffic.reader import Reader
from tests.conftest import TINY
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.proofs.made_up import DAYS, OF_UNIT, ROUTES, UNIT, MadeUp, Part
from tests.proofs.result import Result, median, spread

ROWS = int(os.environ.get("MILLIONS_ROWS", "10000000"))
FILE_ROWS = 360_000
"""Of a file as compaction leaves it: some 100 MB."""
FRESH, FRESH_ROWS = 50, 200
"""Commits of the shipper that are not compacted yet, in one partition, and rows of each."""
PAGES = 100
QUERY, SHIPPER = "gateway.traffic.read", "gateway.traffic.ship"
MB = 1e6


class Memory:
    """`with Memory(house) as memory:` the most that each sort of process was resident with, in bytes."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.most: dict[str, int] = dict.fromkeys((QUERY, SHIPPER, "gateway"), 0)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            for name, resident in self._now():
                self.most[name] = max(self.most[name], resident)

    def _now(self) -> Iterator[tuple[str, int]]:
        for process in self._house.processes():
            try:
                words = process.cmdline()
                resident = process.memory_info().rss
            except psutil.NoSuchProcess:
                continue  # it has ended since
            if process.pid == getattr(self._house.process, "pid", 0):
                yield "gateway", resident
            else:
                yield from ((name, resident) for name in (QUERY, SHIPPER) if name in words)

    def of(self, name: str) -> str:
        return f"{self.most[name] / MB:.0f} MB"

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()


class User:
    """Who asks a running gateway; every call says how long it took, in seconds."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._http = httpx.Client(base_url=house.url, headers=house.headers, timeout=600)

    def get(self, path: str, **params: Any) -> tuple[float, Any]:
        begun = time.monotonic()
        answer = self._http.get(f"/admin/v1/traffic{path}", params=params)
        took = time.monotonic() - begun
        assert answer.is_success, answer.text
        return took, answer.json() if "json" == answer.headers["content-type"].split("/")[-1] else answer.text

    def forget(self, unit: str) -> None:
        wish = {"kind": "unit", "value": unit}
        self._http.post("/admin/v1/traffic/forgotten", json=wish).raise_for_status()

    def says(self, *words: str) -> tuple[float, str]:
        """What `hotswap traffic …` wrote, on both streams."""
        begun = time.monotonic()
        done = self.house.cli("traffic", *words, timeout=1800)
        took = time.monotonic() - begun
        assert done.returncode == 0, done.stderr
        return took, done.stdout + done.stderr


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "millions",
        f"A lake of {ROWS:,} exchanges that are made up (seed 1), of {DAYS} days and {len(ROUTES)} routes, "
        "in files as the shipper and compaction leave them; the whole product before a fake engine. Asked "
        "over the admin API and by `hotswap traffic`. Memory is the most that a process was resident with, "
        f"seen 50 times a second. The unit that is forgotten has {OF_UNIT} rows, strewn over all days of two "
        "routes, so that nearly every large file has one.",
    )
    tiny = folder / "tiny"
    tiny.mkdir(parents=True, exist_ok=True)
    TINY.write(tiny)
    with Fake() as fake:
        house = House(folder / "house", tiny, before([fake]))
        lake = Lake(str(house.state / "lake"))
        parts = _fill(lake, result)
        _load(result, "at the beginning")
        with house:
            user = User(house)
            _stats(result, user, lake, house.state / "journal", parts)
            _lists(result, user)
            _exports(result, user, parts)
            _forgets(result, user, lake)
        _load(result, "at the end")
    return result


def _fill(lake: Lake, result: Result) -> list[Part]:
    """Writes the lake, one commit a file."""
    begun = time.monotonic()
    made = MadeUp(ROWS, datetime.now(UTC))
    numbers = count(1)
    for part in made.parts:
        batches = made.batches(part, ROW_GROUP)
        while some := [RecordBatch.from_arrow(batch) for batch in islice(batches, FILE_ROWS // ROW_GROUP)]:
            lake.append(some, "made up", next(numbers))
        print(f"  {part.day.date()} {part.route}: {part.rows:,} rows", flush=True)
    fresh = Part(made.parts[-1].day, made.parts[-1].route, FRESH * FRESH_ROWS)
    for batch in made.batches(fresh, FRESH_ROWS):
        lake.append([RecordBatch.from_arrow(batch)], "made up", next(numbers))
    files = [path.stat().st_size for path in Path(lake.uri).glob("day=*/**/*.parquet")]
    size = f"{sum(files) / 1e9:.1f} GB, {sum(files) / ROWS:.0f} bytes a row"
    result.figure("the lake", f"{size}; {len(files)} files, the largest {max(files) / MB:.0f} MB")
    result.figure("made in", f"{time.monotonic() - begun:.0f} s")
    return [*made.parts, fresh]


def _day(part: Part) -> dict[str, Any]:
    end = part.day + timedelta(days=1)
    return {"route": part.route, "since": part.day.timestamp(), "until": end.timestamp()}


def _stats(result: Result, user: User, lake: Lake, journal: Path, parts: list[Part]) -> None:
    large = [part for part in parts if part.route == next(iter(ROUTES))]
    first, _ = user.get("/stats", **_day(large[0]))
    with Memory(user.house) as memory:
        asked = [user.get("/stats", **_day(part)) for _ in range(5) for part in large]
    counted = {
        answer["data"][0]["route"]: sum(each["requests"] for each in answer["data"]) for _, answer in asked
    }
    assert counted == {large[0].route: large[-1].rows}, counted
    times = [took for took, _ in asked]
    rows = f"{large[0].rows:,} rows"
    result.must(f"stats of one route-day ({rows}) < 0.5 s, median", median(times) < 0.5, spread(times))
    result.figure("the same, the first time: a process is started for it", f"{first:.2f} s")
    words = ["stats", "--route", large[1].route, "--since", f"{large[1].day:%Y-%m-%d}"]
    words += ["--until", f"{large[2].day:%Y-%m-%d}"]
    result.figure("the same, `hotswap traffic stats`", spread([user.says(*words)[0] for _ in range(5)]))
    reader, within = Reader(lake, journal), []
    for part in large:
        begun = time.monotonic()
        reader.stats(Wanted(limit=None, **_day(part)))
        within.append(time.monotonic() - begun)
    result.figure("the query alone", spread(within))
    took, answer = user.get("/stats")
    total = sum(each["requests"] for each in answer["data"])
    result.must(
        "stats of everything count every row", total == sum(part.rows for part in parts), f"{total:,}"
    )
    result.figure("stats of everything", f"{took:.2f} s; the query's process {memory.of(QUERY)}")


def _lists(result: Result, user: User) -> None:
    for name, asked in (
        ("from the newest", {}),
        ("from the middle", {"until": (datetime.now(UTC) - timedelta(days=DAYS / 2)).timestamp()}),
        ("from the oldest", {"oldest_first": True}),
    ):
        with Memory(user.house) as some:
            seen, times, after = _pages(user, 10, asked)
        with Memory(user.house) as more:
            more_seen, more_times, _ = _pages(user, PAGES - 10, {**asked, "after": after})
        ids = seen + more_seen
        once = len(set(ids)) == len(ids) == PAGES * 1000
        grown = more.most[QUERY] - some.most[QUERY]
        line = f"{PAGES} pages of 1,000, {name}: each row once, and memory does not grow by 50 MB"
        told = f"{len(set(ids)):,} rows; after 10 pages {some.of(QUERY)}, after {PAGES} {more.of(QUERY)}"
        result.must(line, once and grown < 50 * MB, told)
        result.figure(f"a page {name}", spread(times + more_times))
    _, page = user.get("", limit=1)
    _, one = user.get(f"/{page['data'][0]['id']}")
    word = one["messages"][0]["content"].split()[2]
    for name, text in (
        ("that many rows have", word),
        ("that no row has: all is read", "nowhere to be found"),
    ):
        with Memory(user.house) as memory:
            took, page = user.get("", text=text, limit=50)
        assert bool(page["data"]) == (text == word), page
        line = f"a filter by a text {name}: the query's process < 500 MB"
        result.must(line, memory.most[QUERY] < 500 * MB, f"{memory.of(QUERY)}, {took:.1f} s")


def _pages(user: User, pages: int, asked: dict[str, Any]) -> tuple[list[str], list[float], str]:
    """Ids, times, and the cursor after them."""
    ids: list[str] = []
    times: list[float] = []
    cursor: dict[str, Any] = {}
    for _ in range(pages):
        took, page = user.get("", limit=1000, **{**asked, **cursor})
        times.append(took)
        ids += [row["id"] for row in page["data"]]
        cursor = {"after": page["next"]}
    return ids, times, cursor["after"]


def _exports(result: Result, user: User, parts: list[Part]) -> None:
    part = parts[0]
    days = ["--since", f"{part.day:%Y-%m-%d}", "--until", f"{part.day + timedelta(days=1):%Y-%m-%d}"]
    file = user.house.folder / "rows.jsonl"
    for name, words in (
        ("one route-day, to a file", ["--route", part.route, *days, "--out", str(file)]),
        ("everything", ["--out", os.devnull]),
    ):
        with Memory(user.house) as memory:
            took, said = user.says("export", *words)
        found = re.search(r"([\d,]+) exchanges in", said)
        assert found, said
        rows = int(found[1].replace(",", ""))
        if file.exists():
            with file.open("rb") as lines:
                assert sum(1 for _ in lines) == rows
            file.unlink()
        told = f"{rows / took:,.0f} rows/s: {rows:,} rows in {took:.0f} s"
        result.must(f"`hotswap traffic export`, {name}: ≥ 20,000 rows/s", rows / took >= 20_000, told)
        held = max(memory.most[QUERY], memory.most["gateway"]) < 500 * MB
        told = f"query {memory.of(QUERY)}, gateway {memory.of('gateway')}"
        result.must("the same: the query's process and the gateway < 500 MB", held, told)


def _forgets(result: Result, user: User, lake: Lake) -> None:
    _, page = user.get("", unit=UNIT, limit=1000)
    ids = [row["id"] for row in page["data"]]
    places = {(row["day"], row["route"]) for row in page["data"]}
    assert len(ids) == OF_UNIT, len(ids)
    rows = lake.table().count()
    begun = time.monotonic()
    with Memory(user.house) as memory:
        user.forget(UNIT)
        wished = time.monotonic() - begun
        listing, page = user.get("", unit=UNIT)
        gone = time.monotonic() - begun
        counting, counted = user.get("/stats", unit=UNIT)
        exporting, exported = user.get("/export", unit=UNIT, all=True)
        shown = user.house.cli("traffic", "show", ids[0]).returncode
        empty = (page["data"], counted["data"], exported, shown) == ([], [], "", 1)
        wish = wait_for("it is erased", lambda: _erased(user), 1200, every_s=0.2)
        took = time.monotonic() - begun
    told = f"{gone:.2f} s: the wish {wished:.2f} s, `ls` {listing:.2f} s"
    result.must(
        "forgotten: in no list, sum, export, nor shown, < 2 s after the wish", empty and gone < 2, told
    )
    result.figure("its export and its stats, empty", f"{exporting:.2f} s and {counting:.2f} s")
    held, told = took < 300, f"{took:.0f} s; {wish['rows_erased']} rows in {len(places)} partitions"
    result.must("erased < 5 min", held and wish["rows_erased"] == OF_UNIT and len(places) > 1, told)
    held = memory.most[SHIPPER] < 1500 * MB
    result.must("the process that erases < 1.5 GB", held, memory.of(SHIPPER))
    table = lake.table()
    used = {Path(file.removeprefix("file://")).name for file in table.file_uris()}
    there = {path.name for path in Path(lake.uri).glob("day=*/**/*.parquet")}
    left = rows - table.count()
    held = used == there and left == OF_UNIT
    told = f"{len(there - used)} files are left over, {left} rows fewer"
    result.must("the old files are deleted, and nothing else is missing", held, told)
    log = [path for path in (Path(lake.uri) / "_delta_log").iterdir() if UNIT.encode() in path.read_bytes()]
    result.must("the table's log does not have the unit", not log, f"{len(log)} files of it do")


def _erased(user: User) -> dict[str, Any] | None:
    _, answer = user.get("/forgotten")
    wish: dict[str, Any] = answer["data"][0]
    return wish if wish["erased_at"] else None


def _load(result: Result, when: str) -> None:
    result.figure(f"load of the machine {when}", f"{os.getloadavg()[1]:.1f} (5 min), {os.cpu_count()} cores")
