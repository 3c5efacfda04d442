"""The base's chat template: does it end an answer, does it add words of its own, is its text the engine's?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from training.preflight.chat import BadTemplate, Chat
from training.preflight.findings import Finding, error, note, warning
from training.rows import Row

_ASK = {"role": "user", "content": "hotswap-question"}
_SAY = {"role": "assistant", "content": "hotswap-answer"}
_RULE = {"role": "system", "content": "hotswap-rule"}
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


def look(chat: Chat, rows: Sequence[Row], file: str) -> Iterator[Finding]:
    """Findings on the template, also in view of the rows: with a system message or without."""
    if not chat.stops:
        yield error(
            "template",
            "the base names no token that ends an answer",
            "set eos_token in tokenizer_config.json or eos_token_id in generation_config.json, and prepare "
            "it again",
        )
        return
    try:
        asked = chat.apply_chat_template([_ASK], add_generation_prompt=True)
        said = chat.apply_chat_template([_ASK, _SAY], add_generation_prompt=False)
    except BadTemplate as problem:
        yield error("template", str(problem), "mend the base's chat_template.jinja, and prepare it again")
        return
    yield from _prefix(asked, said)
    yield from _end(chat, said)
    yield from _system(chat, asked, rows, file)
    if not _MARKS.search(chat.chat_template):
        yield note(
            "template",
            "the template has no generation marks; what is learned is found by rendering each row up to its "
            "answers instead",
        )


def _prefix(asked: str, said: str) -> Iterator[Finding]:
    """An engine is asked with the one text and answers into the other, so the one must begin the other."""
    if not said.startswith(asked):
        at = next((i for i, (a, b) in enumerate(zip(asked, said, strict=False)) if a != b), len(said))
        yield error(
            "template",
            f"the template asks for an answer with {asked[at : at + 30]!r} and writes one after "
            f"{said[at : at + 30]!r}: an engine would never be where the training was",
            "mend the generation prompt in the base's chat_template.jinja, and prepare it again",
        )


def _end(chat: Chat, said: str) -> Iterator[Finding]:
    """The turn must end with a token that stops generation, or answers never end."""
    encoded = chat(said)
    answer_end = said.index(_SAY["content"]) + len(_SAY["content"]) if _SAY["content"] in said else 0
    after = [
        token for token, (left, _) in zip(encoded.ids, encoded.offsets, strict=True) if left >= answer_end
    ]
    if not set(after) & chat.stops:
        shown = "".join(map(chat.text_of, after)) or "nothing"
        stops = ", ".join(sorted(map(chat.text_of, chat.stops)))
        yield error(
            "template",
            f"the template ends an answer with {shown!r}, which holds none of the tokens that stop "
            f"generation ({stops}): the adapter would never stop",
            "add the token that ends a turn to eos_token_id in generation_config.json, and prepare the "
            "base again",
        )


def _system(chat: Chat, asked: str, rows: Sequence[Row], file: str) -> Iterator[Finding]:
    """A template that writes a system prompt where none is given: training and serving must both have it."""
    with_system = sum(row.messages[0].role == "system" for row in rows)
    try:
        ruled = chat.apply_chat_template([_RULE, _ASK], add_generation_prompt=True)
    except BadTemplate as problem:
        if with_system:
            first = next(row for row in rows if row.messages[0].role == "system")
            yield error(
                "template",
                f"{with_system} rows have a system message, and {problem}",
                "put its text before the user's",
                file,
                first.line,
            )
        return
    if _RULE["content"] not in ruled and with_system:
        yield warning(
            "template",
            f"the template drops system messages, which {with_system} rows have",
            "put their text before the user's",
            file,
        )
    question = asked.find(_ASK["content"])
    added = chat.lengths([asked[:question]])[0] if question > 0 else 0
    plain = re.search(r"system\W+(.{3,}?)(?:<|\[|$)", asked[:question], re.DOTALL)
    if plain:
        text = plain[1].strip()
        yield note(
            "template",
            f"the template adds a system prompt where there is none ({text[:60]!r}, {added} tokens before "
            "the question); rows are rendered with it, as engines do it",
        )
    if 0 < with_system < len(rows):
        yield warning(
            "system",
            f"{with_system} of {len(rows)} rows have a system message, the others none",
            "give all of them the one that requests will have: it is learned as a part of the question",
            file,
        )
