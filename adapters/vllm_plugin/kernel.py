"""LoRA deltas for a batch whose rows belong to different adapters, or to none.

Takes the place of vLLM's `lora/ops/torch_ops/lora_ops.py`, which gathers `weights[slot]` row by row: a
base row has slot -1, so it receives the *last slot's* adapter, and every row copies a whole matrix. Here a
row without an adapter is never addressed, and no weight is copied:

- a long run of rows of one adapter (a prefill) is a view: two matmuls, the second adding in place;
- the rest (decoding rows) are gathered once, laid out slot by slot, and go through two batched matmuls
  over a *view* of the stacked weights, however many adapters they are;
- or through one matmul an adapter, when the slots in use lie too far apart for the batched form to pay.

On a CPU a small bfloat16 matmul costs about 18 µs whatever its rank (set-up, not arithmetic), a batched one
over four slots 23 µs. So calls are what is saved, and weights padded to `max_lora_rank` are left as they are.
Steps of few rows are faster still from `copies` of the weights. docs/kernel.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from adapters.vllm_plugin.copies import Copies

Tensor = Any  # torch is not followed by mypy

LONG = 32
"""Rows from which a run is worth its own pair of matmuls."""
FEW = 2
"""Up to this many runs, separate matmuls cost no more than gathering."""
SPAN = 2
"""The batched form may touch this many times as many slots as are in use, and pad rows to as many times."""
FEW_ROWS, FEW_ROW_RANKS = 64, 512
"""Rows with an adapter, and rows x rank, up to which float32 copies win; then bfloat16 does."""


@dataclass(frozen=True, slots=True)
class Run:
    """Rows `start` to `stop`, all of the adapter in `slot`."""

    slot: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Padded:
    """Rows laid out as (slots, height): `take` reads them from the batch, `give` finds them again."""

    first: int
    slots: int
    height: int
    take: Tensor
    give: Tensor


@dataclass(frozen=True, slots=True)
class Scattered:
    """Rows of short runs. Without `padded` they are sorted by slot, and `parts` are runs over them so sorted;
    with it they are in the batch's order. `whole`: they are all of the batch, in its order."""

    rows: Tensor
    parts: tuple[Run, ...]
    padded: Padded | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which rows of a batch belong to which slot: made once a step, used by every layer."""

    tokens: int
    runs: tuple[Run, ...]
    scattered: Scattered | None
    rows: int
    """Those that have an adapter, of `tokens`."""

    @property
    def empty(self) -> bool:
        return not self.runs and self.scattered is None


def group(slots: Sequence[int] | np.ndarray[Any, Any]) -> Grouping:
    """`slots[i]` is the slot of row i's adapter, or negative for the base."""
    index = np.asarray(slots, dtype=np.int64)
    if index.size == 0:
        return Grouping(0, (), None, 0)
    starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
    stops = np.append(starts[1:], index.size)
    runs = [
        Run(int(index[start]), int(start), int(stop))
        for start, stop in zip(starts, stops, strict=True)
        if index[start] >= 0
    ]
    rows = sum(run.stop - run.start for run in runs)
    if len(runs) <= FEW:
        return Grouping(index.size, tuple(runs), None, rows)
    long = tuple(run for run in runs if run.stop - run.start >= LONG)
    short = [run for run in runs if run.stop - run.start < LONG]
    return Grouping(index.size, long, _scatter(index, short) if short else None, rows)


