"""CPU time of LoRA alone in one step, in process: the least of some steps, so hardly touched by other load.

`python -m tests.proofs.kernel_step [--rank R] [--padded-to R] [--slots N]` prints it for vLLM's and ours.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adapters.vllm_plugin.copies import PATIENCE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from adapters.vllm_plugin.punica import GroupedPunica

LAYERS = 30
SHAPES = ((576, (576, 192, 192)), (576, (576,)), (576, (1536, 1536)), (1536, (576,)))
"""SmolLM2-135M: for each layer the width into, and the widths out of, what vLLM fuses."""
PREFILL = 800


@dataclass(frozen=True, slots=True)
class Layer:
    into: int
    widths: tuple[int, ...]
    a: tuple[torch.Tensor, ...]
    b: tuple[torch.Tensor, ...]


def layers(slots: int, rank: int, padded_to: int) -> list[Layer]:
    made = []
    for into, widths in SHAPES * LAYERS:
        a = tuple(torch.zeros(slots, 1, padded_to, into, dtype=torch.bfloat16) for _ in widths)
        b = tuple(torch.zeros(slots, 1, width, padded_to, dtype=torch.bfloat16) for width in widths)
        for down, up in zip(a, b, strict=True):
            down[:, :, :rank].normal_(std=into**-0.5)
            up[..., :rank].normal_(std=0.01)
        made.append(Layer(into, widths, a, b))
    return made


def step_ms(wrapper: type[Any], model: Sequence[Layer], ids: Sequence[int], slots: int, steps: int) -> float:
    """CPU milliseconds of this thread for every layer's `add_lora_linear`; `ids` are adapters, 0 the base."""
    punica = wrapper(len(ids), max_batches=len(ids), device=torch.device("cpu"))
    mapping = LoRAMapping(tuple(ids), tuple(ids), is_prefill=True)
    x = {layer.into: torch.randn(len(ids), layer.into).bfloat16() for layer in model}
    y = {sum(layer.widths): torch.randn(len(ids), sum(layer.widths)).bfloat16() for layer in model}
    least = float("inf")
    for _ in range(steps):
        began = time.thread_time()
        punica.update_metadata(mapping, list(range(1, slots + 1)), slots + 1, 100)
        for layer in model:
            out = y[sum(layer.widths)]
            punica.add_lora_linear(out, x[layer.into], layer.a, layer.b, 1.0, layer.widths)
        least = min(least, time.thread_time() - began)
    return least * 1e3


def batches(slots: int) -> dict[str, list[int]]:
    found = {"1 stream": [1]}
    for streams in (8, 32):
        for adapters in (1, 4, 8, 32):
            if adapters <= min(streams, slots):
                found[f"{streams} streams, {adapters}"] = [1 + row % adapters for row in range(streams)]
        half = [0 if row % 2 else 1 + row // 2 % 4 for row in range(streams)]
        found[f"{streams} streams, 4 and base"] = half
    found[f"prefill of {PREFILL}"] = [1] * PREFILL
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--padded-to", type=int, default=32)
    parser.add_argument("--slots", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)  # as the engine has on two cores
    torch.manual_seed(0)
    model = layers(given.slots, given.rank, given.padded_to)
    for name, ids in batches(given.slots).items():
        steps = 2 if len(ids) == PREFILL else 4
        stock = step_ms(PunicaWrapperCPU, model, ids, given.slots, steps)
        ours = step_ms(GroupedPunica, model, ids, given.slots, PATIENCE + 6)
        print(f"{name}: stock {stock:.1f} ms, ours {ours:.1f} ms, x {ours / stock:.2f}", flush=True)


if __name__ == "__main__":
    main()
