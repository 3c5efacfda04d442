"""Forgetting, on a real Delta table and a real Postgres: read no more at once, then gone from every file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deltalake import DeltaTable, QueryBuilder
from sqlalchemy import Engine, create_engine, insert, select

from gateway.datasets import Datasets, NewDataset
from gateway.db import Database
from gateway.errors import BadRequest
from gateway.traffic.eraser import READERS_S, Eraser
from gateway.traffic.feedback import Feedback
from gateway.traffic.forgetting import ERASED, OPEN_S, Forgetting, table
from gateway.traffic.journal import Journal
from gateway.traffic.lake import Lake, batch_of
from gateway.traffic.query import Wanted
from gateway.traffic.reader import Reader
from gateway.traffic.record import Exchanged, encode
from gateway.traffic.rollup import Rollups, rollups
from gateway.traffic.row import row_of
from gateway.traffic.shipper import Shipper
from gateway.traffic.unit import hashed
from tests.traffic.records import record

SALT = b"s" * 32


@dataclass
class Key:
    id: str = "key_1"
    tenant: str = "default"


class Place:
    """A journal, a lake, a database, and what works on them."""

    def __init__(self, folder: Path, engine: Engine, forgetting: Forgetting) -> None:
        self.folder = folder
        self.engine = engine
        self.forgetting = forgetting
        self.lake = Lake(str(folder / "lake"))
        self.now = time.time
        self.eraser = Eraser(folder / "journal", self.lake, engine, readers_s=0, clock=lambda: self.now())
        self.shipper = Shipper(folder / "journal", self.lake, Rollups(engine), keeps=self.eraser.keeps)

    def journal(self, *records: Exchanged) -> None:
        writer = Journal(self.folder / "journal")
        writer.start()
        for each in records:
            writer.append(encode(each))
        writer.stop()

    def work(self) -> int:
        """One pass of the shipper's process; rows that were erased."""
        self.eraser.look()
        self.shipper.ship()
        return self.eraser.erase()

    def units(self) -> list[str]:
        """Of all that can be read, from the oldest on."""
        reader = Reader(self.lake, self.folder / "journal", self.forgetting.now)
        return [row["unit"] for row in reader.rows(Wanted(limit=None, oldest_first=True))]

    def files_with(self, needle: str) -> list[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return [path.name for path in found if needle.encode() in path.read_bytes()]


@pytest.fixture
def engine(db: Database) -> Iterator[Engine]:
    made = create_engine(db.url)
    yield made
    made.dispose()


@pytest.fixture
async def place(db: Database, engine: Engine, tmp_path: Path) -> Place:
    forgetting = Forgetting(db.engine, SALT)
    await forgetting.refresh()
    return Place(tmp_path, engine, forgetting)


def of(unit: str, number: int = 0, **changes: object) -> Exchanged:
    """Asked a moment ago, for `unit`."""
    return record(number, unit=unit, at=time.time() - 10 + number / 1000, **changes)


async def test_what_is_forgotten_is_read_no_more_and_then_erased(place: Place) -> None:
    place.journal(*(of(unit, at) for at, unit in enumerate(["alice", "bob", "alice", "carol"])))
    place.work()
    place.journal(of("alice", 4), of("bob", 5))  # still in the journal
    await place.forgetting.add("unit", "alice", "default")
    assert place.units() == ["bob", "carol", "bob"]  # at once, from both
    assert place.work() == 2  # from the lake; the one in the journal never got there
    everything = Reader(place.lake, place.folder / "journal")
    assert [row["unit"] for row in everything.rows(Wanted(limit=None, oldest_first=True))] == [
        "bob",
        "carol",
        "bob",
    ]
    assert place.files_with("alice") == []
    (wish,) = await place.forgetting.list()
    assert wish["erased_at"] is not None and wish["rows_erased"] == 2


async def test_feedback_is_forgotten_with_its_exchange(place: Place, db: Database) -> None:
    shipped, left_out, other = of("alice"), of("alice", 1), of("bob", 2)

    async def find(id: str) -> dict[str, object]:
        return {"tenant": "default", "redacted": False, "route": "support", "version": "support@1"}

    feedback = Feedback(db.engine, find)
    for each in (shipped, left_out, other):
        await feedback.give(Key(), json.dumps({"id": each.id, "comment": "alice is right"}).encode())
    place.journal(shipped, other)
    place.work()
    place.journal(left_out)
    await place.forgetting.add("unit", "alice", "default")
    place.work()
    assert list(await feedback.of([shipped.id, left_out.id, other.id])) == [other.id]


async def test_what_comes_after_is_remembered_again(place: Place) -> None:
    await place.forgetting.add("unit", "alice", "default")
    place.journal(record(unit="alice", at=time.time() + 1))
    place.work()
    assert place.units() == ["alice"]


async def test_another_tenants_unit_of_the_same_name_stays(place: Place) -> None:
    place.journal(of("alice"), of("alice", 1, tenant="other"))
    place.work()
    await place.forgetting.add("unit", "alice", "other")
    assert place.work() == 1
    assert place.units() == ["alice"]


async def test_a_unit_is_found_as_strict_routes_keep_it(place: Place) -> None:
    place.journal(of(hashed(b"alice", SALT), cleaned=True, redacted=True, answer=b""), of("bob", 1))
    place.work()
    await place.forgetting.add("unit", "alice", "default")
    assert place.units() == ["bob"]
    assert place.work() == 1


async def test_one_request_can_be_forgotten(place: Place) -> None:
    first, second = of("alice"), of("alice", 1)
    place.journal(first, second)
    place.work()
    await place.forgetting.add("request", first.id, "default")
    assert place.work() == 1
    assert place.files_with(first.id) == [] and place.files_with(second.id) != []


async def test_thousands_of_requests_are_forgotten_as_one(place: Place) -> None:
    """A condition for each of them took the reader's whole stack, and a rewrite for each a day."""
    given = [of("alice", number) for number in range(3001)]
    place.journal(*given)
    place.work()
    await place.forgetting.add("request", given[0].id, "default")
    with place.engine.begin() as connection:
        wishes = [
            {"id": f"forget_{number}", "kind": "request", "value": each.id, "also": "", "tenant": "default"}
            for number, each in enumerate(given[1:-1])
        ]
        connection.execute(insert(table), wishes)
    await place.forgetting.refresh()
    assert place.units() == ["alice"]
    assert place.work() == 3000
    assert [each["operation"] for each in place.lake.table().history()].count("WRITE") == 2
    assert {wish["rows_erased"] for wish in await place.forgetting.list()} == {1}
    assert place.files_with(given[0].id) == [] and place.files_with(given[-1].id) != []


async def test_a_wish_waits_until_the_old_files_of_another_are_gone(place: Place) -> None:
    eraser = Eraser(place.folder / "journal", place.lake, place.engine, clock=lambda: place.now())
    place.journal(*(of(unit, number) for number, unit in enumerate(["alice", "bob", "carol"])))
    place.work()
    await place.forgetting.add("unit", "alice", "default")
    assert eraser.erase() == 1
    await place.forgetting.add("unit", "bob", "default")
    assert eraser.erase() == 0 and place.files_with("bob") != []
    later = time.time() + READERS_S
    place.now = lambda: later
    assert eraser.erase() == 1 and place.files_with("alice") == []
    second, first = await place.forgetting.list()
    assert first["erased_at"] is not None and second["erased_at"] is None


async def test_a_forgotten_keys_sums_stay_and_name_nobody(place: Place) -> None:
    hour = 1_795_000_000.0
    place.journal(*(record(at, at=hour + at, key=key) for at, key in enumerate(["key_1", "key_2", "key_1"])))
    place.work()
    before = Rollups(place.engine).total()
    await place.forgetting.add("key", "key_1", "default")
    assert place.work() == 2
    with place.engine.connect() as connection:
        kept = connection.execute(select(rollups.c.key, rollups.c.requests)).all()
    assert sorted(tuple(row) for row in kept) == [("", 2), ("key_2", 1)]
    assert Rollups(place.engine).total() == before


async def test_nothing_is_noted_as_erased_while_a_segment_may_still_hold_it(place: Place) -> None:
    writer = Journal(place.folder / "journal", write_every_s=0.001)
    writer.start()
    try:
        writer.append(encode(of("alice")))
        await place.forgetting.add("unit", "alice", "default")
        place.work()
        (wish,) = await place.forgetting.list()
        assert wish["erased_at"] is None
    finally:
        writer.stop()
    place.work()
    (wish,) = await place.forgetting.list()
    assert wish["erased_at"] is not None
    assert place.files_with("alice") == []


async def test_an_exchange_that_was_going_on_is_caught_when_it_ends(place: Place) -> None:
    place.journal(of("bob"))
    place.work()
    await place.forgetting.add("unit", "alice", "default")
    place.work()
    place.journal(of("alice", 1))  # began before, and ended after it was fulfilled
    place.work()
    assert place.units() == ["bob"] and place.files_with("alice") == []


async def test_a_query_that_has_begun_may_finish_and_then_the_files_go(place: Place) -> None:
    eraser = Eraser(place.folder / "journal", place.lake, place.engine, clock=lambda: place.now())
    place.journal(of("alice"), of("bob", 1))
    place.work()
    before = place.lake.table()
    await place.forgetting.add("unit", "alice", "default")
    assert eraser.erase() == 1
    read = QueryBuilder().register("lake", before).execute("SELECT unit FROM lake").read_all()
    assert sorted(read.column("unit").to_pylist()) == ["alice", "bob"]
    (wish,) = await place.forgetting.list()
    assert wish["erased_at"] is None and wish["rows_erased"] == 1
    later = time.time() + READERS_S
    place.now = lambda: later
    assert eraser.erase() == 0
    (wish,) = await place.forgetting.list()
    assert wish["erased_at"] is not None and place.files_with("alice") == []


async def test_what_others_add_to_other_partitions_meanwhile_does_not_stop_a_rewrite(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.journal(of("alice"), of("bob", 1))
    place.work()
    await place.forgetting.add("unit", "alice", "default")
    real, others = Lake.table, Lake(place.lake.uri)
    (part,) = real(others).partitions()

    def looked(self: Lake) -> DeltaTable:
        table = real(self)
        if self is place.lake:
            others.append([batch_of([row_of(of("carol", route="other"))])], "another", table.version() + 1)
        return table

    monkeypatch.setattr("gateway.traffic.lake.ATTEMPTS", 1)
    monkeypatch.setattr(Lake, "table", looked)
    place.lake.leave_out(f"route = '{part['route']}'", "unit = 'alice'")
    monkeypatch.undo()
    assert sorted(place.units()) == ["bob", "carol"]


async def test_in_the_end_the_wish_forgets_the_value_itself(place: Place) -> None:
    await place.forgetting.add("unit", "alice", "default")
    place.work()
    later = time.time() + OPEN_S + 60
    place.now = lambda: later
    place.work()
    (wish,) = await place.forgetting.list()
    assert wish["value"] == ERASED
    await place.forgetting.refresh()
    assert place.forgetting.now == ()


async def test_which_datasets_held_it_is_known_after_the_wish_forgot_the_value(
    place: Place, db: Database
) -> None:
    datasets = Datasets(db.engine)
    unit = place.forgetting.pseudonym("alice")
    held = [{"id": "a", "unit": unit, "at": time.time() - 10}, {"id": "b", "unit": "h:other"}]
    new = {"name": "support", "digest": "3" * 64, "rows": 2, "exchanges": held}
    await datasets.add(NewDataset.model_validate(new))
    await place.forgetting.add("unit", "alice", "default")
    later = time.time() + OPEN_S + 60
    place.now = lambda: later
    place.work()
    (wish,) = await place.forgetting.list()
    assert wish["value"] == ERASED
    assert await datasets.forgotten(f"support@{'3' * 12}") == ["a"]


async def test_killed_before_it_was_noted_it_is_done_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.journal(of("alice"), of("bob", 1))
    place.work()
    await place.forgetting.add("unit", "alice", "default")

    def killed(hours: int) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(place.lake, "vacuum", killed)
    with pytest.raises(KeyboardInterrupt):
        place.work()
    monkeypatch.undo()
    place.work()
    (wish,) = await place.forgetting.list()
    assert wish["erased_at"] is not None
    assert place.files_with("alice") == []


@pytest.mark.parametrize(
    ("kind", "value"), [("tenant", "x"), ("unit", ""), ("unit", "x" * 300), ("unit", "a\0b")]
)
async def test_what_cannot_be_forgotten_is_refused(place: Place, kind: str, value: str) -> None:
    with pytest.raises(BadRequest):
        await place.forgetting.add(kind, value, "default")


async def test_other_gateways_hear_of_it(place: Place, db: Database) -> None:
    other = Forgetting(db.engine, SALT)
    await place.forgetting.add("unit", "alice", "default")
    await other.refresh()
    assert other.now == place.forgetting.now
