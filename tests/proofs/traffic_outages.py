"""Postgres, the object store and the disk go away under load, one after the other: serving goes on, and what
was answered is in the lake once."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, make_url

from gateway.db import EmbeddedPostgres
from gateway.traffic.lake import Lake
from gateway.traffic.rollup import Rollups
from gateway.traffic.segment import CLOSED, HEADER_BYTES, OPEN, number_of
from gateway.traffic.writers import used_bytes, writers
from tests.conftest import TINY
from tests.door import Door
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.proofs.result import Result, spread
from tests.proofs.steady import Answered, Steady
from tests.s3 import BUCKET, S3

OUTAGE_S = float(os.environ.get("OUTAGE_S", "300"))
PER_S = float(os.environ.get("OUTAGE_PER_S", "50"))
QUIET_S = 10.0
"""Of load before each outage, and after it has been caught up with."""
SAFE_S = 0.1
PATIENCE_S = 600.0
"""For what an outage left behind."""
DISK_MB = 256
FULL, DROPPED = "hotswap_traffic_journal_full", "hotswap_traffic_dropped_total"
LAKE = f"s3://{BUCKET}/lake"


@dataclass(frozen=True, slots=True)
class World:
    """The house, and what it stands on; `store` and `database` are the ways by which it reaches them."""

    house: House
    journal: Path
    s3: S3
    store: Door
    postgres: EmbeddedPostgres
    postgres_url: str
    database: Door

    def metric(self, name: str) -> float:
        answer = httpx.get(f"{self.house.url}/metrics", headers=self.house.headers, timeout=30)
        families = text_string_to_metric_families(answer.text)
        return sum(each.value for family in families for each in family.samples if each.name == name)

    async def until(self, what: str, check: Callable[[], bool]) -> None:
        """Raises `AssertionError`, with the end of the shipper's log, when it does not come about."""
        try:
            await asyncio.to_thread(wait_for, what, check, PATIENCE_S, 0.1)
        except AssertionError as error:
            said = [path.read_text()[-3000:] for path in self.house.state.rglob("shipper.log")]
            raise AssertionError(f"{error}; the shipper said: {said}") from None

    def shipper(self) -> list[int]:
        """Pids of its process, and of those that only wait for its turn."""
        return [
            each.pid for each in self.house.processes() if "gateway.traffic.ship" in " ".join(each.cmdline())
        ]

    def segments(self) -> set[tuple[str, int]]:
        """Of the journal, with something in them: who wrote them, and their numbers."""
        found: set[tuple[str, int]] = set()
        for folder in writers(self.journal):
            for kind in (OPEN, CLOSED):  # in this order none slips through that is closed meanwhile
                found |= {(folder.name, number_of(path)) for path in folder.glob(f"*{kind}") if _holds(path)}
        return found


def _holds(path: Path) -> bool:
    """Whether a segment has records, or is closed or shipped just now, and had."""
    with suppress(FileNotFoundError):
        return path.stat().st_size > HEADER_BYTES
    return True


@dataclass(frozen=True, slots=True)
class Outage:
    """`down` and `up` return when it is so. `drops`: records may be dropped while it lasts."""

    name: str
    seconds: float
    down: Callable[[World], Awaitable[None]]
    up: Callable[[World], Awaitable[None]]
    drops: bool = False


