"""Does what was exported say what is served? Log-probabilities of the same tokens, as in `training.parity`.

Served is the base in NF4 with the adapter beside it, exported is the plain base with the adapter merged, so
there are two questions. Is it merged right: PEFT, with the adapter beside the plain base, moves the tokens
as far (the *effect*). And is it what is served: the distance to the engine is what quantization costs without
an adapter, too (the *base gap*).
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
from training.parity import Floats, Logs, adapter_logs, probes, served_logs, token_logs
from training.recipe import TrainingError
from training.rows import read_rows


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a version is served: `url` ends in /v1, `base` is the base's name there."""

    url: str
    key: str
    base: str
    version: str


def compare(base: Path, adapter: Path, exported: Path, rows: Path, served: Endpoint) -> Finding:
    """`exported` is the folder that was written, `adapter` the one that is in it.

    Raises `TrainingError` when that is not what is served.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    asked = probes(tokenizer, read_rows(rows))
    theirs = asyncio.run(served_logs(served.url, served.key, served.base, served.version, asked))
    plain = plain_logs(base, adapter, asked)
    found = same(plain, logs_of(exported, asked), theirs)
    if not found.passed:
        raise TrainingError(f"what was exported is not what is served: {found.measured} ({found.bound})")
    return found


def same(plain: Logs, exported: Floats, served: Logs) -> Finding:
    """`plain` is PEFT's on the base that was merged into. Passed when the export moves what PEFT moves, and
    is as near to what is served as `training.gates` asks of a served adapter."""
    merged = parity.compare(plain, Logs(plain.base, exported))
    found = parity.compare(Logs(plain.base, exported), served)
    low, high = EFFECT
    return Finding(
        "export",
        found.gap <= GAPS * found.base_gap and low <= merged.effect <= high,
        f"merged it moves {merged.effect:.3f} of what PEFT moves; {found.gap:.3f} nats from what is served, "
        f"{found.base_gap:.3f} without the adapter",
        f"{low:g} to {high:g} of it; <= {GAPS:g} x the base's",
    )


def plain_logs(base: Path, adapter: Path, asked: Sequence[Sequence[int]]) -> Logs:
    """By PEFT, with the adapter beside the base that is not quantized."""
    from peft import PeftModel

    return adapter_logs(PeftModel.from_pretrained(_model(base), str(adapter)), asked)


def logs_of(folder: Path, asked: Sequence[Sequence[int]]) -> Floats:
    """Of a model's folder, or of the GGUF in it, by transformers, which has its own reader of such files."""
    return token_logs(_model(folder), asked)


def _model(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    more: dict[str, Any] = {}
    if (folder / GGUF).is_file():
        more = {"gguf_file": GGUF, "quantization_config": GgufConfig(dequantize=True)}
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.bfloat16, local_files_only=True, **more
    )
    return model.eval()