def _scatter(index: np.ndarray[Any, Any], runs: Sequence[Run]) -> Scattered:
    rows = np.concatenate([np.arange(run.start, run.stop) for run in runs])
    order = np.argsort(index[rows], kind="stable")
    ordered = rows[order]
    used, begins, counts = np.unique(index[ordered], return_index=True, return_counts=True)
    parts = tuple(
        Run(int(slot), int(begin), int(begin + count))
        for slot, begin, count in zip(used, begins, counts, strict=True)
    )
    span, height = int(used[-1] - used[0]) + 1, int(counts.max())
    whole = rows.size == index.size
    if len(parts) == 1 or span > SPAN * len(parts) or span * height > SPAN * rows.size + LONG:
        return Scattered(torch.from_numpy(ordered), parts, None, whole=False)
    position = np.concatenate(
        [(part.slot - int(used[0])) * height + np.arange(part.stop - part.start) for part in parts]
    )
    take = np.full(span * height, ordered[0])  # padding repeats some row; nothing reads its result
    take[position] = ordered
    give = np.empty_like(position)
    give[order] = position
    padded = Padded(int(used[0]), span, height, torch.from_numpy(take), torch.from_numpy(give))
    return Scattered(torch.from_numpy(rows), parts, padded, whole)


def add_lora(
    y: Tensor,
    x: Tensor,
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    widths: Sequence[int],
    scale: float,
    by: Grouping,
    ranks: Sequence[int] | None = None,
) -> None:
    """`y[i, o:o+w] += scale * x[i] @ a[slot(i)].T @ b[slot(i)].T` for every slice, in place, for rows that
    have a slot; w runs through `widths`, and o is their sum so far.

    y (rows, ≥ Σ widths), x (rows, in), a[s] (slots, 1, rank, in), b[s] (slots, 1, w, rank). As in stock vLLM,
    x·A is summed in float32 and rounded to y's dtype once before B. `ranks`, where known, are the real ones
    of each slice: what is beyond them is zeros and not read.
    """
    if by.empty:
        return
    _check_rows(x, by)
    left = 0
    picked = None if by.scattered is None else x.index_select(0, _source(by.scattered))
    real = [each.size(2) for each in a] if ranks is None else ranks
    for a_whole, b_whole, width, rank in zip(a, b, widths, real, strict=True):
        out = y[: by.tokens, left : left + width]
        left += width
        if rank == 0:
            continue
        a_slice, b_slice = a_whole[:, :, :rank], b_whole[:, :, :, :rank]
        for run in by.runs:
            low = _shrink(x[run.start : run.stop], a_slice[run.slot, 0], scale, y.dtype)
            out[run.start : run.stop].addmm_(low, b_slice[run.slot, 0].to(y.dtype).t())
        if by.scattered is not None:
            _put(out, by.scattered, _scattered_delta(picked, a_slice, b_slice, scale, y.dtype, by.scattered))


def few(by: Grouping, copies: Copies) -> bool:
    """Whether `add_lora_few` is the faster of the two."""
    return by.rows <= FEW_ROWS and by.rows * sum(copies.ranks) <= FEW_ROW_RANKS * len(copies.slices)


def add_lora_few(y: Tensor, x: Tensor, copies: Copies, scale: float, by: Grouping) -> None:
    """What `add_lora` does, from copies of its weights, rounded only at the end."""
    if by.empty or not copies.slices:
        return
    _check_rows(x, by)
    for run in by.runs:
        low = _scaled(x[run.start : run.stop].float() @ copies.a[run.slot].t(), scale)
        rows = y[run.start : run.stop]
        for part in copies.slices:
            rows[:, part.out].add_(low[:, part.low] @ part.b[run.slot].t())
    at = by.scattered
    if at is None:
        return
    picked = x.index_select(0, _source(at)).float()
    if at.padded is None:
        lows = [_scaled(picked[p.start : p.stop] @ copies.a[p.slot].t(), scale) for p in at.parts]
    else:
        grid = picked.view(at.padded.slots, at.padded.height, -1)
        used = slice(at.padded.first, at.padded.first + at.padded.slots)
        low = _scaled(torch.bmm(grid, copies.a[used].transpose(1, 2)), scale)
    for part in copies.slices:
        if at.padded is None:
            delta = torch.cat(
                [each[:, part.low] @ part.b[p.slot].t() for each, p in zip(lows, at.parts, strict=True)]
            )
        else:
            every = torch.bmm(low[:, :, part.low], part.b[used].transpose(1, 2))
            delta = every.flatten(0, 1).index_select(0, at.padded.give)
        _put(y[: by.tokens, part.out], at, delta)


