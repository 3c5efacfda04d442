"""LoRA adapters with random weights, loud enough to change every answer; no training."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapter(folder: Path, base: Path, *, seed: int, rank: int = 8, loudness: float = 0.02) -> Path:
    """A PEFT adapter on every linear layer of `base` (a Llama-shaped checkpoint). Returns `folder`."""
    shape = json.loads((base / "config.json").read_text())
    hidden, middle = shape["hidden_size"], shape["intermediate_size"]
    head = shape.get("head_dim") or hidden // shape["num_attention_heads"]
    queries, keys = head * shape["num_attention_heads"], head * shape["num_key_value_heads"]
    sizes = {  # (out, in)
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (middle, hidden),
        "mlp.up_proj": (middle, hidden),
        "mlp.down_proj": (hidden, middle),
    }
    random = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for layer in range(shape["num_hidden_layers"]):
        for module, (out_features, in_features) in sizes.items():
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            a = torch.randn(rank, in_features, generator=random) / in_features**0.5
            b = torch.randn(out_features, rank, generator=random) * loudness
            weights[f"{prefix}.lora_A.weight"] = a.to(torch.bfloat16)
            weights[f"{prefix}.lora_B.weight"] = b.to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
