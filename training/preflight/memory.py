"""Peak memory of a run, summed up from the base's config: no table, and no factor that only makes it fit.

Each term is what one named part of the libraries keeps, in bytes, with its reason. The peak of a step is at
the beginning of the backward pass: every layer's activations are still there, and the head works on its
first tile. Before the steps there is another peak, while the base is loaded and quantized; the larger counts.
`python -m tests.proofs memory_estimate` measures both and holds this within 15 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from training.preflight.findings import Finding, error, warning
from training.recipe import Recipe
from training.shape import Shape

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a weight: 4 bits, and for each block of 64 a scale of 8 bits, and for each 256 of those one of 32
(Dettmers et al., 2023, double quantization: 4.127 bits)."""
BF16, FP32 = 2, 4
VOCABULARY_TILE, TOKEN_TILE = 32_768, 4_096
"""trl/kernels/chunked_logprob.py and trl/trainer/utils.py (1.16): the head's logits come in such tiles."""
TIGHT = 0.85


@dataclass(frozen=True, slots=True)
class Batch:
    """The largest step: so many rows, all padded to the longest, tokens."""

    rows: int
    tokens: int

    @classmethod
    def of(cls, lengths: Sequence[int], batch_size: int) -> Batch:
        """Rows of like length are batched together, so one batch holds the longest ones."""
        return cls(min(batch_size, len(lengths)), max(lengths, default=1))

    @property
    def padded(self) -> int:
        """Tokens that are computed."""
        return self.rows * self.tokens


@dataclass(frozen=True, slots=True)
class Term:
    """A part of the peak and what it is."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Memory:
    """`step` and `loading` are the terms of the two peaks; `device` is where they are."""

    step: tuple[Term, ...]
    loading: tuple[Term, ...]
    device: str

    @property
    def peak(self) -> int:
        """Bytes."""
        return max(sum(term.bytes for term in terms) for terms in (self.step, self.loading))

    @property
    def summary(self) -> str:
        """One line."""
        where = "of the GPU" if self.device == "cuda" else "resident"
        return f"{self.peak / 1e9:.2f} GB {where} at the peak"

    def lines(self) -> Iterator[str]:
        """The larger peak's terms."""
        larger = max(self.step, self.loading, key=lambda terms: sum(term.bytes for term in terms))
        when = "a training step" if larger is self.step else "loading the base"
        yield f"where the memory goes, at the peak ({when}):"
        for term in larger:
            yield f"  {term.name:<16}  {term.bytes / 1e6:>9,.0f} MB  {term.why}"

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        named = {
            phase: {term.name: term.bytes for term in terms}
            for phase, terms in (("step", self.step), ("loading", self.loading))
        }
        return {"peak_bytes": self.peak, "device": self.device, **named}


def estimate(base: Shape, recipe: Recipe, batch: Batch, device: str = "cpu") -> Memory:
    """Bytes at the peak of training `base` by `recipe`, whose largest step is `batch`."""
    process = _process(device)
    weights = _weights(base)
    adapter = _adapter(base, recipe)
    return Memory(
        step=(process, weights, adapter, _activations(base, recipe, batch), _head(base, batch, device)),
        loading=(process, weights, _checkpoint(base)),
        device=device,
    )


def look(memory: Memory | None, free_bytes: int | None) -> Iterator[Finding]:
    """Whether it fits. What a GPU has free cannot be asked without its libraries: there it is only told."""
    if memory is None or free_bytes is None or memory.device != "cpu":
        return
    share = memory.peak / max(1, free_bytes)
    have = f"{memory.peak / 1e9:.1f} GB are needed and {free_bytes / 1e9:.1f} GB are free"
    fix = (
        "a smaller batch_size, gradient_checkpointing = true, shorter rows, or a machine with more memory; "
        "stop the engine meanwhile (hotswap down)"
    )
    if share > 1:
        yield error("memory", have, fix)
    elif share > TIGHT:
        yield warning("memory", have, fix)


PROCESS = {"cpu": 760_000_000, "cuda": 520_000_000}


def _process(device: str) -> Term:
    return Term("process", PROCESS[device], "Python, torch, transformers, trl, peft, bitsandbytes, datasets")


def _weights(base: Shape) -> Term:
    size = round(base.linear_parameters * NF4) + base.embedding_parameters * BF16
    return Term("base", size, "linear layers in NF4 with double quantization, the rest in bfloat16")


def _adapter(base: Shape, recipe: Recipe) -> Term:
    """TRL keeps LoRA weights in bfloat16 on a quantized base (trl/trainer/sft_trainer.py), so their gradients
    and both of Adam's moments are bfloat16 too: 4 x 2 bytes."""
    return Term("adapter", base.lora_parameters(recipe.rank) * 4 * BF16, "weights, gradients, Adam's moments")


def _checkpoint(base: Shape) -> Term:
    """safetensors maps the file, and pages that were read count as resident until the map is gone."""
    return Term("checkpoint", base.parameters * BF16, "the bfloat16 file, mapped while it is quantized")


def per_token_and_layer(base: Shape, recipe: Recipe) -> int:
    wide, narrow = base.hidden, base.intermediate
    heads = base.heads * base.head_dim
    norms = 2 * wide * FP32
    inputs = 2 * wide * BF16
    attention = 5 * heads * BF16 + base.heads * FP32
    gated = 4 * narrow * BF16
    lora = 7 * recipe.rank * BF16
    return norms + inputs + attention + gated + lora


def _activations(base: Shape, recipe: Recipe, batch: Batch) -> Term:
    size = batch.padded * per_token_and_layer(base, recipe) * base.layers
    return Term("activations", size, f"{batch.rows} rows of {batch.tokens:,} tokens x {base.layers} layers")


def _head(base: Shape, batch: Batch, device: str) -> Term:
    tile = min(batch.padded, TOKEN_TILE) * min(base.vocabulary, VOCABULARY_TILE)
    return Term("output head", tile * 31, f"a tile of logits, {min(batch.padded, TOKEN_TILE):,} tokens")
