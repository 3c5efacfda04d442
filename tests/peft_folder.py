"""PEFT folders with random weights: enough to load, to serve and to be told apart, in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from adapters.base.manifest import BaseManifest


def random_adapter(
    folder: Path,
    base: BaseManifest,
    seed: int,
    rank: int = 8,
    scale: float = 0.01,
    **config: Any,
) -> Path:
    """A LoRA over every linear layer of `base`. `scale` is the standard deviation of B; A's is 1/sqrt(in)."""
    dice = np.random.default_rng(seed)
    tensors = {}
    for module, (out, into) in base.linears.items():
        path = f"base_model.model.{module}"
        tensors[f"{path}.lora_A.weight"] = (
            dice.standard_normal((rank, into), dtype=np.float32) / np.sqrt(into)
        ).astype(np.float16)
        tensors[f"{path}.lora_B.weight"] = (
            dice.standard_normal((out, rank), dtype=np.float32) * scale
        ).astype(np.float16)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted({module.rpartition(".")[2] for module in base.linears}),
        "bias": "none",
        "base_model_name_or_path": base.name,
        "inference_mode": True,
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "hotswap.json").write_text(json.dumps({"base_fingerprint": base.fingerprint}))
    return folder
