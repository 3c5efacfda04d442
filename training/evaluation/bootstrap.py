"""What a difference between two arms is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
PIECE = 1000
"""Resamples at once: memory is `PIECE` x rows x 8 bytes."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the bounds between which it lies with the chosen confidence."""

    mean: float
    low: float
    high: float


def mean(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> Interval:
    """The percentile bootstrap of a mean (Efron, 1979): rows are drawn again with replacement, `RESAMPLES`
    times, and the bounds are the quantiles of the means that come out.

    Raises `ValueError` for no values.
    """
    given = np.asarray(values, np.float64)
    if given.size == 0:
        raise ValueError("there is nothing to take the mean of")
    dice = np.random.default_rng(seed)
    means = np.concatenate(
        [
            given[dice.integers(0, given.size, (PIECE, given.size))].mean(axis=1)
            for _ in range(RESAMPLES // PIECE)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(given.mean()), float(low), float(high))


def difference(
    candidate: Sequence[float], other: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> Interval:
    """By how much the candidate's mean is above the other's, over the same rows in the same order: pairs are
    drawn together, so what makes a row hard for both does not widen the bounds.

    Raises `ValueError` when the rows are not the same in number.
    """
    if len(candidate) != len(other):
        raise ValueError(f"{len(candidate)} rows of one and {len(other)} of the other are no pairs")
    return mean([a - b for a, b in zip(candidate, other, strict=True)], confidence, seed)
