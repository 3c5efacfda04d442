"""Importing on a real Postgres and a real Delta table: each exchange once, killed anywhere."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from adapters.errors import Refused
from gateway.db import Database
from gateway.errors import BadRequest, TooLarge, Unavailable
from gateway.traffic.imports import MAX_LINES, STAGED, Import, Imports
from gateway.traffic.journal import Journal
from gateway.traffic.lake import Lake
from gateway.traffic.policy import Policies, Policy, Rule
from gateway.traffic.query import Wanted
from gateway.traffic.reader import Reader
from gateway.traffic.record import encode
from gateway.traffic.rollup import Rollups
from gateway.traffic.shipper import Shipper
from gateway.traffic.writers import own
from tests.traffic.records import record

SALT = b"s" * 32
SUPPORT = Import("support", "calls.jsonl")


class Killed(BaseException):
    """As if the process had ended here: nothing of ours catches it."""


class Place:
    """A journal, a lake, a database, and an importer. `next()` is the process after this one."""

    def __init__(self, folder: Path, db: Database, engine: Engine) -> None:
        self.db = db
        self.folder = folder
        self.lake = Lake(str(folder / "lake"))
        self.rollups = Rollups(engine)
        self.policies = Policies(db.engine, Policy(consent="terms of 2026"))
        self.exported: Collection[str] = ()
        self.made: list[Imports] = []

    def imports(self, fault: Callable[[str], None] = lambda point: None, space: int = 1 << 30) -> Imports:
        async def known(route: str, ids: Sequence[str]) -> Collection[str]:
            return set(self.exported) & set(ids)

        made = Imports(
            self.db.engine,
            self.folder / "journal",
            self.policies,
            SALT,
            known,
            journal_bytes=space,
            fault=fault,
        )
        self.made.append(made)
        return made

    def rows(self) -> list[dict[str, Any]]:
        """All that can be read."""
        (self.folder / "journal").mkdir(exist_ok=True)
        reader = Reader(self.lake, self.folder / "journal")
        return list(reader.rows(Wanted(limit=None)))

    def ship(self) -> int:
        return Shipper(self.folder / "journal", self.lake, self.rollups).ship().rows

    def staged(self) -> list[Path]:
        return list((self.folder / "journal").glob(f"*/*{STAGED}"))


@pytest.fixture
def place(tmp_path: Path, db: Database) -> Iterator[Place]:
    engine = create_engine(db.url)
    yield Place(tmp_path, db, engine)
    engine.dispose()


def talk(number: int, **more: Any) -> dict[str, Any]:
    question = {"role": "user", "content": f"question {number}"}
    return {"messages": [question, {"role": "assistant", "content": f"answer {number}"}], **more}


def piece(numbers: Sequence[int], **more: Any) -> bytes:
    return b"\n".join(json.dumps(talk(number, **more)).encode() for number in numbers)


async def counts(imports: Imports, content: bytes, wanted: Import = SUPPORT) -> tuple[int, int, int]:
    """Imported, there already, refused."""
    done = await imports.take(wanted, content)
    return done["imported"], done["already_there"], len(done["refused"])


async def test_a_piece_sent_twice_is_imported_once(place: Place) -> None:
    imports = place.imports()
    assert await counts(imports, piece(range(5)) + b"\nx") == (5, 0, 1)
    assert await counts(imports, piece(range(5)) + b"\nx") == (0, 5, 1)
    assert len(place.rows()) == 5
    assert place.ship() == 5
    assert await counts(imports, piece(range(7))) == (2, 5, 0)
    assert place.ship() == 2 and len(place.rows()) == 7


async def test_the_same_line_twice_in_a_piece_is_one_exchange(place: Place) -> None:
    assert await counts(place.imports(), piece([1, 2, 1])) == (2, 1, 0)


async def test_the_same_exchange_can_be_in_two_routes(place: Place) -> None:
    imports = place.imports()
    assert await counts(imports, piece([1])) == (1, 0, 0)
    assert await counts(imports, piece([1]), Import("billing", "calls.jsonl")) == (1, 0, 0)


@pytest.mark.parametrize(
    ("point", "left"), [("noted", (4, 0, 0)), ("staged", (4, 0, 0)), ("committed", (0, 4, 0))]
)
@pytest.mark.parametrize("same_process", [False, True])
async def test_killed_anywhere_and_sent_again_each_is_there_once(
    place: Place, point: str, left: tuple[int, int, int], same_process: bool
) -> None:
    """Where the transaction was over, the next to come finishes it; where it was not, nothing was done."""
    armed = [point]

    def kill(at: str) -> None:
        if at in armed:
            armed.clear()
            raise Killed

    imports = place.imports(kill)
    with pytest.raises(Killed):
        await imports.take(SUPPORT, piece(range(4)))
    if not same_process:
        await imports.stop()
        imports = place.imports()
        await imports.start()
        assert place.staged() == []
    assert await counts(imports, piece(range(4))) == left
    await imports.stop()
    assert len(place.rows()) == 4
    assert place.ship() == 4
    assert len({row["id"] for row in place.rows()}) == len(place.rows()) == 4


async def test_nobody_reads_what_is_staged(place: Place) -> None:
    def look(at: str) -> None:
        if at == "staged":
            assert len(place.staged()) == 1 and place.rows() == []

    await place.imports(look).take(SUPPORT, piece(range(3)))
    assert place.staged() == [] and len(place.rows()) == 3


async def test_a_folder_is_finished_before_the_next_journal_writes_there(place: Place) -> None:
    """Its numbers go on: what was staged under an older one would never be shipped."""

    def kill(at: str) -> None:
        if at == "committed":
            raise Killed

    killed = place.imports(kill)
    with pytest.raises(Killed):
        await killed.take(SUPPORT, piece(range(3)))
    await killed.stop()
    await place.imports().start()
    journal = Journal(place.folder / "journal")
    journal.start()
    journal.append(encode(record()))
    journal.stop()
    place.ship()
    assert len(place.rows()) == 4


async def test_what_a_process_left_open_is_shipped_although_an_importer_holds_its_folder(
    place: Place,
) -> None:
    journal = Journal(place.folder / "journal", write_every_s=0)
    journal.start()
    journal.append(encode(record()))
    journal.stop()
    (closed,) = (place.folder / "journal").glob("*/*.segment")
    closed.rename(closed.with_suffix(".open"))  # as a kill leaves it
    await place.imports().take(SUPPORT, piece([1]))
    assert place.ship() == 2


async def test_two_importers_at_once_import_each_once(place: Place) -> None:
    both = [place.imports(), place.imports()]
    done = await asyncio.gather(*(counts(each, piece(range(50))) for each in both))
    assert sum(each[0] for each in done) == 50 and sum(each[1] for each in done) == 50
    assert len(place.rows()) == 50


async def test_a_dry_run_leaves_nothing(place: Place) -> None:
    imports = place.imports()
    await imports.take(SUPPORT, piece([0]))
    dry = Import("support", "calls.jsonl", dry_run=True)
    for _ in range(2):
        assert await counts(imports, piece(range(3)) + b"\nx", dry) == (2, 1, 1)
    assert len(place.rows()) == 1


async def test_what_this_hotswap_has_exported_is_there_already(place: Place) -> None:
    now = int(time.time() * 1000)
    ids = [f"{now:012x}7abc81234567{number:08x}" for number in range(2)]
    place.exported = ids[:1]
    rows = [talk(1, metadata={"id": id, "route": "support", "version": "s@1"}) for id in ids]
    content = b"\n".join(json.dumps(row).encode() for row in rows)
    assert await counts(place.imports(), content) == (1, 1, 0)


async def test_nothing_is_imported_where_nothing_is_remembered(place: Place) -> None:
    await place.policies.put(Rule("route", "support", capture="off"))
    with pytest.raises(BadRequest, match=r"capture is off.*--capture full"):
        await place.imports().take(SUPPORT, piece([1]))


async def test_the_policy_of_the_route_holds(place: Place) -> None:
    await place.policies.put(Rule("route", "support", redact="strict", retention_days=7))
    await place.imports().take(SUPPORT, piece([1], user="carol.planted@example.org"))
    (row,) = place.rows()
    assert (row["redacted"], row["keep_days"], row["consent"]) == (True, 7, "terms of 2026")
    for path in place.folder.rglob("*"):
        assert not path.is_file() or b"carol.planted" not in path.read_bytes()


async def test_a_consent_that_is_given_takes_the_place_of_the_policys(place: Place) -> None:
    await place.imports().take(Import("support", "a", consent="contract 7", tenant="acme"), piece([1]))
    (row,) = place.rows()
    assert (row["consent"], row["tenant"]) == ("contract 7", "acme")


async def test_what_was_imported_is_no_served_traffic(place: Place) -> None:
    """Neither in the sums nor in the statistics of what was served."""
    journal = Journal(place.folder / "journal")
    journal.start()
    journal.append(encode(record()))
    journal.stop()
    imports = place.imports()
    for number, source in enumerate(("a.jsonl", "b.jsonl", "b.jsonl")):
        await imports.take(Import("support", source), piece([number], model="support@3f9c2ab71e04"))
    for _ in range(2):
        stats = Reader(place.lake, place.folder / "journal").stats(Wanted(limit=None))
        told = {row["imported"]: (row["requests"], row["duration_p50_ms"]) for row in stats}
        assert told == {True: (3, None), False: (1, 250.0)}
        place.ship()
    assert place.rollups.total().requests == 1


async def test_when_retention_has_taken_it_it_can_be_imported_again(place: Place) -> None:
    imports = place.imports()
    await imports.take(SUPPORT, piece([1]))
    async with place.db.engine.begin() as connection:
        await connection.execute(text("UPDATE traffic_imported SET gone = current_date - 1"))
    assert await counts(imports, piece([1]), Import("support", "a", dry_run=True)) == (1, 0, 0)
    assert await counts(imports, piece([1])) == (1, 0, 0)


async def test_an_import_waits_while_the_journal_is_half_full(place: Place) -> None:
    with pytest.raises(Unavailable, match="waits until the shipper") as told:
        await place.imports(space=100).take(SUPPORT, piece([1]))
    assert told.value.retry_after_s
    assert await counts(place.imports(), piece([1])) == (1, 0, 0)


async def test_a_disk_that_fails_notes_nothing(place: Place) -> None:
    (place.folder / "journal").write_text("no folder")
    with pytest.raises(Unavailable, match="cannot be written"):
        await place.imports().take(SUPPORT, piece([1]))
    (place.folder / "journal").unlink()
    assert await counts(place.imports(), piece([1])) == (1, 0, 0)


async def test_one_process_writes_one_folder_and_lets_it_go(place: Place) -> None:
    imports = place.imports()
    for number in range(3):
        await imports.take(SUPPORT, piece([number]))
    (folder,) = {path.parent for path in (place.folder / "journal").glob("*/*.segment")}
    await imports.stop()
    taken, lock = own(place.folder / "journal")
    lock.release()
    assert taken == folder


@pytest.mark.parametrize(
    ("wanted", "content", "kind", "says"),
    [
        (Import("No Route", "a"), b"", Refused, "not usable"),
        (Import("support", ""), b"", BadRequest, "source is 1 to 200"),
        (Import("support", "a", tenant="a\nb"), b"", BadRequest, "tenant is 1 to 200"),
        (Import("support", "a", consent="x" * 201), b"", BadRequest, "consent is at most"),
        (SUPPORT, b"\n" * (MAX_LINES + 1), TooLarge, "send several"),
    ],
)
async def test_a_wrong_wish_says_what_is_wrong(
    place: Place, wanted: Import, content: bytes, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        await place.imports().take(wanted, content)
