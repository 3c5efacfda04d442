"""What the registry or an engine would refuse after the training: better known before it."""

from __future__ import annotations

from collections.abc import Iterator

from training.preflight.findings import Finding, error, note, warning
from training.recipe import Recipe, unserved
from training.recipe.resolve import Fleet, Tokens
from training.shape import Shape

BF16 = 2
HEADER = 1 << 16
"""Bytes of an adapter's files beside its weights: the safetensors header, the config, the lineage."""
_BASES = ("none", "bitsandbytes")
"""Checkpoints that bitsandbytes trains on: plain weights, and its own."""


def look(
    recipe: Recipe, base: Shape, fleet: Fleet, max_bytes: int | None, tokens: Tokens
) -> Iterator[Finding]:
    """Findings on the adapter that this recipe would make."""
    if why := unserved.rank(recipe.rank, fleet.max_rank):
        yield error("fleet", why.reason, f"nearest: {why.nearest}")
    if base.quantization not in _BASES:
        yield error(
            "fleet",
            f"the base is stored as {base.quantization}, which this trainer cannot train on (QLoRA takes "
            "plain weights and quantizes them to NF4 itself)",
            "prepare the base from its plain bf16 checkpoint",
        )
    size = adapter_bytes(base, recipe.rank)
    if max_bytes is not None and size > max_bytes:
        yield error(
            "fleet",
            f"the adapter would have {size:,} bytes; the registry takes {max_bytes:,}",
            f"a rank of at most {max(1, recipe.rank * max_bytes // size)}, or a larger "
            "registry.max_adapter_bytes",
        )
    elif why is None:
        yield note(
            "fleet",
            f"rank {recipe.rank} of {fleet.max_rank} ({fleet.source}), {len(base.linears)} linear layers, an "
            f"adapter of {size / 1e6:.1f} MB",
        )
    if tokens.longest > fleet.max_tokens:
        yield warning(
            "context",
            f"the longest row has {tokens.longest:,} tokens; engines serve {fleet.max_tokens:,} "
            f"({fleet.source}), so such a request would be refused",
            f"shorten those rows, or raise engine.max_model_len to {_rounded(tokens.longest):,}",
        )


def adapter_bytes(base: Shape, rank: int) -> int:
    """Of the files: TRL keeps LoRA weights in bfloat16 on a quantized base."""
    return base.lora_parameters(rank) * BF16 + HEADER


def _rounded(tokens: int) -> int:
    return -(-tokens // 256) * 256
