"""What happened is kept for a while, numbered, counted, and told in the log without secrets."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from gateway.fleet.events import LONGEST_REASON, WARNED, Event, Events, Kind, clean

VERSION = "support@3f9c2ab71e04"
DOC = Path(__file__).parents[2] / "docs" / "fleet.md"


def filled(count: int, size: int = 1000) -> Events:
    events = Events(size)
    for number in range(1, count + 1):
        events.add(Kind.LOADED, "local", VERSION, f"number {number}")
    return events


def ids(events: list[Event]) -> list[int]:
    return [event.id for event in events]


def test_an_event_says_when_what_where_and_why() -> None:
    events = Events(now=lambda: 1_790_000_000.5)
    events.add(Kind.EVICTED, "10.0.0.1:8000", VERSION, "the least recently used of 64")
    expected = Event(
        1, 1_790_000_000.5, Kind.EVICTED, "10.0.0.1:8000", VERSION, "the least recently used of 64"
    )
    assert [expected] == events.recent(10)


def test_ids_grow_by_one_and_are_never_used_again() -> None:
    assert [3, 4, 5] == ids(filled(5, size=3).recent(10))


def test_only_the_last_thousand_are_kept() -> None:
    assert list(range(2, 1002)) == ids(filled(1001).recent(5000))


@pytest.mark.parametrize(("count", "expected"), [(2, [4, 5]), (0, []), (99, [1, 2, 3, 4, 5]), (-1, [])])
def test_recent_gives_the_last_ones_oldest_first(count: int, expected: list[int]) -> None:
    assert expected == ids(filled(5).recent(count))


@pytest.mark.parametrize(("since", "expected"), [(0, [1, 2, 3]), (1, [2, 3]), (3, [])])
def test_since_gives_what_came_after(since: int, expected: list[int]) -> None:
    assert expected == ids(filled(3).since(since))


def test_since_an_event_that_is_kept_no_more_gives_all_and_shows_the_gap() -> None:
    assert [4, 5] == ids(filled(5, size=2).since(1))


def test_since_an_event_of_an_earlier_process_gives_all() -> None:
    assert [1, 2] == ids(filled(2).since(700))


def test_nothing_happened_since_the_start_of_a_process_that_just_started() -> None:
    assert [] == Events().since(0)
    assert [] == Events().since(700)


def test_every_kind_is_counted_from_nought() -> None:
    events = filled(3)
    assert {kind: 3 if kind is Kind.LOADED else 0 for kind in Kind} == events.counts


def test_counts_outlive_what_is_kept() -> None:
    assert 9 == filled(9, size=2).counts[Kind.LOADED]


def test_counts_cannot_be_changed_from_outside() -> None:
    with pytest.raises(TypeError):
        Events().counts[Kind.LOADED] = 5  # type: ignore[index]


def test_a_listener_hears_each_event_when_it_is_kept_already() -> None:
    heard: list[tuple[Event, int]] = []
    events = Events(listeners=[lambda event: heard.append((event, len(events.recent(9))))])
    events.add(Kind.JOINED, "local")
    events.add(Kind.LEFT, "local")
    assert [("joined", 1), ("left", 2)] == [(str(event.kind), kept) for event, kept in heard]


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_is_one_line_in_the_log_and_bad_news_is_a_warning(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        Events().add(kind, "10.0.0.1:8000", VERSION, "a reason")
    (record,) = caplog.records
    assert f"engine 10.0.0.1:8000: {kind} {VERSION}: a reason" == record.getMessage()
    bad = kind in (Kind.EJECTED, Kind.DEGRADED, Kind.LEFT)
    assert (logging.WARNING if bad else logging.INFO) == record.levelno
    assert bad == (kind in WARNED)


def test_a_line_about_the_engine_itself_names_no_version(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Events().add(Kind.JOINED, "local")
    assert ["engine local: joined"] == caplog.messages


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("two\nlines\r\n\tand \x1b[31mred", "two lines and [31mred"),
        ("401 for Authorization: Bearer abc.def-1", "401 for Authorization: Bearer …"),
        ("http://user:secret@10.0.0.1:8000/ is gone", "http://…@10.0.0.1:8000/ is gone"),
        ("no such key hs-admin-Zm9vYmFyYmF6cXV4Zm9v", "no such key …"),
        ("--api-key=s3cret refused", "--api-key=… refused"),
        ('{"api_key": "s3cret", "x": 1}', '{"api_key": "…", "x": 1}'),
        ("no first token: 60 s", "no first token: 60 s"),
        ("the password file is missing", "the password file is missing"),
        ("rank 64 of support@3f9c2ab71e04 is too large", "rank 64 of support@3f9c2ab71e04 is too large"),
    ],
)
def test_a_reason_is_one_line_without_keys(reason: str, expected: str) -> None:
    assert expected == clean(reason)
    events = Events()
    events.add(Kind.DEGRADED, "local", None, reason)
    assert [expected] == [event.reason for event in events.recent(1)]


def test_a_long_reason_is_cut() -> None:
    assert LONGEST_REASON == len(clean("x" * 10_000))
    assert clean("x" * 10_000).endswith("x…")


def test_a_full_engine_is_told_of_once_a_second_and_always_counted() -> None:
    now = [1000.0]
    events = Events(clock=lambda: now[0])
    for _ in range(100):
        events.add(Kind.NOT_NOW, "first", VERSION, "slots")
    events.add(Kind.NOT_NOW, "second", VERSION, "slots")
    now[0] += 1
    events.add(Kind.NOT_NOW, "first", VERSION, "slots")
    assert ["first", "second", "first"] == [event.engine for event in events.recent(10)]
    assert 102 == events.counts[Kind.NOT_NOW]


def test_an_engine_that_left_and_came_back_full_is_told_of_at_once() -> None:
    events = Events(clock=lambda: 1000.0)
    for kind in (Kind.NOT_NOW, Kind.LEFT, Kind.NOT_NOW):
        events.add(kind, "first")
    assert [Kind.NOT_NOW, Kind.LEFT, Kind.NOT_NOW] == [event.kind for event in events.recent(10)]


def test_a_ring_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one event"):
        Events(0)


def test_every_kind_is_explained_to_operators() -> None:
    section = DOC.read_text().partition("\n## Events")[2].partition("\n## ")[0]
    assert sorted(Kind) == sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
