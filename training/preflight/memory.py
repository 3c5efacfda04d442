"""Peak memory of a run, summed up from the base's config: no table, and no factor that only makes it fit.

Each term is what one named part of the libraries keeps, in bytes, with its reason. The peak of a step is at
the beginning of the backward pass: every layer's activations are still there, and the head works on its
first tile. Before the steps there is another peak, while the base is loaded and quantized; the larger counts.
`python -m tests.proofs memory_estimate` measures both and holds this within 15 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.methods.head import POSITIONS
from training.preflight.findings import Finding, error, warning
from training.recipe import Recipe
from training.shape import Shape

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a weight: 4 bits, and for each block of 64 a scale of 8 bits, and for each 256 of those one of 32
(Dettmers et al., 2023, double quantization: 4.127 bits)."""
BF16, FP32 = 2, 4
VOCABULARY_TILE, TOKEN_TILE = 32_768, 4_096
"""trl/kernels/chunked_logprob.py and trl/trainer/utils.py (1.16): on a GPU logits come in such tiles."""
TIGHT = 0.85


@dataclass(frozen=True, slots=True)
class Batch:
    """The largest step: so many rows, all padded to the longest, tokens; of all rows so many are learned."""

    rows: int
    tokens: int
    learned: int

    @classmethod
    def of(cls, lengths: Sequence[tuple[int, int]], batch_size: int) -> Batch:
        """From the tokens of each row and those learned of it. Rows of like length are batched together, so
        one batch holds the longest; at most it learns what those learn of which the most is learned."""
        learned = sorted((each for _, each in lengths), reverse=True)
        longest = max((tokens for tokens, _ in lengths), default=1)
        return cls(min(batch_size, len(lengths)), longest, sum(learned[:batch_size]))

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
    activations = _activations(base, recipe, batch)
    stays = (_weights(base), _adapter(base, recipe), activations)
    if device == "cuda":
        head = _head(base, batch, device)
        return Memory((_process(device), _embedding(base), *stays, head), (), device)
    # On a CPU the heap keeps what loading had freed, and steps live in it until they need more.
    heap = (*stays, _holes(base, batch, activations.bytes))
    left = _left_by_loading(base)
    spare = left.bytes - sum(term.bytes for term in (*heap[1:],))
    parts = (*heap, replace(left, bytes=spare)) if spare > 0 else heap
    always = (_process(device), _mapped(base))
    return Memory((*always, *parts, _head(base, batch, device)), (*always, _weights(base), left), device)


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


PROCESS = {"cpu": 650_000_000, "cuda": 550_000_000}
"""Measured: Python with torch 2.13, transformers 5.19, trl 1.16, peft 0.21, bitsandbytes 0.50, datasets 5.2
has 381 MB of its own and 203 MB of files after their import, and 66 MB more of files (oneDNN, MKL) after the
first step. On a GPU: a CUDA context and the handles of cuBLAS; that was never measured."""
HOLES = 0.77
"""glibc (2.36, its bug 14581) does not put an aligned block into a hole of its own size, and torch's blocks
are aligned, so temporaries leave holes between what stays. Measured as the heap's growth a token: 1.20 MB
with blocks in the heap, 0.68 MB with pages of their own (MALLOC_MMAP_THRESHOLD_)."""
OWN_PAGES = 32 * 2**20
"""From this size on glibc gives a block pages of its own (DEFAULT_MMAP_THRESHOLD_MAX): no holes."""


def _process(device: str) -> Term:
    return Term("process", PROCESS[device], "Python, torch, transformers, trl, peft, bitsandbytes, datasets")


def _weights(base: Shape) -> Term:
    """The rest, the embedding above all, stays in bfloat16: see `_mapped`, or on a GPU beside these."""
    return Term("base", round(base.linear_parameters * NF4), "linear layers in NF4, scales quantized too")


def _embedding(base: Shape) -> Term:
    return Term("embedding", base.embedding_parameters * BF16, "in bfloat16, with the output head")


def _mapped(base: Shape) -> Term:
    """safetensors maps the file, and the embedding stays in it; so the whole map stays, with every page that
    was read."""
    return Term("checkpoint", base.parameters * BF16, "the bfloat16 file, mapped; the embedding is in it")


