"""Warnings and notes: what does not forbid a run, and is worth knowing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.training import light_base
from training.preflight import dataset, template
from training.preflight.chat import Chat
from training.preflight.counts import count
from training.preflight.findings import Finding
from training.preflight.lines import examine
from training.rows import Message, Row, chat


def rows(*pairs: tuple[str, str]) -> tuple[Row, ...]:
    return tuple(
        Row(line, (Message("user", user), Message("assistant", said, learn=True)))
        for line, (user, said) in enumerate(pairs, start=1)
    )


def many(count: int = 60) -> tuple[Row, ...]:
    return rows(*((f"question {n}", f"answer {n % 7}") for n in range(count)))


def of(check: str, findings: Sequence[Finding]) -> list[tuple[str, int | None]]:
    return [(str(each.severity), each.line) for each in findings if each.check == check]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return Chat.read(light_base.write(tmp_path_factory.mktemp("light") / "base"))


def test_one_row_that_is_there_twice_is_a_warning_with_its_line() -> None:
    given = (*many(), Row(99, many()[4].messages))
    assert [("warning", 99)] == of("duplicates", [*dataset.look(given, "f")])


def test_two_answers_to_one_prompt_are_a_warning_whatever_the_case_and_spaces() -> None:
    given = (*many(), Row(99, (Message("user", "Question  4"), Message("assistant", "no", learn=True))))
    assert [("warning", 99)] == of("conflicts", [*dataset.look(given, "f")])


def test_answers_that_are_nearly_all_alike_are_a_warning() -> None:
    given = rows(*((f"q {n}", "yes" if n else "no") for n in range(60)))
    assert [("warning", None)] == of("same_answer", [*dataset.look(given, "f")])


def test_a_label_of_one_sign_is_an_answer_when_it_recurs() -> None:
    given = rows(*((f"q {n}", "+" if n % 2 else "-") for n in range(60)))
    assert [] == of("near_empty", [*dataset.look(given, "f")])


def test_an_answer_that_repeats_its_prompt_is_a_warning() -> None:
    given = (*many(), *rows(("say it", "say it")))
    assert [("warning", 1)] == of("echo", [*dataset.look(given, "f")])


@pytest.mark.parametrize(("count", "severity"), [(9, "error"), (49, "warning"), (299, "note"), (300, None)])
def test_how_few_rows_are_few(count: int, severity: str | None) -> None:
    found = of("few_rows", [*dataset.look(many(count), "f")])
    assert ([] if severity is None else [(severity, None)]) == found


def test_a_question_at_the_end_is_a_warning(tmp_path: Path) -> None:
    row = chat("a", "b")
    row["messages"].append({"role": "user", "content": "c"})
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert [("warning", 1)] == of("roles", examine(tmp_path / "rows.jsonl").findings)


def test_text_that_was_read_in_the_wrong_encoding_is_shown_right(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(chat("caf\u00c3\u00a9", "b")))
    (found,) = examine(tmp_path / "rows.jsonl").findings
    assert ("warning", True) == (found.severity, "'\u00e9'" in found.message)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(chat("a", "b")).encode())
    assert (1, ()) == (
        len(examine(tmp_path / "rows.jsonl").rows),
        examine(tmp_path / "rows.jsonl").findings,
    )


def test_a_template_that_adds_a_system_prompt_is_told_with_its_words(base_folder: Path) -> None:
    found = [str(each) for each in template.look(Chat.read(base_folder), many(), "f")]
    assert [True] == ["You are a helpful AI assistant" in each for each in found if "adds a system" in each]


def test_the_default_base_has_no_error(base_folder: Path) -> None:
    found = template.look(Chat.read(base_folder), many(), "f")
    assert [] == [each for each in found if each.severity != "note"]


def test_rows_with_and_without_a_system_message_are_a_warning(reader: Chat) -> None:
    ruled = Row(61, (Message("system", "s"), *many(1)[0].messages))
    assert [("warning", None)] == of("system", [*template.look(reader, (*many(), ruled), "f")])


def test_a_generation_prompt_that_is_not_where_answers_are_is_an_error(tmp_path: Path) -> None:
    from tests.tiny_model import TEMPLATE

    crooked = TEMPLATE.replace("<|im_start|>assistant\n' }}", "<|im_start|>helper\n' }}")
    found = template.look(Chat.read(light_base.write(tmp_path / "base", template=crooked)), many(), "f")
    assert [True] == ["would never be where" in each.message for each in found if each.severity == "error"]


def test_every_row_is_counted_when_there_is_time(reader: Chat) -> None:
    counted = count(reader, many(), "f")
    assert (True, 60, sum(each.tokens for each in counted.lengths)) == (
        counted.tokens.exact,
        len(counted.lengths),
        counted.tokens.total,
    )


def test_without_time_the_longest_rows_are_counted_and_the_rest_is_estimated(reader: Chat) -> None:
    pairs = [(f"question {n} " + "word " * (n % 40), "answer") for n in range(2_000)]
    whole, part = count(reader, rows(*pairs), "f"), count(reader, rows(*pairs), "f", budget_s=0.0)
    assert (False, whole.tokens.longest) == (part.tokens.exact, part.tokens.longest)
    assert whole.tokens.total == pytest.approx(part.tokens.total, rel=0.1)


def test_what_is_learned_is_the_answers(reader: Chat) -> None:
    (length,) = count(reader, rows(("question", "answer")), "f").lengths
    assert length.learned == len(reader("answer<|im_end|>").ids)
