"""Where rows come from that are the gateway's own traffic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.errors import BadRequest
from gateway.jobs.house import row_of
from gateway.jobs.source import Source, parse


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("traffic://support", Source("support", None, None)),
        ("traffic://support?since=7d&feedback=up", Source("support", 604_800, "up")),
        ("traffic://support@v3?since=90m", Source("support@v3", 5400, None)),
        ("traffic://support/?feedback=corrected", Source("support/", None, "corrected")),
    ],
)
def test_a_route_an_age_and_a_feedback_are_read(uri: str, expected: Source) -> None:
    assert expected == parse(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "traffic://",
        "traffic://a?since=7",
        "traffic://a?since=-1d",
        "traffic://a?feedback=good",
        "traffic://a?until=1d",
        "traffic://a?since",
        "traffic://a b",
        "traffic://a#b",
        "traffic://a\0",
    ],
)
def test_anything_else_is_refused(uri: str) -> None:
    with pytest.raises(BadRequest, match="Write traffic://ROUTE"):
        parse(uri)


def exchange(*messages: object) -> bytes:
    return json.dumps({"messages": messages, "metadata": {"id": "1"}}).encode()


ASKED, ANSWERED = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "refusal": None}


def test_an_exchange_becomes_a_row_of_roles_and_texts() -> None:
    expected = {"messages": [ASKED, {"role": "assistant", "content": "a"}]}
    assert expected == row_of(exchange(ASKED, ANSWERED))


@pytest.mark.parametrize(
    "messages",
    [
        (ASKED,),
        (),
        (ASKED, {"role": "assistant", "content": None, "tool_calls": []}),
        ({"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWERED),
        (ASKED, {"role": "tool", "content": "t"}, ANSWERED),
    ],
)
def test_what_the_trainer_cannot_learn_from_is_left_out(messages: tuple[object, ...]) -> None:
    assert row_of(exchange(*messages)) is None


def test_the_trainer_takes_such_a_row(tmp_path: Path) -> None:
    from training.rows import read_rows

    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row_of(exchange(ASKED, ANSWERED))) + "\n")
    assert 1 == len(read_rows(file))