def _adapter(base: Shape, recipe: Recipe) -> Term:
    """Weights, gradients and both of Adam's moments in float32 (`training.run`), and of the weights the copy
    in bfloat16 that autocast keeps until the step's end: 4 x 4 + 2 bytes a weight."""
    size = base.lora_parameters(recipe.rank) * (4 * FP32 + BF16)
    return Term("adapter", size, "weights, gradients, Adam's moments in float32")


def _left_by_loading(base: Shape) -> Term:
    """transformers copies each matrix out of the map before it quantizes it. Matrices below `OWN_PAGES` are
    blocks of the heap, and stay there, free, with holes between them: none to all, since the loader's threads
    differ from run to run (1.29 to 1.54 GB of peak in four runs of the smallest steps), so here half."""
    small = sum(math.prod(shape) for shape in base.linears.values() if math.prod(shape) * BF16 < OWN_PAGES)
    return Term("left by loading", round(small * BF16 * (1 + HOLES / 2)), "free, but kept by the heap")


def per_token_and_layer(base: Shape, recipe: Recipe) -> int:
    """Bytes that one layer keeps of one token for the backward pass, checked by counting what autograd saves
    (torch.autograd.graph.saved_tensors_hooks): a llama's layer, whose frozen weights save nothing of theirs.

    - each of the two norms: its input in float32;
    - for LoRA's A: the input of the attention, of the MLP and of down_proj, once each for all who read it;
    - the attention: queries, keys, values and the output, which is o_proj's input; the sum of each head;
    - the MLP: gate, silu(gate) and up;
    - for LoRA's B: what A gives, at each linear layer;
    - with dropout, in the place of the inputs: what is left of it for each linear layer alone, and its mask,
      a byte a value.
    """
    wide, narrow = base.hidden, base.intermediate
    heads, pairs = base.heads * base.head_dim, base.kv_heads * base.head_dim
    norms = 2 * (wide * FP32 + FP32)
    inputs = 2 * wide * BF16 + narrow * BF16
    attention = (2 * heads + 2 * pairs) * BF16 + base.heads * FP32
    gated = 3 * narrow * BF16
    linears = len(base.linears) / base.layers
    lora = linears * recipe.rank * BF16
    if recipe.dropout:
        inputs = round(sum(into for _, into in base.linears.values()) / base.layers) * (BF16 + 1)
    return round(norms + inputs + attention + gated + lora)


def _activations(base: Shape, recipe: Recipe, batch: Batch) -> Term:
    """Of all layers; with checkpointing each layer's input, and all of the one that is computed again."""
    each = per_token_and_layer(base, recipe)
    size = each * base.layers
    if recipe.gradient_checkpointing:
        size = base.layers * base.hidden * BF16 + each
    return Term(
        "activations",
        batch.padded * size,
        f"{batch.rows} rows of {batch.tokens:,} tokens x {base.layers} layers",
    )


def _holes(base: Shape, batch: Batch, activations: int) -> Term:
    """As far as the activations are blocks of the heap."""
    largest = batch.padded * max(base.intermediate, base.hidden) * BF16
    share = 1.0 if largest < OWN_PAGES else 0.0
    return Term("holes", round(activations * HOLES * share), "between them in the heap")


def _head(base: Shape, batch: Batch, device: str) -> Term:
    """On a CPU (training.methods.head) of each learned token the logits in bfloat16, in float32, their
    log-softmax, and of the last two the gradients: 2 + 4 x 4 bytes. On a GPU a tile of logits that
    trl/kernels/chunked_logprob.py works on in place."""
    if device == "cuda":
        tokens = min(batch.padded, TOKEN_TILE)
        tile = tokens * min(base.vocabulary, VOCABULARY_TILE) * BF16
        return Term(
            "output head", tile + batch.padded * base.hidden * FP32, f"a tile of logits: {tokens:,} tokens"
        )
    tokens = min(batch.learned, POSITIONS)
    size = tokens * base.vocabulary * (BF16 + 4 * FP32) + batch.padded * base.hidden * BF16
    return Term("output head", size, f"logits of {tokens:,} learned tokens")
