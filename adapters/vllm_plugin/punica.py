"""vLLM's CPU LoRA wrapper with our kernel under it. Only `installation` may name it, inside an engine."""

from __future__ import annotations

from typing import Any

from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from adapters.vllm_plugin.copies import Copier
from adapters.vllm_plugin.kernel import Grouping, add_lora, add_lora_few, expand, few, group, shrink


class GroupedPunica(PunicaWrapperCPU):  # type: ignore[misc]  # vllm is not followed by mypy
    """Groups the rows of a step once, when vLLM announces them; every layer then reads the same `Grouping`.

    `apply_lora_full_linear` stays vLLM's: it selects by `slot >= 0` itself.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._grouping: Grouping = group([])
        self._copier = Copier()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        super().update_metadata(*args, **kwargs)
        self._grouping = group(self.token_lora_indices.numpy())

    def add_shrink(self, y: Any, x: Any, lora_a_stacked: Any, scale: float, **kwargs: Any) -> None:
        x = x.view(-1, x.shape[-1])
        for out, a in zip(y, lora_a_stacked, strict=True):
            shrink(out.view(-1, out.shape[-1]), x, a, scale, self._grouping)

    def add_expand(
        self,
        y: Any,
        x: Any,
        lora_b_stacked: Any,
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        y = y.view(-1, y.shape[-1])
        left = offset_start
        for low, b, width in zip(x, lora_b_stacked, output_slices, strict=True):
            expand(y[:, left : left + width], low, b, self._grouping, add=add_inputs)
            left += width

    def add_lora_embedding(
        self, y: Any, x: Any, lora_b_stacked: Any, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        expand(y, x, lora_b_stacked, self._grouping, add=add_inputs)

    def add_lora_linear(
        self,
        y: Any,
        x: Any,
        lora_a_stacked: Any,
        lora_b_stacked: Any,
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: Any = None,
        **kwargs: Any,
    ) -> None:
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        by = self._grouping
        if by.empty:
            return
        copies = self._copier.of(lora_a_stacked, lora_b_stacked)
        if copies is not None and few(by, copies):
            add_lora_few(y, x, copies, scale, by)
        else:
            ranks = None if copies is None else copies.ranks
            add_lora(y, x, lora_a_stacked, lora_b_stacked, output_slices, scale, by, ranks)

    def add_lora_logits(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: no adapter has a delta for lm_head, because `installation` refuses such adapters.

        vLLM's own copies a (vocabulary, rank) matrix for every row, base rows too, to add zeros. And it
        maps rows by request, although prompt logprobs come as one row a *prompt token*: one request in the
        batch broadcasts, a second ends the engine (`einsum(): subscript b has size 4 for operand 1 which
        does not broadcast with previously seen size 40`).
        """
