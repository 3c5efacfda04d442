"""From a piece of a file to records of the journal: marked, cleaned, and the same whenever it is done."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from gateway.requestid import when
from gateway.traffic.importing import Job, Prepared, prepare
from gateway.traffic.record import decode
from gateway.traffic.row import Row, imported, row_of
from gateway.traffic.unit import hashed
from tests.traffic.records import AT

SALT = b"s" * 32
MAIL = "alice.planted@example.com"


def job(**changes: Any) -> Job:
    given: dict[str, Any] = {
        "route": "support",
        "tenant": "default",
        "source": "calls.jsonl",
        "unit_field": "",
        "capture": "full",
        "redact": "off",
        "keep_days": 90,
        "consent": "terms of 2026",
        "salt": SALT,
        "now": AT,
    }
    return Job(**{**given, **changes})


def piece(*rows: Any) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def talk(question: str = "why?", answer: str = "so", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **more}


def rows(made: Prepared) -> list[Row]:
    return [row_of(record) for item in made.items for record in decode(item.payload)]


def test_a_row_says_that_it_was_imported_and_from_where() -> None:
    usage = {"prompt_tokens": 13, "completion_tokens": 18}
    choices = [{"message": {"role": "assistant", "content": "so"}, "finish_reason": "stop"}]
    response = {"id": "chatcmpl-1", "model": "gpt-4o", "created": AT - 60, "choices": choices, "usage": usage}
    asked = {
        "messages": [{"role": "user", "content": "why?"}],
        "temperature": 0,
        "user": "u7",
        "metadata": {"a": "b"},
    }
    (row,) = rows(prepare(job(), piece({"request": asked, "response": response})))
    assert imported(row) and row["engine"] == "import/calls.jsonl"
    assert (row["route"], row["version"], row["tenant"], row["unit"]) == (
        "support",
        "gpt-4o",
        "default",
        "u7",
    )
    assert (row["status"], row["outcome"], row["error"], row["finish_reason"]) == (
        200,
        "complete",
        "",
        "stop",
    )
    assert (row["prompt"], row["completion"], row["counted"]) == (13, 18, True)
    assert (row["consent"], row["keep_days"], row["sample"]) == ("terms of 2026", 90, 1.0)
    assert (row["key"], row["base"], row["ttft_ms"], row["duration_ms"]) == ("", "", None, 0.0)
    assert row["at"] == (AT - 60) * 1e6 and when(row["id"]).timestamp() == AT - 60
    assert json.loads(row["messages"] or "") == asked["messages"]
    assert json.loads(row["parameters"] or "") == {
        "temperature": 0,
        "user": "u7",
        "imported": {"id": "chatcmpl-1"},
    }
    assert json.loads(row["metadata"] or "") == {"a": "b"}
    assert json.loads(row["response"] or "") == [{"role": "assistant", "content": "so"}]


def test_what_has_no_time_is_of_now_and_the_same_tomorrow() -> None:
    today, tomorrow = prepare(job(), piece(talk())), prepare(job(now=AT + 86_400), piece(talk()))
    assert rows(today)[0]["at"] == AT * 1e6
    assert today.items[0].key == tomorrow.items[0].key


@pytest.mark.parametrize(
    ("other", "more"),
    [
        (talk(answer="otherwise"), {}),
        (talk(question="how?"), {}),
        (talk(created=AT - 5), {}),
        (talk(id="x"), {}),
        (talk(tools=[{}]), {}),
        (talk(), {"route": "billing"}),
        (talk(), {"tenant": "acme"}),
        (talk(), {"salt": b"t" * 32}),
    ],
)
def test_what_differs_is_another_exchange(other: dict[str, Any], more: dict[str, Any]) -> None:
    (one,), (two,) = prepare(job(), piece(talk())).items, prepare(job(**more), piece(other)).items
    assert one.key != two.key


def test_the_file_its_metadata_and_the_policy_do_not_make_another_exchange_of_it() -> None:
    (one,) = prepare(job(), piece(talk())).items
    changed = job(source="again.jsonl", redact="strict", keep_days=7, consent="other")
    (two,) = prepare(changed, piece(talk(metadata={"seen": "1"}))).items
    assert one.key == two.key


def test_refusals_have_the_numbers_of_their_lines() -> None:
    made = prepare(job(), b"\xef\xbb\xbf" + piece(talk(), 7, talk("how?")) + b"\n\n  \r\nx\n")
    assert [(each.line, each.reason.split(";")[0]) for each in made.refused] == [
        (2, "is JSON, but a number"),
        (6, "is no JSON (JSON is malformed: invalid character (byte 0))"),
    ]
    assert len(made.items) == 2


def test_a_line_that_is_nested_too_deeply_is_refused_and_ends_nothing() -> None:
    """Whether it is too deep to be read, or only to be written again."""
    for depth in (*range(700, 1000), 10_000):
        deep = b'{"messages":[{"role":"user","content":' + b"[" * depth + b"]" * depth
        deep += b'},{"role":"assistant","content":"x"}]}'
        made = prepare(job(), deep + b"\n" + piece(talk()))
        assert len(made.items) + len(made.refused) == 2 and made.items


def test_what_is_older_than_the_route_keeps_is_refused() -> None:
    (kept,) = prepare(job(), piece(talk(created=AT - 90 * 86_400))).items
    assert kept.gone == "2026-11-18"
    (refused,) = prepare(job(), piece(talk(created=AT - 91 * 86_400))).refused
    assert "keeps exchanges for 90 days" in refused.reason and "--retention-days" in refused.reason


def test_what_is_to_come_is_refused() -> None:
    (refused,) = prepare(job(), piece(talk(created=AT + 2 * 86_400))).refused
    assert "2026-11-20, which is to come" in refused.reason


def test_a_strict_route_gets_nothing_unredacted() -> None:
    row = talk(f"I am {MAIL}", f"Hello {MAIL}", model=MAIL, customer=MAIL, metadata={"mail": MAIL}, user=MAIL)
    strict = job(redact="strict", unit_field="customer", source=f"{MAIL}.jsonl")
    made = prepare(strict, piece(row))
    assert MAIL.encode() not in msgspec.msgpack.encode(made)
    (kept,) = rows(made)
    assert (kept["unit"], kept["redacted"]) == (hashed(MAIL.encode(), SALT), True)
    assert json.loads(kept["messages"] or "")[0]["content"] == "I am [EMAIL]"
    assert kept["engine"] == "import/[EMAIL].jsonl" or "[EMAIL]" in kept["engine"]


def test_a_route_of_metadata_gets_no_words() -> None:
    made = prepare(job(capture="metadata"), piece(talk("a secret question", user="bob")))
    (row,) = rows(made)
    assert (row["messages"], row["response"], row["parameters"], row["unit"]) == (None, None, None, "bob")
    assert b"secret" not in made.items[0].payload


def test_the_process_makes_what_the_function_makes() -> None:
    given = piece(talk(), talk("how?", created=AT - 1), 7)
    done = subprocess.run(
        [sys.executable, "-m", "gateway.traffic.importing"],
        input=msgspec.json.encode(job()) + b"\n" + given,
        capture_output=True,
        check=True,
    )
    assert msgspec.msgpack.decode(done.stdout, type=Prepared) == prepare(job(), given)