def shrink(out: Tensor, x: Tensor, a: Tensor, scale: float, by: Grouping) -> None:
    """`out[i, :rank] = scale * x[i] @ a[slot(i)].T` in `out`'s dtype, for rows that have a slot."""
    _check_rows(x, by)
    rank = a.size(-2)
    for slot, rows in _by_slot(by):
        out[rows, :rank] = _shrink(x[rows], a[slot, 0], scale, out.dtype)


def expand(out: Tensor, x: Tensor, b: Tensor, by: Grouping, *, add: bool = True) -> None:
    """`out[i] += x[i] @ b[slot(i)].T` (or `=` when not `add`) for rows that have a slot.

    The narrower of `out` and `b` counts: an embedding's may be padded differently.
    """
    _check_rows(x, by)
    width = min(out.size(-1), b.size(-2))
    for slot, rows in _by_slot(by):
        delta = x[rows].to(out.dtype) @ b[slot, 0, :width].to(out.dtype).t()
        out[rows, :width] = out[rows, :width] + delta if add else delta


def _by_slot(by: Grouping) -> list[tuple[int, Any]]:
    """Every (slot, its rows); rows as a slice or as indices."""
    found: list[tuple[int, Any]] = [(run.slot, slice(run.start, run.stop)) for run in by.runs]
    if by.scattered is not None:
        at = by.scattered
        if at.padded is None:
            found += [(part.slot, at.rows[part.start : part.stop]) for part in at.parts]
        else:
            grid = at.padded.take.view(at.padded.slots, at.padded.height)
            found += [(p.slot, grid[p.slot - at.padded.first, : p.stop - p.start]) for p in at.parts]
    return found


def _check_rows(x: Tensor, by: Grouping) -> None:
    if x.size(0) < by.tokens:
        raise ValueError(
            f"a layer was called with {x.size(0)} rows; the LoRA mapping of this step has {by.tokens}. "
            "This vLLM calls LoRA layers in a way that Hotswap does not know"
        )


def _shrink(x: Tensor, a: Tensor, scale: float, dtype: Tensor) -> Tensor:
    if x.dtype != a.dtype:
        x, a = x.float(), a.float()
    return _scaled(x @ a.transpose(-1, -2), scale).to(dtype)


def _scaled(low: Tensor, scale: float) -> Tensor:
    return low if scale == 1.0 else low * scale


def _source(at: Scattered) -> Tensor:
    return at.rows if at.padded is None else at.padded.take


def _scattered_delta(
    picked: Tensor, a: Tensor, b: Tensor, scale: float, dtype: Tensor, at: Scattered
) -> Tensor:
    """The deltas of `at.rows`, in their order."""
    if at.padded is None:
        each = [
            _shrink(picked[part.start : part.stop], a[part.slot, 0], scale, dtype)
            @ b[part.slot, 0].to(dtype).t()
            for part in at.parts
        ]
        return each[0] if len(each) == 1 else torch.cat(each)
    grid = at.padded
    slots = slice(grid.first, grid.first + grid.slots)
    low = _shrink(picked.view(grid.slots, grid.height, -1), a[slots, 0], scale, dtype)
    delta = torch.bmm(low, b[slots, 0].to(dtype).transpose(1, 2))
    return delta.view(grid.slots * grid.height, -1).index_select(0, grid.give)


def _put(out: Tensor, at: Scattered, delta: Tensor) -> None:
    if at.whole:
        out.add_(delta)
    else:  # three times as fast as index_add_, whose bfloat16 form is not vectorised
        out.index_copy_(0, at.rows, out.index_select(0, at.rows).add_(delta))
