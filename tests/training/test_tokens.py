"""What is learned: the answers and the token that ends each, in the engine's own rendering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from training.recipe import TrainingError
from training.rows import Message, Row
from training.tokens import IGNORED, examples, tokenise

ROW = Row(
    1,
    (
        Message("user", "Hi there  12 "),
        Message("assistant", "ok: {\"a\": 1}\n", learn=True),
        Message("user", "And héllo ☃?"),
        Message("assistant", "not this"),
        Message("user", "x"),
        Message("assistant", "naïve ☃ 2024", learn=True),
    ),
)  # fmt: skip
STOPS = {2}


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_folder)


def test_the_ids_are_those_of_the_chat_template(tokenizer: Any) -> None:
    messages = [message.as_dict() for message in ROW.messages]
    assert tokenizer.apply_chat_template(messages)["input_ids"] == tokenise(tokenizer, ROW, STOPS).ids


def test_the_learned_tokens_are_the_answers_and_the_end_of_each(tokenizer: Any) -> None:
    labels = tokenise(tokenizer, ROW, STOPS).labels
    learned = tokenizer.decode([label for label in labels if label != IGNORED])
    assert 'ok: {"a": 1}\n<|im_end|>naïve ☃ 2024<|im_end|>' == learned


def test_a_label_is_the_id_in_its_place(tokenizer: Any) -> None:
    example = tokenise(tokenizer, ROW, STOPS)
    assert all(label in (IGNORED, token) for label, token in zip(example.labels, example.ids, strict=True))


def test_what_the_engine_is_asked_with_comes_right_before_what_is_learned(tokenizer: Any) -> None:
    row = Row(1, ROW.messages[:2])
    example = tokenise(tokenizer, row, STOPS)
    asked = tokenizer.apply_chat_template(
        [row.messages[0].as_dict()], add_generation_prompt=True, tokenize=True
    )["input_ids"]
    learned_from = next(at for at, label in enumerate(example.labels) if label != IGNORED)
    assert asked == example.ids[:learned_from]


def test_a_row_that_is_too_long_is_refused_by_its_line(tokenizer: Any) -> None:
    row = Row(7, (Message("user", "word " * 50), Message("assistant", "ok", learn=True)))
    with pytest.raises(TrainingError, match=r"line 7 is 8[0-9] tokens long, the recipe's max_tokens is 40"):
        examples(tokenizer, [row], STOPS, max_tokens=40)


def test_a_template_that_rewrites_earlier_answers_is_refused(tokenizer: Any) -> None:
    class Forgetful:
        """Drops all but the last answer, as templates of reasoning models drop earlier thoughts."""

        chat_template = "…"

        def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
            shown = [
                message | {"content": ""}
                if message["role"] == "assistant" and message is not messages[-1]
                else message
                for message in messages
            ]
            return str(tokenizer.apply_chat_template(shown, **options))

        def __call__(self, text: str, **options: Any) -> Any:
            return tokenizer(text, **options)

    with pytest.raises(TrainingError, match=r"line 1: .*messages\[1\] differently once"):
        examples(Forgetful(), [ROW], STOPS, max_tokens=500)


@pytest.mark.engine
def test_the_ids_are_those_that_the_real_engine_renders(tokenizer: Any, real_engine: Any) -> None:
    answer = httpx.post(
        f"{real_engine.url}/tokenize",
        headers={"authorization": f"Bearer {real_engine.key}"},
        json={
            "messages": [message.as_dict() for message in ROW.messages],
            "add_generation_prompt": False,
        },
    )
    assert tokenise(tokenizer, ROW, STOPS).ids == answer.json()["tokens"]
