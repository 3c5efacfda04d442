"""Rows: what is read, and what is refused with its line and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.recipe import TrainingError
from training.rows import BadRows, Message, chat, read_rows

GOOD = json.dumps(chat("Q", "A"))


def write(folder: Path, *lines: str | bytes) -> Path:
    file = folder / "rows.jsonl"
    file.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return file


def test_a_chat_is_read_and_its_answers_are_to_be_learned(tmp_path: Path) -> None:
    row = read_rows(write(tmp_path, json.dumps(chat("Q", "A", system="S"))))[0]
    assert (
        Message("system", "S"),
        Message("user", "Q"),
        Message("assistant", "A", learn=True),
    ) == row.messages


def test_a_prompt_and_its_completion_are_one_question_and_answer(tmp_path: Path) -> None:
    row = read_rows(write(tmp_path, '{"prompt": "Q", "completion": "A"}'))[0]
    assert (Message("user", "Q"), Message("assistant", "A", learn=True)) == row.messages


def test_an_answer_of_weight_zero_is_not_learned(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "weight": 1},
    ]
    row = read_rows(write(tmp_path, json.dumps({"messages": messages})))[0]
    assert [False, False, False, True] == [message.learn for message in row.messages]


def test_blank_lines_are_passed_over_and_lines_still_counted(tmp_path: Path) -> None:
    assert [1, 4] == [row.line for row in read_rows(write(tmp_path, GOOD, "", "  ", GOOD, ""))]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON: "),
        (b'{"prompt": "\xff"}', "is not UTF-8"),
        ("[]", "is an empty list, not an object"),
        ('{"text": "hello"}', r"has \['text'\]; a row has 'messages'"),
        ('{"prompt": "Q"}', "'completion' is missing"),
        ('{"prompt": "Q", "completion": " "}', "'completion' is blank text"),
        ('{"prompt": "Q", "completion": "A", "extra": 1}', "the row has 'extra'"),
        ('{"messages": "hi"}', "'messages' is text 'hi'"),
        (json.dumps({"messages": [user("Q")]}), "has no assistant message to learn from"),
        (json.dumps({"messages": [user(["part"])]}), r"messages\[0\] has content a list"),
        (json.dumps({"messages": [{"role": "tool", "content": "x"}]}), "has role 'tool'"),
        (json.dumps({"messages": [user("Q"), {"role": "system", "content": "S"}]}), "is a system message"),
        (json.dumps({"messages": [user("Q") | {"weight": 1}]}), "has weight 1"),
        (json.dumps({"messages": [user("Q") | {"tool_calls": []}]}), r"messages\[0\] has 'tool_calls'"),
        (json.dumps(chat("Q", "A") | {"tools": []}), "the row has 'tools'"),
    ],
)
def test_a_bad_row_is_refused_by_line_and_reason(tmp_path: Path, line: str | bytes, reason: str) -> None:
    with pytest.raises(BadRows, match=rf"line 2: .*{reason}|line 2: {reason}"):
        read_rows(write(tmp_path, GOOD, line))


def test_every_bad_row_is_counted_and_the_first_ten_are_listed(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match=r"12 bad rows(?s:.*)line 10: (?s:.*)and 2 more"):
        read_rows(write(tmp_path, *["{"] * 12))


def test_an_empty_file_says_what_a_row_looks_like(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no rows; write one JSON object a line"):
        read_rows(write(tmp_path, ""))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read rows from .*none\.jsonl: No such file"):
        read_rows(tmp_path / "none.jsonl")
