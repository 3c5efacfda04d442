"""What the requests say: words of a given count, or texts of a file or a dataset.

[prompts]
kind = "lengths"
tokens = {kind = "lognormal", median = 60, p95 = 300}

[prompts]
kind = "dataset"
path = "data/banking77"   # a folder with train.csv, or a file
column = "text"
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from loadtests import texts, traces, words
from loadtests.distributions import Distribution
from loadtests.section import ScenarioError, Section
from loadtests.streams import stream
from loadtests.texts import Messages

TOKENS = 64
"""Words of a prompt where neither the scenario nor a trace gives a length."""


class _Source(Section):
    """`system` opens every conversation as its system message. `shared_prefix_tokens` more words there, the
    same for all, are what a prefix cache can keep."""

    system: str | None = None
    shared_prefix_tokens: int = Field(0, ge=0)

    def opening(self, seed: int) -> Messages:
        """The system message that all conversations begin with; none where there is nothing to say."""
        shared = ""
        if self.shared_prefix_tokens:
            shared = next(words.texts(stream(seed, "prefix"), np.array([self.shared_prefix_tokens])))
        parts = [part for part in (self.system, shared) if part]
        return ({"role": "system", "content": "\n\n".join(parts)},) if parts else ()


class Lengths(_Source):
    """Words from a fixed list, `tokens` of them; without `tokens` the trace's lengths, or 64.

    A word is about one token (see `loadtests.words`); chat templates add their own. All prompts of 3 words or
    more differ in their first 3, so that a prefix cache keeps nothing of one for another. The same seed makes
    the same prompts: against a server that has seen them, take another seed.
    """

    kind: Literal["lengths"] = "lengths"
    tokens: Distribution | None = None

    def turns(self, seed: int, n: int, rows: list[traces.Row] | None = None) -> Iterator[Messages]:
        """What the user says, n times. `rows` are a trace's, n of them."""
        if self.tokens is None and rows is not None:
            made = traces.prompts(rows, seed)
        else:
            drawn = stream(seed, "prompts/tokens")
            counts = np.full(n, TOKENS) if self.tokens is None else self.tokens.whole(drawn, n)
            made = words.texts(stream(seed, "prompts"), counts, unique=True)
        return (({"role": "user", "content": text},) for text in made)


class _Written(_Source):
    """Texts in an order of the seed's: each is used once before any is used again."""

    def rows(self) -> list[Messages]:
        raise NotImplementedError

    def turns(self, seed: int, n: int, rows: list[traces.Row] | None = None) -> Iterator[Messages]:
        """What the user says, n times. A trace's lengths are not used."""
        found, rng = self.rows(), stream(seed, "prompts")
        passes = -(-n // len(found))
        order = (
            np.concatenate([rng.permutation(len(found)) for _ in range(passes)])
            if n
            else np.empty(0, np.int64)
        )
        return (found[i] for i in order[:n].tolist())


class File(_Written):
    """`.jsonl` whose rows have `column` (a text) or `messages`, `.csv` with a header and `column`, or `.txt`
    with one prompt a line."""

    kind: Literal["file"] = "file"
    file: Path
    column: str = "prompt"

    def rows(self) -> list[Messages]:
        if not self.file.is_file():
            raise ScenarioError(
                f"prompts.file = {str(self.file)!r}: no such file; give the path of a .jsonl, .csv or .txt"
            )
        return texts.read(self.file, self.column)


class Dataset(_Written):
    """One text column of a CSV or JSONL file, or of `<split>.csv` or `<split>.jsonl` in a folder."""

    kind: Literal["dataset"] = "dataset"
    path: Path
    column: str = "text"
    split: str = "train"

    def rows(self) -> list[Messages]:
        if not self.path.exists():
            raise ScenarioError(
                f"prompts.path = {str(self.path)!r}: no such file or folder; give the path of a dataset, a "
                f"folder with {self.split}.csv or a .csv or .jsonl with a column {self.column!r}"
            )
        return texts.read(texts.find(self.path, self.split), self.column)


Prompts = Annotated[Lengths | File | Dataset, Field(discriminator="kind")]
