"""Rows that say which answer is better: what is one, and what is wrong with the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.preferences import read_judged, read_pairs
from training.rows import BadRows

ASKED = [{"role": "user", "content": "a colour?"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def pair(better: str = "green", worse: str = "grey") -> dict[str, Any]:
    return {
        "input": {"messages": ASKED},
        "preferred_output": said(better),
        "non_preferred_output": said(worse),
    }


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: Any) -> Path:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "rows.jsonl"

    return write


def test_a_pair_is_two_conversations_of_one_beginning(file: Callable[..., Path]) -> None:
    (found,) = read_pairs(file(pair()))
    assert ("green", "grey") == (found.preferred.messages[-1].content, found.other.messages[-1].content)
    assert found.preferred.messages[:-1] == found.other.messages[:-1]


def test_trls_formats_are_read_too(file: Callable[..., Path]) -> None:
    ours = read_pairs(file(pair()))
    theirs = read_pairs(file({"prompt": ASKED, "chosen": said("green"), "rejected": said("grey")}))
    assert ours == theirs
    judged = read_judged(file({"messages": ASKED + said("green"), "label": True}))
    assert judged == read_judged(file({"prompt": ASKED, "completion": said("green"), "label": True}))


def test_of_a_pair_only_the_last_answer_is_learned(file: Callable[..., Path]) -> None:
    row = pair()
    row["input"]["messages"] = [*ASKED, *said("which?"), *ASKED]
    (found,) = read_pairs(file(row))
    assert [False, False, False, True] == [message.learn for message in found.preferred.messages]


def test_a_judged_answer_is_a_conversation_with_a_label(file: Callable[..., Path]) -> None:
    rows = [
        {"messages": ASKED + said("green"), "label": True},
        {"messages": ASKED + said("x"), "label": False},
    ]
    assert [True, False] == [row.good for row in read_judged(file(*rows))]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input": None}, "'input' is no object"),
        ({"preferred_output": []}, "'preferred_output' is no single answer"),
        ({"non_preferred_output": said("a") + said("b")}, "'non_preferred_output' is no single answer"),
        ({"preferred_output": said("grey")}, "both outputs are the same answer"),
        ({"preferred_output": ASKED}, "'preferred_output' is no answer to 'input.messages'"),
        ({"input": {"messages": []}}, "is no answer to 'input.messages'"),
        ({"score": 1}, "has 'score'"),
    ],
)
def test_a_bad_pair_is_named_by_line_and_reason(
    change: dict[str, Any], reason: str, file: Callable[..., Path]
) -> None:
    with pytest.raises(BadRows, match="line 2: ") as refused:
        read_pairs(file(pair(), pair() | change))
    assert reason in refused.value.reasons[2]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": ASKED + said("green")}, "is no judged answer"),
        ({"messages": ASKED + said("green"), "label": 1}, "is no judged answer"),
        ({"messages": ASKED, "label": True}, "does not end with an answer"),
        ({"messages": "green", "label": True}, "must be a list of messages"),
    ],
)
def test_a_bad_judged_answer_is_named_by_reason(
    row: dict[str, Any], reason: str, file: Callable[..., Path]
) -> None:
    with pytest.raises(BadRows) as refused:
        read_judged(file(row))
    assert reason in refused.value.reasons[1]
