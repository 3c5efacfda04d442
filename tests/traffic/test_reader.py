"""Reading the lake and the journal as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.traffic.journal import Journal
from gateway.traffic.lake import Lake, batch_of
from gateway.traffic.query import Wanted
from gateway.traffic.reader import BATCH_ROWS, Reader
from gateway.traffic.record import METADATA, Exchanged, encode
from gateway.traffic.row import row_of
from gateway.traffic.segment import CLOSED, read_header
from tests.traffic.records import AT, record


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake = Lake(str(folder / "lake"))
        self.reader = Reader(self.lake, folder / "journal")

    def journal(self, *records: Exchanged) -> None:
        writer = Journal(self.folder / "journal")
        writer.start()
        for each in records:
            writer.append(encode(each))
        writer.stop()

    def ship(self, *records: Exchanged, writer: str = "another", number: int = 1) -> None:
        self.lake.append([batch_of([row_of(each) for each in records])], writer, number)

    def ids(self, **wanted: Any) -> list[str]:
        return [row["id"] for row in self.reader.rows(Wanted(**{"limit": None, **wanted}))]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "journal").mkdir()
    return Place(tmp_path)


def test_nothing_was_asked_yet(place: Place) -> None:
    assert place.ids() == [] and place.reader.stats(Wanted()) == []


def test_both_are_read_as_one_the_newest_first(place: Place) -> None:
    old, new = record(1), record(2)
    place.ship(old)
    place.journal(new)
    assert place.ids() == [new.id, old.id]
    assert place.ids(oldest_first=True) == [old.id, new.id]
    assert place.ids(limit=1) == [new.id]


def test_what_came_within_a_millisecond_is_in_order_and_on_one_page_only(place: Place) -> None:
    given = [record(at=AT + number / 1e5) for number in range(9)]
    place.ship(*given[::2])
    place.journal(*given[1::2])
    newest = [each.id for each in reversed(given)]
    assert place.ids() == newest
    first = place.reader.page(Wanted(limit=4))
    second = place.reader.page(Wanted(limit=5, after=first["next"]))
    assert [row["id"] for page in (first, second) for row in page["data"]] == newest
    assert list(first["data"][0])[:2] == ["at", "at_us"]
    assert first["data"][0]["at"] == "2026-11-18T11:06:40.000Z"


def test_a_day_is_from_midnight_to_midnight(place: Place) -> None:
    midnight, day = AT - AT % 86_400, 86_400
    times = [midnight - 0.001, midnight, midnight + day - 0.001, midnight + day]
    given = [record(at=at) for at in times]
    place.ship(*given[:2])
    place.journal(*given[2:])
    assert place.ids(since=midnight, until=midnight + day) == [given[2].id, given[1].id]
    assert place.ids(since=midnight + 0.001, until=midnight + day + 0.001) == [given[3].id, given[2].id]


def test_a_segment_that_is_in_the_lake_and_not_deleted_yet_is_read_once(place: Place) -> None:
    """The shipper was killed between its commit and the deletion."""
    given = record(1)
    place.journal(given)
    (segment,) = (place.folder / "journal").glob(f"*/*{CLOSED}")
    header = read_header(segment)
    place.ship(given, writer=str(header.writer), number=header.number)
    assert place.ids() == [given.id]


def test_pages_split_exchanges_of_one_moment_and_lose_none(place: Place) -> None:
    given = [record(0) for _ in range(7)]
    place.ship(*given[:4])
    place.journal(*given[4:])
    seen: list[str] = []
    after = None
    for _ in range(4):
        page = place.reader.page(Wanted(limit=2, after=after))
        seen += [row["id"] for row in page["data"]]
        after = page["next"]
    assert after is None
    assert sorted(seen) == sorted(each.id for each in given)


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"route": "other"}, [3]),
        ({"version": "other@1"}, [3]),
        ({"tenant": "acme"}, [2]),
        ({"key": "key_9"}, [4]),
        ({"unit": "user-1"}, [1]),
        ({"since": AT + 2, "until": AT + 4}, [3, 2]),
        ({"error": "queue_full"}, [4]),
        ({"error": "any"}, [4]),
        ({"error": "none"}, [5, 3, 2, 1]),
        ({"text": "ANSWER 2"}, [2]),
        ({"text": "question 5"}, []),
        ({"full": True}, [4, 3, 2, 1]),
        ({"ids": ()}, []),
        ({"unit": "' OR ''='"}, []),
        ({"text": "%"}, []),
    ],
)
def test_filters(place: Place, wanted: dict[str, Any], numbers: list[int]) -> None:
    given = {
        1: record(1),
        2: record(2, tenant="acme"),
        3: record(3, route="other", version="other@1"),
        4: record(4, key="key_9", error="queue_full"),
        5: record(5, level=METADATA, request=b"", answer=b""),
    }
    place.ship(*list(given.values())[:3])
    place.journal(*list(given.values())[3:])
    assert place.ids(**wanted) == [given[number].id for number in numbers]


@pytest.mark.parametrize(
    "wanted",
    [{"limit": 0}, {"limit": 1001}, {"after": "x"}, {"since": -1}, {"until": 1e12}, {"since": 2, "until": 1}],
)
def test_what_cannot_be_meant_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        Wanted(**wanted).check()


def test_an_export_has_whole_conversations_only(place: Place) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    asked = {"messages": [{"role": "user", "content": "Look"}], "tools": tools}
    place.ship(
        record(1, request=json.dumps(asked).encode()),
        record(2, path="/v1/completions", request=json.dumps({"prompt": "Once"}).encode()),
        record(3, level=METADATA, request=b"", answer=b""),
        record(4, error="queue_full"),
    )
    lines = [json.loads(line) for line in b"".join(place.reader.export(Wanted(limit=None))).splitlines()]
    first, second = sorted(lines, key=lambda line: "tools" not in line)
    assert first["messages"] == [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": "answer 1"},
    ]
    assert first["tools"] == tools and first["metadata"]["route"] == "support"
    assert [message["role"] for message in second["messages"]] == ["user", "assistant"]
    assert second["messages"][0]["content"] == "Once"


def test_an_export_tells_about_each_exchange_where_that_is_wanted(place: Place) -> None:
    place.ship(record(1, version="support@1", unit="alice"))
    place.journal(record(2, engine="import/a.jsonl", redacted=True))
    lines = [json.loads(line) for line in b"".join(place.reader.export(Wanted(), about=True)).splitlines()]
    served, imported = sorted((line["metadata"] for line in lines), key=lambda about: about["at"])
    assert (served["at"], served["unit"], served["version"]) == (AT + 1, "alice", "support@1")
    assert (served["consent"], served["key"], served["tenant"]) == ("terms of 2026", "key_1", "default")
    assert (served["imported"], served["redacted"], served["cut"]) == (False, False, False)
    assert (imported["imported"], imported["redacted"], imported["finish_reason"]) == (True, True, "stop")


def test_an_export_says_no_more_than_before_where_nobody_asks(place: Place) -> None:
    place.ship(record(1))
    (line,) = b"".join(place.reader.export(Wanted())).splitlines()
    assert set(json.loads(line)["metadata"]) == {"id", "route", "version"}


def test_an_export_comes_in_small_pieces(place: Place) -> None:
    place.ship(*(record(number) for number in range(BATCH_ROWS + 1)))
    pieces = list(place.reader.export(Wanted(limit=None)))
    assert sum(piece.count(b"\n") for piece in pieces) == BATCH_ROWS + 1
    assert max(piece.count(b"\n") for piece in pieces) <= BATCH_ROWS


def test_stats_count_what_both_have(place: Place) -> None:
    place.ship(record(1), record(2))
    place.journal(record(3, error="queue_full"), record(4, route="other", version="other@1"))
    support, other = place.reader.stats(Wanted())
    assert (support["route"], support["requests"], support["errors"]) == ("support", 3, 1)
    assert (support["completion"], other["requests"]) == (1 + 2, 1)


def test_what_a_reader_needs_for_a_while_does_not_come_and_go_among_the_writers(place: Place) -> None:
    place.ship(record(1))
    place.journal(record(2))
    place.ids()
    before = sorted(path.name for path in (place.folder / "journal").iterdir())
    reading = place.reader.export(Wanted(limit=None))
    next(reading)
    # Whoever lists the writers' segments meanwhile would trip over a folder that goes.
    assert before == sorted(path.name for path in (place.folder / "journal").iterdir())
    reading.close()  # type: ignore[attr-defined]
    assert before == sorted(path.name for path in (place.folder / "journal").iterdir())
