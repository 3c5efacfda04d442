"""In what order rows are learned."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

POOL = 50
"""Batches that are drawn together before their rows are put in order of length."""


class LengthOrder:
    """Row numbers for a sampler: rows of like length beside each other, so that little of a batch is padding.

    Rows are shuffled, cut into pools of `POOL` batches, sorted by length within each, and cut into batches,
    which are shuffled again: unlike transformers' `group_by_length`, no epoch runs from long rows to short.
    The very first batch holds the longest row, so that what does not fit into memory fails at once.
    The order is a function of `seed` and the epoch alone, so a run that is resumed in the middle of an epoch
    sees what the run that was not killed saw.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self._lengths = lengths
        self._batch = batch
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self._seed} {self._epoch}")  # noqa: S311
        rows = list(range(len(self._lengths)))
        draw.shuffle(rows)
        pool = POOL * self._batch
        batches: list[list[int]] = []
        for start in range(0, len(rows), pool):
            drawn = sorted(rows[start : start + pool], key=lambda row: self._lengths[row], reverse=True)
            batches += [drawn[at : at + self._batch] for at in range(0, len(drawn), self._batch)]
        # A batch that is not full must be the last: the loader cuts the sequence by count.
        short = [batch for batch in batches if len(batch) < self._batch]
        whole = [batch for batch in batches if len(batch) == self._batch]
        draw.shuffle(whole)
        if whole and self._epoch == 0:
            longest = max(range(len(whole)), key=lambda at: max(self._lengths[row] for row in whole[at]))
            whole[0], whole[longest] = whole[longest], whole[0]
        return (row for batch in whole + short for row in batch)
