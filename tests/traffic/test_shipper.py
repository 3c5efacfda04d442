"""The shipper on a real Delta table and a real Postgres: killed anywhere, every record arrives once."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from gateway.traffic.journal import Journal
from gateway.traffic.lake import ORPHAN_HOURS, Lake
from gateway.traffic.record import Exchanged, encode
from gateway.traffic.rollup import Rollups, Sums
from gateway.traffic.segment import CLOSED, OPEN
from gateway.traffic.shipper import FAULTS, Shipped, Shipper
from tests.traffic.records import record


class Killed(BaseException):
    """As if the process had ended here: nothing of ours catches it."""


def journal(folder: Path, records: list[Exchanged], **settings: Any) -> None:
    """A writer's life: everything appended, and closed."""
    writer = Journal(folder / "journal", **settings)
    writer.start()
    for each in records:
        writer.append(encode(each))
    writer.stop()


def ids(lake: Lake) -> Counter[str]:
    rows = lake.query("SELECT id FROM lake").read_all()
    return Counter(rows.column("id").to_pylist() if rows.num_rows else [])


def sums(lake: Lake) -> Sums:
    """What the lake's rows sum up to."""
    table = lake.query(
        "SELECT count(*) AS requests, count(*) FILTER (WHERE error <> '') AS errors, "
        "coalesce(sum(prompt), 0) AS prompt, coalesce(sum(completion), 0) AS completion, "
        "coalesce(sum(cached), 0) AS cached, coalesce(sum(duration_ms), 0) / 1000 AS duration_s FROM lake"
    ).read_all()
    found = {name: table.column(name).to_pylist()[0] for name in table.column_names}
    return Sums(**{**found, "duration_s": round(float(found["duration_s"]), 6)})


def left(folder: Path) -> list[Path]:
    return [path for kind in (OPEN, CLOSED) for path in (folder / "journal").glob(f"*/*{kind}")]


def once(records: list[Exchanged]) -> Counter[str]:
    return Counter(each.id for each in records)


def rounded(total: Sums) -> Sums:
    total.duration_s = round(total.duration_s, 6)
    return total


async def test_everything_arrives_and_the_journal_is_empty(
    tmp_path: Path, lake: Lake, rollups: Rollups
) -> None:
    records = [record(number, error="queue_full" if number % 5 == 0 else "") for number in range(300)]
    journal(tmp_path, records, segment_bytes=20_000)
    segments = len(left(tmp_path))
    done = Shipper(tmp_path / "journal", lake, rollups).ship()
    assert done == Shipped(segments=segments, rows=300, commits=1)
    assert segments > 3
    assert ids(lake) == once(records)
    assert left(tmp_path) == []
    assert rounded(rollups.total()) == sums(lake)
    assert (rollups.total().requests, rollups.total().errors) == (300, 60)


async def test_nothing_to_ship_makes_no_commit(tmp_path: Path, lake: Lake, rollups: Rollups) -> None:
    journal(tmp_path, [record()])
    shipper = Shipper(tmp_path / "journal", lake, rollups)
    shipper.ship()
    version = lake.table().version()
    assert shipper.ship() == Shipped()
    assert lake.table().version() == version


@pytest.mark.parametrize("point", FAULTS)
@pytest.mark.parametrize("time", [1, 2])
async def test_killed_at_any_point_every_record_arrives_once(
    tmp_path: Path, lake: Lake, rollups: Rollups, point: str, time: int
) -> None:
    """Killed at the `time`-th passing of `point`, then again at its next, then let be."""
    records = [record(number) for number in range(120)]
    journal(tmp_path, records[:60], segment_bytes=5_000)
    journal(tmp_path, records[60:], segment_bytes=5_000)
    passed = 0

    def fault(at: str) -> None:
        nonlocal passed
        passed += at == point
        if at == point and passed in (time, time + 1):
            raise Killed(at)

    kills = 0
    for _ in range(4):
        try:
            Shipper(tmp_path / "journal", lake, rollups, fault=fault).ship()
        except Killed:
            kills += 1
    again = point != "after commit"  # the lake has it then
    assert kills == (time == 1) * (1 + again) + (time == 2) * 2 * (point == "between deletions")
    assert ids(lake) == once(records)
    assert rounded(rollups.total()) == sums(lake)
    assert left(tmp_path) == []


async def test_new_segments_after_a_kill_are_not_taken_for_old_ones(
    tmp_path: Path, lake: Lake, rollups: Rollups
) -> None:
    first, second = [[record(number) for number in range(20)] for _ in range(2)]

    def fault(at: str) -> None:
        if at == "after commit":
            raise Killed(at)

    journal(tmp_path, first)
    with pytest.raises(Killed):
        Shipper(tmp_path / "journal", lake, rollups, fault=fault).ship()
    journal(tmp_path, second)
    done = Shipper(tmp_path / "journal", lake, rollups).ship()
    assert (done.rows, done.commits) == (20, 1)
    assert ids(lake) == once(first + second)
    assert rounded(rollups.total()) == sums(lake)


