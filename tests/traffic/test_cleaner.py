"""What is left of a record whose policy keeps less than all of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.traffic.cleaner import MAX_TEXT_BYTES, Cleaner, cleaned
from gateway.traffic.journal import Journal
from gateway.traffic.record import METADATA, Exchanged, decode, encode
from gateway.traffic.row import row_of
from gateway.traffic.segment import CLOSED, payloads
from gateway.traffic.unit import hashed
from tests.traffic.records import record

SALT = b"s" * 32


def journalled(folder: Path) -> list[Exchanged]:
    paths = folder.glob(f"*/*{CLOSED}")
    return [record for path in paths for payload in payloads(path) for record in decode(payload)]


def strict(**request: Any) -> Exchanged:
    asked = {"model": "support", "messages": [{"role": "user", "content": "I am bob@example.com"}], **request}
    return record(redacted=True, request=json.dumps(asked).encode())


@pytest.mark.parametrize("name", ["user", "safety_identifier", "prompt_cache_key"])
def test_a_strict_route_keeps_whom_it_was_for_as_a_hash_wherever_it_was_said(name: str) -> None:
    row = row_of(cleaned(strict(**{name: "jane-doe"}), SALT))
    assert row["unit"] == hashed(b"jane-doe", SALT)
    assert "jane-doe" not in json.dumps(row)
    assert json.loads(row["parameters"] or "")[name] == row["unit"]


def test_names_beside_the_unit_are_hashed_too() -> None:
    row = row_of(cleaned(strict(user="jane-doe", safety_identifier="jd-7"), SALT))
    assert row["unit"] == hashed(b"jd-7", SALT)
    assert json.loads(row["parameters"] or "")["user"] == hashed(b"jane-doe", SALT)


def test_a_strict_route_keeps_redacted_words() -> None:
    given = strict()
    kept = cleaned(given, SALT)
    assert json.loads(row_of(kept)["messages"] or "") == [{"role": "user", "content": "I am [EMAIL]"}]
    assert b"bob@" not in encode(kept) and decode(encode(kept)) == [kept]
    assert json.loads(row_of(kept)["response"] or "")[0]["content"] == "answer 0"


def test_what_is_too_long_to_be_redacted_is_kept_without_words() -> None:
    given = strict(messages=[{"role": "user", "content": "x " * MAX_TEXT_BYTES}])
    row = row_of(cleaned(given, SALT))
    assert (row["full"], row["messages"], row["response"]) == (False, None, None)
    assert row["prompt"] == 10


def test_metadata_has_no_words_but_whom_it_was_for() -> None:
    row = row_of(cleaned(record(3, level=METADATA), SALT))
    assert (row["messages"], row["response"], row["parameters"], row["metadata"]) == (None,) * 4
    assert (row["unit"], row["completion"], row["finish_reason"]) == ("user-3", 3, "stop")


@pytest.mark.parametrize("request_body", [b"", b"\xff", b"[]", b"[" * 100_000])
def test_garbage_is_cleaned_without_an_exception(request_body: bytes) -> None:
    for level in (METADATA, 2):
        given = record(level=level, redacted=True, request=request_body, answer=b"\xff{", sent_bytes=2)
        assert row_of(cleaned(given, SALT))["status"] == 200


async def test_all_that_was_handed_over_is_journalled_by_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.start()
    cleaner = Cleaner(journal, SALT)
    cleaner.start()
    for number in range(200):
        cleaner.clean(record(number, redacted=True))
    await cleaner.stop()
    await asyncio.to_thread(journal.stop)
    kept = journalled(tmp_path)
    assert len(kept) == 200 and all(each.cleaned for each in kept)
