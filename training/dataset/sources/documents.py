"""Rows from documents and transcripts: cut into pieces, of each of which a model writes questions and
answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.dataset.candidate import Candidate, Kind, Ledger
from training.dataset.endpoint import Answers, json_in
from training.dataset.plan import DatasetError, Documents
from training.rows import Message

SUFFIXES = (".txt", ".md")
SPEAKER = re.compile(r"(?:\[?\d{1,2}:\d{2}(?::\d{2})?\]?\s+)?([\w .'-]{1,40}):\s+\S")
TURNS = 4
"""A text with so many lines that begin with a speaker, and they are half of it, is a transcript."""
ASK = """Below is a part of {what}. Write {pairs} different questions that a user could ask and that \
this part \
alone answers, each with its whole answer. Do not mention the text itself. Answer with a JSON array only, of \
objects with the members "question" and "answer".

---
{piece}
---"""


def read_documents(
    file: Path,
    number: int,
    licence: str,
    consent: str,
    wanted: Documents,
    writer: Answers,
    ledger: Ledger,
) -> Iterator[Candidate]:
    """Pairs from one file. All of a file are of one unit, so they never stand on both sides of a split.

    A piece whose answer is no list of pairs is dropped as `not_pairs`. Raises `DatasetError`.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {file} as text in UTF-8: {error}") from error
    transcript = is_transcript(text)
    found = pieces(text, wanted.piece_chars, transcript=transcript)
    what = "a transcript of a conversation" if transcript else "a document"
    answers = writer.all([ASK.format(what=what, pairs=wanted.pairs, piece=piece) for piece in found])
    unit = "d:" + hashlib.sha256(text.encode()).hexdigest()[:32]
    for at, answer in enumerate(answers, start=1):
        place = f"{file.name}:piece {at}"
        pairs = list(_pairs(answer))[: wanted.pairs]
        if not pairs:
            ledger.drop("not_pairs", place)
        for question, said in pairs:
            yield Candidate(
                messages=(Message("user", question), Message("assistant", said, learn=True)),
                kind=Kind.DOCUMENT,
                source=number,
                place=place,
                unit=unit,
                licence=licence,
                consent=consent,
            )


def is_transcript(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    turns = sum(SPEAKER.match(line) is not None for line in lines)
    return turns >= TURNS and 2 * turns >= len(lines)


def pieces(text: str, chars: int, *, transcript: bool = False) -> list[str]:
    """Whole paragraphs (of a transcript: turns) together up to `chars`; a longer one is cut at sentences, and
    a longer sentence where it must be."""
    parts = text.splitlines() if transcript else re.split(r"\n\s*\n", text)
    found: list[str] = []
    for part in (each.strip() for each in parts):
        for bit in _cut(part, chars):
            gap = "\n" if transcript else "\n\n"
            if found and len(found[-1]) + len(gap) + len(bit) <= chars:
                found[-1] += gap + bit
            else:
                found.append(bit)
    return found


def _cut(part: str, chars: int) -> Iterator[str]:
    if not part:
        return
    if len(part) <= chars:
        yield part
        return
    piece = ""
    for sentence in re.split(r"(?<=[.!?])\s+", part):
        if piece and len(piece) + 1 + len(sentence) > chars:
            yield piece
            piece = ""
        while len(sentence) > chars:
            yield sentence[:chars]
            sentence = sentence[chars:]
        piece = f"{piece} {sentence}".strip()
    if piece:
        yield piece


def _pairs(answer: str) -> Iterator[tuple[str, str]]:
    found = json_in(answer)
    if isinstance(found, dict):  # {"pairs": [...]}, or one pair
        found = next((value for value in found.values() if isinstance(value, list)), [found])
    for each in found if isinstance(found, Sequence) and not isinstance(found, str) else ():
        if isinstance(each, dict):
            question, said = each.get("question"), each.get("answer")
            if isinstance(question, str) and isinstance(said, str) and question.strip() and said.strip():
                yield question.strip(), said.strip()