@dataclass(frozen=True, slots=True)
class Passed:
    """How one went. Times are monotonic seconds, `resumed` when nothing was dropped any more."""

    outage: Outage
    load: Steady
    began: float
    back: float
    resumed: float
    caught_up: float
    dropped: int
    full: tuple[float, float]
    """The gauge shortly before the end, and after it."""
    same_shipper: bool
    read: str
    """What the admin API said meanwhile, when it was asked for an exchange."""
    journal_mb: float


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "traffic_outages",
        f"The whole product before a fake engine, the openai SDK, {PER_S:g} requests a second, every second "
        "one for a stream. Postgres is one of our own that the house is given by database.url_env; the lake "
        "lies on S3 (moto's server), the journal on a disk of its own (tmpfs). One after the other goes away "
        "and comes back: Postgres is killed (kill -9) and refuses connections, the store refuses them, the "
        "store takes them and says nothing (SIGSTOP), the disk is full. Settings are the defaults.",
    )
    tiny = folder / "tiny"
    tiny.mkdir(parents=True, exist_ok=True)
    TINY.write(tiny)
    with S3() as s3, Fake() as fake, small_disk(folder / "journal") as journal:
        asyncio.run(_all(folder, tiny, fake, s3, journal, result))
    return result


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own of DISK_MB. Raises `AssertionError` for who may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"run it as root: a disk that can be filled is a mount ({done.stderr})"
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def _all(folder: Path, tiny: Path, fake: Fake, s3: S3, journal: Path, result: Result) -> None:
    postgres = EmbeddedPostgres(folder / "postgres", folder / "postgres.log")
    url = await postgres.start()
    assert postgres.port is not None
    try:
        async with Door(postgres.port) as database, Door(s3.port) as store:
            by_door = make_url(url).set(port=database.port).render_as_string(hide_password=False)
            settings = {
                "HOTSWAP_DATABASE__URL_ENV": "PROOF_DATABASE",
                "PROOF_DATABASE": by_door,
                "HOTSWAP_TRAFFIC__LAKE": LAKE,
                "HOTSWAP_TRAFFIC__LAKE_OPTIONS_ENV": "PROOF_LAKE",
                "PROOF_LAKE": json.dumps(s3.options(store.port)),
                "HOTSWAP_TRAFFIC__JOURNAL": str(journal),
            }
            house = House(folder / "house", tiny, before([fake], **settings))
            world = World(house, journal, s3, store, postgres, url, database)
            try:
                await asyncio.to_thread(house.start)
                serves: Callable[[], bool] = lambda: ["serving"] == [each["status"] for each in house.fleet()]  # noqa: E731
                await asyncio.to_thread(wait_for, "it serves", serves)
                answered: list[Answered] = []
                for outage in OUTAGES:
                    passed = await _through(world, outage)
                    answered += passed.load.answered
                    await asyncio.to_thread(_judge, result, world, passed, answered)
            finally:
                await asyncio.to_thread(house.stop)
    finally:
        await postgres.stop()


async def _through(world: World, outage: Outage) -> Passed:
    load = Steady(world.house, "tiny", PER_S)
    dropped = await asyncio.to_thread(world.metric, DROPPED)
    shipper = await asyncio.to_thread(world.shipper)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run())
        await asyncio.sleep(QUIET_S)
        began = time.monotonic()
        await outage.down(world)
        reading = tasks.create_task(asyncio.to_thread(_read, world.house))
        await asyncio.sleep(began + outage.seconds - time.monotonic())
        gauge = await asyncio.to_thread(world.metric, FULL)
        used = used_bytes(world.journal)
        left = world.segments()
        await outage.up(world)
        back = time.monotonic()
        await world.until("records are taken", lambda: not world.metric(FULL))
        resumed = time.monotonic()
        await world.until("it has caught up", lambda: not left & world.segments())
        caught_up = time.monotonic()
        await asyncio.sleep(QUIET_S)
        load.stop()
    await world.until("all is shipped", lambda: not world.segments())
    await asyncio.sleep(1.5)  # counters are shown once a second
    dropped = await asyncio.to_thread(world.metric, DROPPED) - dropped
    after = await asyncio.to_thread(world.metric, FULL)
    same = shipper == await asyncio.to_thread(world.shipper)
    return Passed(
        outage, load, began, back, resumed, caught_up, int(dropped), (gauge, after), same, await reading,
        used / 1e6,
    )  # fmt: skip


def _read(house: House) -> str:
    began = time.monotonic()
    try:
        answer = httpx.get(
            f"{house.url}/admin/v1/traffic", params={"limit": 1}, headers=house.headers, timeout=OUTAGE_S
        )
    except httpx.TimeoutException:
        return f"no answer within {OUTAGE_S:g} s"
    said = "" if answer.status_code == 200 else f" ({answer.json()['error']['message'][:90]} …)"
    return f"{answer.status_code} after {time.monotonic() - began:.1f} s{said}"


# The outages.


async def _kill_postgres(world: World) -> None:
    assert world.postgres.pid is not None
    os.kill(world.postgres.pid, 9)  # it is started again at once, but nobody gets there
    await world.database.shut()


async def _open_postgres(world: World) -> None:
    await world.database.open()


async def _refuse(world: World) -> None:
    await world.store.shut()


async def _let_in(world: World) -> None:
    await world.store.open()


async def _hang(world: World) -> None:
    world.s3.hang()


