"""The weights that an adapter has in its slot, as digests: what the kernel multiplies with.

A digest is BLAKE2b (16 bytes, hex) of a tensor's bytes in the dtype of the slots, row by row, without the
padding up to `max_lora_rank`. B has the adapter's scaling in it, as vLLM merges it when it reads the files.
"""

from __future__ import annotations

import hashlib
from typing import Any

Tensor = Any  # torch is not followed by mypy

NOT_IN_A_SLOT, SHARDED = "evicted", "sharded"


def digests(manager: Any, lora_id: int) -> dict[str, Any]:
    """By the full name of each linear layer that has weights: the digests of A and of B, and their `dtype`.

    `manager` is vLLM's LoRAModelManager. Where nothing can be told, `problem` says why: NOT_IN_A_SLOT, or
    SHARDED, where a worker has parts of tensors only.
    """
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA

    if lora_id not in manager.lora_index_to_id:
        return {"problem": NOT_IN_A_SLOT}
    slot = manager.lora_index_to_id.index(lora_id)
    told: dict[str, list[str]] = {}
    dtype = ""
    for name, layer in manager.modules.items():
        if not isinstance(layer, BaseLinearLayerWithLoRA):
            continue  # adapters with weights for anything else are refused
        if layer.tp_size > 1:
            return {"problem": SHARDED}
        parts = manager.packed_modules.get(name, [name])
        for part, a, b in zip(parts, layer.lora_a_stacked, layer.lora_b_stacked, strict=True):
            dtype = str(a.dtype).removeprefix("torch.")
            found = digest(a[slot, 0], b[slot, 0])
            if found is not None:
                told[part] = found
    return {"dtype": dtype, "tensors": told}


def digest(a: Tensor, b: Tensor) -> list[str] | None:
    """Of A (rank, in) and B (out, rank), each padded with zeros or not; None when all of A is zeros."""
    used = a.ne(0).any(1).nonzero()
    if not len(used):
        return None
    rank = int(used[-1]) + 1
    return [_hash(a[:rank]), _hash(b[:, :rank])]


def _hash(tensor: Tensor) -> str:
    import torch

    raw = tensor.contiguous().cpu().view(torch.uint8).numpy()
    return hashlib.blake2b(raw.tobytes(), digest_size=16).hexdigest()
