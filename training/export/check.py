"""Does what was exported say what is served? Log-probabilities of the same tokens, as in `training.parity`.

Served is the base in NF4 with the adapter beside it, exported is the plain base with the adapter merged: the
two bases differ by what quantization costs, and an export that is right differs by as much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import parity
from training.export.export import GGUF
from training.gates import EFFECT, GAPS, Finding
from training.parity import Floats, Logs, probes, served_logs, token_logs
from training.recipe import TrainingError
from training.rows import read_rows


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a version is served: `url` ends in /v1, `base` is the base's name there."""

    url: str
    key: str
    base: str
    version: str


def compare(base: Path, exported: Path, rows: Path, served: Endpoint) -> Finding:
    """`exported` is the folder that was written. Raises `TrainingError` when it is not what is served."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    asked = probes(tokenizer, read_rows(rows))
    theirs = asyncio.run(served_logs(served.url, served.key, served.base, served.version, asked))
    found = same(exported_logs(base, exported, asked), theirs)
    if not found.passed:
        raise TrainingError(f"what was exported is not what is served: {found.measured} ({found.bound})")
    return found


def exported_logs(base: Path, exported: Path, asked: Sequence[Sequence[int]]) -> Logs:
    return Logs(logs_of(base, asked), logs_of(exported, asked))


def same(exported: Logs, served: Logs) -> Finding:
    """Passed when both the distance and the effect are what `training.gates` asks of a served adapter."""
    found = parity.compare(exported, served)
    low, high = EFFECT
    return Finding(
        "export",
        found.gap <= GAPS * found.base_gap and low <= found.effect <= high,
        f"{found.gap:.3f} nats from what is served, {found.base_gap:.3f} without the adapter; "
        f"effect {found.effect:.3f}",
        f"<= {GAPS:g} x the base's; effect {low:g} to {high:g}",
    )


def logs_of(folder: Path, asked: Sequence[Sequence[int]]) -> Floats:
    """Of a model's folder, or of the GGUF in it, by transformers, which has its own reader of such files."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    more: dict[str, Any] = {}
    if (folder / GGUF).is_file():
        more = {"gguf_file": GGUF, "quantization_config": GgufConfig(dequantize=True)}
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.bfloat16, local_files_only=True, **more
    )
    return token_logs(model.eval(), asked)