async def test_two_shippers_at_once_ship_everything_once(
    tmp_path: Path, lake: Lake, rollups: Rollups
) -> None:
    records = [record(number) for number in range(40)]
    journal(tmp_path, records)
    other = Shipper(tmp_path / "journal", lake, rollups)

    def meanwhile(at: str) -> None:
        if at == "before commit":
            other.ship()

    done = Shipper(tmp_path / "journal", lake, rollups, fault=meanwhile).ship()
    assert (done.rows, done.commits) == (0, 0)  # the other was faster, with both
    assert ids(lake) == once(records)
    assert rounded(rollups.total()) == sums(lake)


async def test_another_commit_meanwhile_only_costs_a_second_look(
    tmp_path: Path, lake: Lake, rollups: Rollups, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(number) for number in range(10)]
    journal(tmp_path, records)
    looked: list[DeltaTable] = []
    real = Lake.table

    def stale(self: Lake) -> DeltaTable:
        table = real(self)
        looked.append(table)
        if len(looked) == 2:  # the look before the write: another writer commits after it
            from gateway.traffic.lake import batch_of
            from gateway.traffic.row import row_of

            Lake(lake.uri).append([batch_of([row_of(record(99))])], "another writer", 1)
        return table

    monkeypatch.setattr(Lake, "table", stale)
    Shipper(tmp_path / "journal", lake, rollups).ship()
    monkeypatch.undo()
    found = ids(lake)
    assert found.total() == 11 and all(found[each.id] == 1 for each in records)


async def test_while_postgres_is_away_nothing_is_lost_or_doubled(
    tmp_path: Path, lake: Lake, rollups: Rollups
) -> None:
    records = [record(number) for number in range(30)]
    journal(tmp_path, records)
    away = Rollups(create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing"))
    for _ in range(3):
        with pytest.raises(OperationalError):
            Shipper(tmp_path / "journal", lake, away).ship()
    assert len(left(tmp_path)) == 1
    Shipper(tmp_path / "journal", lake, rollups).ship()
    assert ids(lake) == once(records)
    assert rollups.total().requests == 30


async def test_while_the_store_is_away_nothing_is_lost_or_doubled(tmp_path: Path, rollups: Rollups) -> None:
    records = [record(number) for number in range(30)]
    journal(tmp_path, records)
    (tmp_path / "mount").write_text("not mounted")
    lake = Lake(str(tmp_path / "mount" / "lake"))
    for _ in range(3):
        with pytest.raises(OSError):
            Shipper(tmp_path / "journal", lake, rollups).ship()
    assert rollups.total().requests == 0
    (tmp_path / "mount").unlink()
    Shipper(tmp_path / "journal", lake, rollups).ship()
    assert ids(lake) == once(records)
    assert rollups.total().requests == 30


async def test_damage_is_told_and_costs_nothing_else(
    tmp_path: Path, lake: Lake, rollups: Rollups, caplog: pytest.LogCaptureFixture
) -> None:
    records = [record(number) for number in range(3)]
    journal(tmp_path, records[:2])
    (path,) = left(tmp_path)
    content = bytearray(path.read_bytes())
    content[60] ^= 1  # within the first record
    path.write_bytes(content)
    path.with_name(f"000000000002{CLOSED}").write_bytes(b"not a segment at all, but long enough to be one")
    with caplog.at_level(logging.ERROR):
        done = Shipper(tmp_path / "journal", lake, rollups).ship()
    assert (done.rows, done.damaged) == (1, 2)
    assert ids(lake) == once(records[1:2])
    assert "no segment of a journal" in caplog.text and "1 frames, of some records each" in caplog.text
    (kept,) = (tmp_path / "journal").glob("*/*.damaged")  # for whoever wants to look
    assert kept.stat().st_size > 40


async def test_the_tables_log_keeps_no_values_of_texts(tmp_path: Path, lake: Lake, rollups: Rollups) -> None:
    """They would outlast the rows."""
    journal(tmp_path, [record(number, unit="alice@example.com") for number in range(3)])
    Shipper(tmp_path / "journal", lake, rollups).ship()
    log = "".join(path.read_text() for path in (tmp_path / "lake" / "_delta_log").glob("*.json"))
    assert "minValues" in log
    assert "alice" not in log and "question" not in log and "key_1" not in log


async def test_what_a_killed_shipper_left_uncommitted_goes_after_a_day(
    tmp_path: Path, lake: Lake, rollups: Rollups
) -> None:
    records = [record(number) for number in range(50)]
    journal(tmp_path, records)
    Shipper(tmp_path / "journal", lake, rollups).ship()
    committed = next((tmp_path / "lake").rglob("*.parquet"))
    old, young = committed.with_name("part-old.parquet"), committed.with_name("part-young.parquet")
    for orphan in (old, young):
        orphan.write_bytes(committed.read_bytes())
    a_day_ago = time.time() - (ORPHAN_HOURS * 3600 + 60)
    os.utime(old, (a_day_ago, a_day_ago))
    os.utime(committed, (a_day_ago, a_day_ago))
    lake.vacuum(0)
    assert old.exists(), "what a commit named is not what this is about"
    lake.drop_orphans()
    assert (False, True, True) == (old.exists(), young.exists(), committed.exists())
    assert ids(lake) == once(records)
