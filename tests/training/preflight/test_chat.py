"""The light tokenizer against transformers': the same text, the same ids, the same labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training import light_base
from training.preflight.chat import BadTemplate, Chat, NoChat
from training.rows import Message, Row
from training.tokens import tokenise

CONVERSATIONS = (
    (Message("user", "hello"), Message("assistant", "yes", learn=True)),
    (
        Message("system", "be brief"),
        Message("user", "ünïcödé 漢字 🙂"),
        Message("assistant", "ok", learn=True),
    ),
    (
        Message("user", "one\n\ntwo\ttabs  and   spaces"),
        Message("assistant", '{"a": [1, 2.5e3]}'),
        Message("user", "3 < 4 && 5 > 2 <b>"),
        Message("assistant", "x" * 300, learn=True),
    ),
    (Message("user", " "), Message("assistant", "\n trailing \n", learn=True)),
)


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_a_row_has_the_ids_and_labels_that_transformers_gives_it(number: int, base_folder: Path) -> None:
    from transformers import AutoTokenizer

    row = Row(1, CONVERSATIONS[number])
    chat = Chat.read(base_folder)
    theirs = tokenise(AutoTokenizer.from_pretrained(base_folder), row, set(chat.stops))
    assert theirs == tokenise(chat, row, set(chat.stops))


def test_the_tokens_that_stop_are_those_that_transformers_names(base_folder: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    from training.tokens import stop_ids

    theirs = stop_ids(
        AutoTokenizer.from_pretrained(base_folder), GenerationConfig.from_pretrained(base_folder)
    )
    assert theirs == Chat.read(base_folder).stops


def test_generation_marks_leave_the_text_as_it_is(tmp_path: Path) -> None:
    marked = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}!{% endfor %}"
    chat = Chat.read(light_base.write(tmp_path / "base", template=marked))
    assert "a!" == chat.apply_chat_template([{"role": "user", "content": "a"}], add_generation_prompt=False)


def test_a_template_in_the_tokenizers_config_is_found(tmp_path: Path) -> None:
    import json

    folder = light_base.write(tmp_path / "base", template=None)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "default", "template": "{{ messages[0].content }}"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    said = Chat.read(folder).apply_chat_template(
        [{"role": "user", "content": "a"}], add_generation_prompt=True
    )
    assert "a" == said


def test_what_the_template_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    chat = Chat.read(light_base.write(tmp_path / "base", template="{{ raise_exception('only users') }}"))
    with pytest.raises(BadTemplate, match="refuses it: only users"):
        chat.apply_chat_template([{"role": "user", "content": "a"}], add_generation_prompt=False)


def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    chat = Chat.read(light_base.write(tmp_path / "base", template="{{ ''.__class__.__mro__ }}"))
    with pytest.raises(BadTemplate):
        chat.apply_chat_template([{"role": "user", "content": "a"}], add_generation_prompt=False)


def test_a_base_without_a_fast_tokenizer_says_how_to_get_one(tmp_path: Path) -> None:
    folder = light_base.write(tmp_path / "base")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NoChat, match="convert it once"):
        Chat.read(folder)
