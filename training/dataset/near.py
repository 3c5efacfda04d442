"""Texts that are nearly the same: MinHash (rensa) finds who may be, and the exact Jaccard index decides.

A text is the set of its pieces of five characters, after case, width and space are made alike. 120 hashes in
20 bands of 6 find two texts that share 0.8 of their pieces with a probability of 0.998, 0.85 with 0.9999
(1 - (1 - s^6)^20; Broder 1997, Leskovec et al., Mining of Massive Datasets, 3.4).

rensa, not datasketch: MIT both, but the latter needs scipy (110 MB) for what we do not use, and rensa is
half a megabyte of Rust with no dependency. It has no types; what we use of it is in `_signatures`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

PIECE = 5
BANDS, BAND = 20, 6
DOUBT = 0.2
"""An estimate from 120 hashes is hardly ever off by more: it is five standard deviations (binomial)."""

Hashes: TypeAlias = NDArray[np.uint64]


def plain(text: str) -> str:
    """Case, width and space made alike."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def pieces(text: str) -> Hashes:
    """The set of hashes of a text's pieces, sorted; of a text that is shorter than one, of all of it."""
    codes = np.frombuffer(plain(text).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    if codes.size == 0:
        return np.empty(0, dtype=np.uint64)
    width = min(PIECE, codes.size)
    windows = np.lib.stride_tricks.sliding_window_view(codes, width)
    mixed = np.zeros(len(windows), dtype=np.uint64)
    for column in range(width):
        mixed = _mix(mixed ^ windows[:, column])
    return np.unique(mixed)


def alike(left: Hashes, right: Hashes) -> float:
    """Jaccard: the share of all pieces of two texts that both have, 1 for two empty ones."""
    both = np.intersect1d(left, right, assume_unique=True).size
    every = left.size + right.size - both
    return both / every if every else 1.0


class Neighbours:
    """Which of the `texts` that were added are like another. Texts are named by their index."""

    def __init__(self, texts: Sequence[str], similarity: float) -> None:
        self._similarity = similarity
        self._pieces = [pieces(text) for text in texts]
        self._signatures = _signatures(self._pieces)
        self._buckets: dict[tuple[int, bytes], list[int]] = {}

    def add(self, index: int) -> None:
        for band in self._bands(index):
            self._buckets.setdefault(band, []).append(index)

    def of(self, index: int) -> Iterator[int]:
        """Those that were added and are at least `similarity` like it, the earliest first."""
        found = sorted({each for band in self._bands(index) for each in self._buckets.get(band, ())})
        if not found:
            return
        same = (self._signatures[found] == self._signatures[index]).mean(axis=1)
        for each, estimate in zip(found, same, strict=True):
            if estimate < self._similarity - DOUBT:
                continue
            if alike(self._pieces[each], self._pieces[index]) >= self._similarity:
                yield each

    def _bands(self, index: int) -> Iterator[tuple[int, bytes]]:
        signature = self._signatures[index]
        for band in range(BANDS):
            yield band, signature[band * BAND : (band + 1) * BAND].tobytes()


class Groups:
    """Union and find over `count` things."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def of(self, index: int) -> int:
        """The least index of its group."""
        while self._above[index] != index:
            self._above[index] = self._above[self._above[index]]
            index = self._above[index]
        return index

    def join(self, left: int, right: int) -> None:
        least, other = sorted((self.of(left), self.of(right)))
        self._above[other] = least

    def all(self) -> list[list[int]]:
        """Every group, members in order, by their least."""
        groups: dict[int, list[int]] = {}
        for index in range(len(self._above)):
            groups.setdefault(self.of(index), []).append(index)
        return list(groups.values())


def _mix(values: Hashes) -> Hashes:
    """One step of SplitMix64 (Steele et al., 2014), in arithmetic modulo 2^64."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def _signatures(sets: Sequence[Hashes]) -> NDArray[np.uint32]:
    """A row of BANDS * BAND hashes for each set; equal sets have equal rows."""
    from rensa import RMinHash

    if not sets:
        return np.empty((0, BANDS * BAND), dtype=np.uint32)
    matrix = RMinHash.digest_matrix_from_token_hash_sets(
        [each.tolist() for each in sets], num_perm=BANDS * BAND, seed=1
    )
    return np.array(matrix.to_rows(), dtype=np.uint32)
