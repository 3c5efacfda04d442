"""Rows that are too short, too long, or in another language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.dataset.candidate import Candidate, Ledger
from training.dataset.plan import DatasetError, Filters

TOO_SHORT_TO_TELL = 20
"""Letters; a language of less is a guess, and the row stays."""
MESSAGE_TOKENS = 5
"""What a chat template writes around a message, about."""
CHARS_A_TOKEN = 3.0
"""Where no tokenizer is there. English text has about four; less is the safer guess."""


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts tokens of text; `exact` when it is the base's own tokenizer that does."""

    count: Callable[[str], int]
    exact: bool

    def of(self, candidate: Candidate) -> int:
        """Tokens of a whole row, with what the template adds, about."""
        return sum(self.count(message.content) + MESSAGE_TOKENS for message in candidate.messages)


def counter(base: Path | None) -> Counter:
    """By the tokenizer of the prepared base in folder `base`; by characters where there is none."""
    file = None if base is None else base / "tokenizer.json"
    if file is None or not file.exists():
        return Counter(lambda text: round(len(text) / CHARS_A_TOKEN + 0.5), exact=False)
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return Counter(lambda text: round(len(text) / CHARS_A_TOKEN + 0.5), exact=False)
    tokenizer: Any = Tokenizer.from_file(str(file))
    return Counter(lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), exact=True)


def filtered(
    candidates: Sequence[Candidate], wanted: Filters, tokens: Counter, ledger: Ledger
) -> list[Candidate]:
    """The same in the same order; dropped are `too_short`, `too_long` and `language`."""
    found = ledger.sift(
        "too_short", ((each, len(each.answer.strip()) >= wanted.min_chars) for each in candidates)
    )
    found = ledger.sift("too_long", ((each, tokens.of(each) <= wanted.max_tokens) for each in found))
    if not wanted.languages:
        return found
    language = _identifier(wanted.languages)
    return ledger.sift("language", ((each, language(each) in (None, *wanted.languages)) for each in found))


def _identifier(wanted: Sequence[str]) -> Callable[[Candidate], str | None]:
    """The language of what was asked and answered, by py3langid (BSD, 4.6 MB, 97 languages); None where there
    are too few letters to tell. Raises `DatasetError`."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise DatasetError(
            f"filters.languages needs {error.name}: pip install 'hotswap[training]', or leave it out"
        ) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if unknown := sorted(set(wanted) - set(identifier.labels)):
        raise DatasetError(f"filters.languages has {', '.join(unknown)}; write ISO 639-1 codes, e.g. en, de")

    def language(candidate: Candidate) -> str | None:
        text = f"{candidate.prompt}\n{candidate.answer}"
        if sum(map(str.isalpha, text)) < TOO_SHORT_TO_TELL:
            return None
        return str(identifier.classify(text)[0])

    return language
