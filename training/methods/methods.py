"""The methods that there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.methods import dpo, grpo, kto, sft
from training.methods.setup import Data, Setup
from training.preferences import read_judged, read_pairs
from training.recipe import Recipe
from training.rows import read_rows


@dataclass(frozen=True, slots=True)
class Method:
    """From a file to rows; from rows to token ids; from these to a trainer."""

    read: Callable[[Path], Sequence[Any]]
    prepare: Callable[[Any, Any, frozenset[int], Recipe], Data]
    trainer: Callable[[Setup, Data, Data | None], Any]


METHODS: Mapping[str, Method] = {
    "sft": Method(read_rows, sft.prepare, sft.trainer),
    "dpo": Method(read_pairs, dpo.prepare, dpo.trainer),
    "kto": Method(read_judged, kto.prepare, kto.trainer),
    "grpo": Method(read_rows, grpo.prepare, grpo.trainer),
}
"""By a recipe's `method`."""
