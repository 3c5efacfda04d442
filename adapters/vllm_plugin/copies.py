"""Float32 copies of the LoRA weights that vLLM holds, at their real rank: they make steps of few rows fast.

vLLM stacks a layer's adapters in bfloat16, each padded to `max_lora_rank`. A bfloat16 matmul on a CPU costs
about 18 µs however small it is (oneDNN's set-up), a float32 one 3 to 7 µs; but converting padded weights at
every step would eat the difference. So they are converted once, and again when vLLM has written to them:
torch counts the writes to a tensor, and these are few (an adapter enters or leaves a slot).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Tensor = Any  # torch is not followed by mypy

PATIENCE = 4
"""Steps that weights must have stayed as they are before they are copied. Copying costs what the copies save
in 1 to 3 steps, so an engine that swaps at every step must not copy at every step."""
ROOM = 512 * 2**20
"""Bytes that all copies of an engine may take. Layers beyond it go without."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One of a layer's fused outputs: columns `out` are columns `low` of x·A through `b` (slots, w, rank)."""

    low: slice
    out: slice
    b: Tensor


@dataclass(frozen=True, slots=True)
class Copies:
    """A layer's adapters. `ranks` are the real ranks of its outputs, `a` (slots, their sum, in) the A of all
    of them, one after the other. An output that no adapter in any slot changes has no slice.
    """

    ranks: tuple[int, ...]
    a: Tensor
    slices: tuple[Slice, ...]

    @property
    def bytes(self) -> int:
        return sum(int(each.nbytes) for each in (self.a, *(part.b for part in self.slices)))


def copy(a: Sequence[Tensor], b: Sequence[Tensor]) -> Copies:
    """a[s] (slots, 1, rank, in) and b[s] (slots, 1, w, rank), padded, as vLLM stacks them."""
    ranks = tuple(real_rank(each) for each in a)
    slices, low, out = [], 0, 0
    for weights, rank in zip(b, ranks, strict=True):
        width = weights.size(2)
        if rank:
            # First compact, then convert: converting a strided tensor takes three times as long.
            compact = weights[:, 0, :, :rank].contiguous().float()
            slices.append(Slice(slice(low, low + rank), slice(out, out + width), compact))
        low, out = low + rank, out + width
    stacked = [weights[:, 0, :rank].float() for weights, rank in zip(a, ranks, strict=True)]
    return Copies(ranks, torch.cat(stacked, 1), tuple(slices))


def real_rank(a: Tensor) -> int:
    """Rows of A up to the last that is not all zeros in every slot: the largest rank in any of them."""
    bits = np.bitwise_or.reduce(a.view(torch.uint8).numpy(), axis=(0, 1, 3))
    used = np.flatnonzero(bits)
    return int(used[-1]) + 1 if used.size else 0


class Copier:
    """The copies of one engine, each made anew when the weights behind it change."""

    def __init__(self, patience: int = PATIENCE, room: int = ROOM) -> None:
        self._patience = patience
        self._room = room
        self._seen: dict[int, _Seen] = {}

    def of(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Copies | None:
        """Of the layer with these weights, to be asked once a step; None while there are none."""
        seen = self._seen.get(id(a[0]))
        if seen is None:
            if any(each.is_inference() for each in (*a, *b)):
                return None  # torch does not count the writes to these
            seen = self._seen[id(a[0])] = _Seen((*a, *b))
        writes = [each._version for each in seen.weights]
        if writes != seen.writes:
            if seen.copies is not None:
                self._room += seen.copies.bytes
            seen.writes, seen.steps, seen.copies = writes, 0, None
        if seen.steps < self._patience:
            seen.steps += 1
            if seen.steps == self._patience:
                seen.copies = self._copy(a, b)
        return seen.copies

    def _copy(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Copies | None:
        made = copy(a, b)
        if made.bytes > self._room:
            return None
        self._room -= made.bytes
        return made


class _Seen:
    """A layer's weights, held so that no other tensor gets their id, and how often they were written to."""

    __slots__ = ("copies", "steps", "weights", "writes")

    def __init__(self, weights: tuple[Tensor, ...]) -> None:
        self.weights = weights
        self.writes: list[int] = []
        self.steps = 0
        self.copies: Copies | None = None
