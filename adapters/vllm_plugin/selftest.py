"""Is this vLLM the one that we replace parts of, and do our parts give the right numbers on this machine?

Run by `installation` in the worker before the first adapter exists. Imports vLLM.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.vllm_plugin.copies import PATIENCE

KNOWN_VERSIONS = ("0.32.0",)
SIGNATURES = {
    "update_metadata": ("self", "mapping", "lora_index_to_id", "max_loras", "vocab_size", "kwargs"),
    "add_shrink": ("self", "y", "x", "lora_a_stacked", "scale", "kwargs"),
    "add_expand": (
        "self",
        "y",
        "x",
        "lora_b_stacked",
        "output_slices",
        "offset_start",
        "add_inputs",
        "kwargs",
    ),
    "add_lora_embedding": ("self", "y", "x", "lora_b_stacked", "add_inputs", "kwargs"),
    "add_lora_linear": (
        *("self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "output_slices", "buffer", "kwargs"),
    ),
    "add_lora_logits": ("self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "buffer", "kwargs"),
}
SLOTS, RANK, IN, WIDTHS = 4, 8, 48, (32, 16, 16)
SETTLED = PATIENCE + 1
LAYOUTS = (  # the id of each row's adapter, 0 for the base; ids 1 to 4 sit in slots 0 to 3
    (0, 0, 0),
    (2, 2, 2, 2),
    (0, 4, 0, 1, 2, 0, 4, 1, 0),
    (3, 1, 2, 4, 4, 1, 3, 2),
    (*(1,) * 40, 0, 2, 0, 4, *(3,) * 33, 0),
)


@dataclass(frozen=True, slots=True)
class SelfTest:
    passed: bool
    details: str


def check(wrapper: type[Any], version: str) -> SelfTest:
    """`wrapper` is the class that is to take PunicaWrapperCPU's place."""
    if version.partition("+")[0] not in KNOWN_VERSIONS:
        return SelfTest(False, f"vLLM {version} is not one that is known here ({', '.join(KNOWN_VERSIONS)})")
    problem = next(_changed_signatures(), None) or next(_wrong_numbers(wrapper), None)
    if problem:
        return SelfTest(False, problem)
    return SelfTest(True, f"{len(LAYOUTS)} batches on vLLM {version}: deltas right, base rows bit-identical")


def _changed_signatures() -> Iterator[str]:
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    for name, expected in SIGNATURES.items():
        method = getattr(PunicaWrapperCPU, name, None)
        found = tuple(inspect.signature(method).parameters) if method else None
        if found != expected:
            yield f"PunicaWrapperCPU.{name} takes {found}; expected {expected}"


def _wrong_numbers(wrapper: type[Any]) -> Iterator[str]:
    import torch
    from vllm.lora.layers import LoRAMapping

    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, generator=random).to(torch.bfloat16)

    a = tuple(draw(SLOTS, 1, RANK, IN) for _ in WIDTHS)
    b = tuple(draw(SLOTS, 1, width, RANK) for width in WIDTHS)
    most = max(map(len, LAYOUTS))
    punica = wrapper(most, max_batches=most, device=torch.device("cpu"))
    # Long enough for copies of the weights to be in use, and again after vLLM has put other adapters there.
    for step in range(2 * SETTLED):
        if step == SETTLED:
            with torch.inference_mode():  # as in vLLM's steps
                for weights in (*a, *b):
                    weights[:, 0].copy_(draw(*weights[:, 0].shape))
        for ids in LAYOUTS:
            punica.update_metadata(LoRAMapping(ids, ids, is_prefill=True), [1, 2, 3, 4], SLOTS + 1, 100)
            x, before = draw(len(ids), IN), draw(len(ids), sum(WIDTHS))
            y = before.clone()
            punica.add_lora_linear(y, x, a, b, 1.0, WIDTHS)
            if step % SETTLED in (0, SETTLED - 1):
                yield from _wrong_rows(ids, x, a, b, before, y)
    logits = draw(3 * len(ids), 100)
    same = logits.clone()
    punica.add_lora_logits(logits, draw(3 * len(ids), IN), a[0], draw(SLOTS, 1, 100, RANK), 1.0)
    if not torch.equal(logits, same):
        yield "prompt logits, more rows than requests, were changed"


def _wrong_rows(
    ids: Sequence[int], x: Any, a: Sequence[Any], b: Sequence[Any], before: Any, y: Any
) -> Iterator[str]:
    """Whether `y` is `before` and the deltas of the adapters of `ids`, computed in float64."""
    import torch

    mine = torch.tensor(ids) > 0
    slots = torch.tensor(ids)[mine] - 1
    expected = before.double()
    deltas = [
        torch.einsum("ri,rki,rwk->rw", x[mine].double(), down[slots, 0].double(), up[slots, 0].double())
        for down, up in zip(a, b, strict=True)
    ]
    expected[mine] += torch.cat(deltas, 1)
    if not torch.equal(y[~mine].view(torch.int16), before[~mine].view(torch.int16)):
        yield f"a row of {ids} belongs to the base and was changed"
    # bfloat16 keeps 8 bits: x·A, and the sum, are each rounded once, relative to their terms' size.
    error = (y.double() - expected).abs().max().item() / expected.abs().max().item()
    if not error < 2**-6:
        yield f"batch {ids} is off by {error:.3g} of its largest value"