async def _go_on(world: World) -> None:
    world.s3.go_on()


async def _fill(world: World) -> None:
    await asyncio.to_thread(_write_until_full, world.journal / "ballast")
    await world.until("the journal is full", lambda: bool(world.metric(FULL)))


async def _make_space(world: World) -> None:
    (world.journal / "ballast").unlink()


def _write_until_full(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC


OUTAGES = (
    Outage("Postgres killed and away", OUTAGE_S, _kill_postgres, _open_postgres),
    Outage("the store refuses", OUTAGE_S, _refuse, _let_in),
    Outage("the store hangs", OUTAGE_S, _hang, _go_on),
    Outage("the disk is full", OUTAGE_S / 5, _fill, _make_space, drops=True),
)


# What must hold.


def _judge(result: Result, world: World, passed: Passed, answered: list[Answered]) -> None:
    """After an outage; `answered` are the answers since the house was started."""
    name, load = passed.outage.name, passed.load
    lake = Lake(LAKE, world.s3.options())
    counts: dict[str, int] = dict(lake.select("SELECT id, count(*) FROM lake GROUP BY id"))
    missing = [each for each in load.answered if each.id not in counts]
    unsafe = [each for each in missing if passed.began - SAFE_S <= each.at <= passed.resumed]
    doubled = [id for id, count in counts.items() if count != 1]
    strangers = counts.keys() - {each.id for each in answered}
    asked = len(load.answered) + len(load.failed)
    result.must(f"{name}: no request fails", not load.failed, f"{len(load.failed)} of {asked:,}")
    for why in sorted(set(load.failed))[:5]:
        print(f"    {why}", flush=True)
    if passed.outage.drops:
        result.must(
            f"{name}: what was answered before and after is in the lake",
            len(missing) == len(unsafe),
            f"{len(missing) - len(unsafe)} are not",
        )
        result.must(
            f"{name}: answered = remembered + dropped",
            0 < passed.dropped == len(missing),
            f"{len(load.answered):,} = {len(load.answered) - len(missing):,} + {passed.dropped:,}",
        )
        result.must(f"{name}: {FULL} is 1, then 0", passed.full == (1, 0), passed.full)
    else:
        result.must(
            f"{name}: every answer is in the lake",
            not missing and not passed.dropped,
            f"{len(missing)} of {len(load.answered):,} are not; {passed.dropped} were dropped",
        )
    result.must(
        f"{name}: none is there twice, and nothing else",
        not doubled and not strangers,
        f"{len(doubled)} twice, {len(strangers)} others, of {len(counts):,}",
    )
    _judge_sums(result, name, world, lake)
    result.must(f"{name}: the shipper's process lives through it", passed.same_shipper, passed.same_shipper)
    _figures(result, passed)


def _judge_sums(result: Result, name: str, world: World, lake: Lake) -> None:
    (lakes,) = lake.select(
        "SELECT count(*), count(*) FILTER (WHERE error <> ''), coalesce(sum(prompt), 0), "
        "coalesce(sum(completion), 0), coalesce(sum(cached), 0) FROM lake"
    )
    engine = create_engine(make_url(world.postgres_url).set(drivername="postgresql+psycopg"))
    total = Rollups(engine).total()
    engine.dispose()
    rolled = (total.requests, total.errors, total.prompt, total.completion, total.cached)
    result.must(f"{name}: the roll-ups equal the lake's sums", rolled == lakes, f"{rolled} and {lakes}")


def _figures(result: Result, passed: Passed) -> None:
    name = passed.outage.name
    result.figure(f"{name}: for", f"{passed.back - passed.began:.0f} s")
    result.figure(f"{name}: in the journal at its end", f"{passed.journal_mb:.1f} MB")
    if passed.outage.drops:
        result.figure(f"{name}: records are taken again after", f"{passed.resumed - passed.back:.1f} s")
    result.figure(f"{name}: caught up after", f"{passed.caught_up - passed.back:.1f} s")
    result.figure(f"{name}: meanwhile `traffic ls` is answered", passed.read)
    for when, begin, end in (
        ("before", 0.0, passed.began),
        ("meanwhile", passed.began, passed.back),
        ("after", passed.back, float("inf")),
    ):
        took = [each.took_s for each in passed.load.answered if begin <= each.asked < end]
        result.figure(f"{name}: an answer took, {when} (p50 / p90 / p99 / max)", spread(took))
