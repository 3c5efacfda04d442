"""A LoRA adapter's tensors by layer, as PEFT saved them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class Layer:
    """`a` is (rank, in), `b` (out, rank); what the layer adds to its weight is scaling * b @ a, the scaling
    lora_alpha / r, or lora_alpha / sqrt(r) with rsLoRA (https://arxiv.org/abs/2312.03732)."""

    a: Any
    b: Any
    scaling: float


def layers(folder: Path) -> Mapping[str, Layer]:
    """By the layer's name in the base, `model.layers.0.self_attn.q_proj`."""
    from peft import LoraConfig
    from peft.utils.other import get_pattern_key
    from safetensors.torch import load_file

    config = LoraConfig.from_pretrained(str(folder))
    weights = load_file(folder / "adapter_model.safetensors")
    found = {}
    for name, a in weights.items():
        if not name.endswith(A):
            continue
        layer = name.removeprefix(PREFIX).removesuffix(A)
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern, layer), config.r)
        alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, layer), config.lora_alpha)
        scaling = alpha / (math.sqrt(rank) if config.use_rslora else rank)
        found[layer] = Layer(a, weights[name.removesuffix(A) + B], scaling)
    return found
