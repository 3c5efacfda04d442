"""The lake in an object store, an S3 of somebody else's making: shipped once, read, erased, and missed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import msgspec
import pytest
from deltalake import DeltaTable
from sqlalchemy import create_engine

from gateway.db import Database
from gateway.traffic.journal import Journal
from gateway.traffic.lake import Lake, StoreError, batch_of, reason_of
from gateway.traffic.query import Wanted
from gateway.traffic.read import Question, serve
from gateway.traffic.reader import Reader
from gateway.traffic.record import Exchanged, encode
from gateway.traffic.rollup import Rollups
from gateway.traffic.row import row_of
from gateway.traffic.segment import CLOSED
from gateway.traffic.shipper import Shipper
from tests.s3 import BUCKET, S3
from tests.traffic.records import record


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as running:
        yield running


@pytest.fixture
def lake(s3: S3, tmp_path: Path) -> Lake:
    return Lake(f"s3://{BUCKET}/{tmp_path.name}", s3.options())


def journal(folder: Path, *records: Exchanged) -> None:
    """A writer's life: everything appended, and closed."""
    writer = Journal(folder)
    writer.start()
    for each in records:
        writer.append(encode(each))
    writer.stop()


def ids(lake: Lake) -> list[str]:
    return sorted(id for (id,) in lake.select("SELECT id FROM lake"))


def add(lake: Lake, writer: str, *records: Exchanged) -> bool:
    return lake.append([batch_of([row_of(each) for each in records])], writer, 1)


async def test_what_is_shipped_there_is_there_once_and_read_with_what_is_not(
    tmp_path: Path, lake: Lake, db: Database
) -> None:
    folder, given = tmp_path / "journal", [record(number) for number in range(4)]
    engine = create_engine(db.url)
    shipper = Shipper(folder, lake, Rollups(engine))
    journal(folder, *given[:3])
    (segment,) = folder.glob(f"*/*{CLOSED}")
    content = segment.read_bytes()
    assert shipper.ship().rows == 3
    segment.write_bytes(content)  # as if it had been killed before the deletion
    assert shipper.ship().rows == 0
    journal(folder, given[3])
    rows = Reader(lake, folder).rows(Wanted(limit=None, oldest_first=True))
    assert [row["id"] for row in rows] == [each.id for each in given]
    assert ids(lake) == sorted(each.id for each in given[:3])
    assert Rollups(engine).total().requests == 3
    engine.dispose()


def test_a_commit_that_loses_against_another_is_made_after_it(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = record(1), record(2)
    tables = [lake.table()]  # as it was before the other's commit
    add(lake, "other", other)
    real = lake.table

    def table() -> DeltaTable:
        return tables.pop() if tables else real()

    monkeypatch.setattr(lake, "table", table)
    assert add(lake, "one", one)
    assert ids(lake) == sorted([one.id, other.id])


def test_what_is_left_out_is_in_no_object_any_more(s3: S3, lake: Lake) -> None:
    gone, stays = record(1, unit="dave"), record(2, unit="erin")
    add(lake, "one", gone, stays)
    before = data_files(s3, lake)
    lake.leave_out("route = 'support'", "unit = 'dave'")
    lake.vacuum(0)
    assert ids(lake) == [stays.id]
    assert not before & data_files(s3, lake)


def test_a_store_that_goes_away_is_told_of_in_a_line(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3() as short_lived:
        options = {**short_lived.options(), "max_retries": "1"}
        lake = Lake(lake.uri, options)
        add(lake, "one", record(1))
        before = lake.table()
        short_lived.kill()
        with (
            monkeypatch.context() as patch
        ):  # it went between the look at the table and the read of its files
            patch.setattr(lake, "table", lambda: before)
            with pytest.raises(StoreError, match="parquet"):
                lake.select("SELECT * FROM lake")
        with pytest.raises(OSError, match="S3") as told:
            lake.select("SELECT * FROM lake")
        said = reason_of(told.value)
        assert "refused" in said and re.fullmatch(r"[ -~]+", said)
        question = Question("page", Wanted(), lake.uri, str(Path.cwd()), options)
        answers = BytesIO()
        serve(BytesIO(msgspec.json.encode(question) + b"\n"), answers)
        assert b'"status":503' in answers.getvalue() and b"refused" in answers.getvalue()


def data_files(s3: S3, lake: Lake) -> set[str]:
    """Names of the objects of the lake that have rows."""
    prefix = lake.uri.removeprefix(f"s3://{BUCKET}/")
    answer = httpx.get(f"http://127.0.0.1:{s3.port}/{BUCKET}", params={"list-type": "2", "prefix": prefix})
    return set(re.findall(r"<Key>([^<]*\.parquet)</Key>", answer.text))
