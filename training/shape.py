"""A base by its sizes, read from `config.json` and `base.json` alone: for recipes and estimates."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base.manifest import BaseManifest, canonical_config
from training.recipe import TrainingError


@dataclass(frozen=True, slots=True)
class Shape:
    """Counts of a decoder-only transformer. `linears` maps module paths to (out, in), head excluded.

    `context` is the longest sequence it was trained for, tokens. `tied`: the output head is the embedding.
    `quantization` is how the checkpoint is stored ("none": plain weights, quantized to NF4 when loaded).
    """

    name: str
    linears: Mapping[str, tuple[int, int]]
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    tied: bool
    quantization: str

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """Of the prepared base in `folder`. Raises `BaseError`, or `TrainingError` naming a size that the
        config lacks."""
        manifest = BaseManifest.read(folder)
        return cls.of(json.loads(canonical_config(folder)), manifest)

    @classmethod
    def of(cls, config: Mapping[str, Any], manifest: BaseManifest) -> Shape:
        """From a parsed config.json (its text part where it has several) and the manifest."""
        text = config.get("text_config") or config

        def size(*names: str, default: int | None = None) -> int:
            found = next((text[name] for name in names if isinstance(text.get(name), int)), default)
            if found is None:
                raise TrainingError(
                    f"{manifest.name}'s config.json has no {names[0]}, without which nothing can be "
                    "estimated; prepare it again (hotswap base prepare), or train with --no-preflight"
                )
            return found

        hidden = size("hidden_size", "n_embd", "d_model")
        heads = size("num_attention_heads", "n_head")
        return cls(
            name=manifest.name,
            linears=manifest.linears,
            hidden=hidden,
            intermediate=size("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden),
            layers=size("num_hidden_layers", "n_layer"),
            heads=heads,
            kv_heads=size("num_key_value_heads", default=heads),
            head_dim=size("head_dim", default=hidden // heads),
            vocabulary=size("vocab_size"),
            context=size("max_position_embeddings", "n_positions", default=2048),
            tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True))),
            quantization=manifest.quantization,
        )

    @property
    def linear_parameters(self) -> int:
        """Weights of the layers that an adapter changes and NF4 holds."""
        return sum(math.prod(shape) for shape in self.linears.values())

    @property
    def embedding_parameters(self) -> int:
        """Weights that stay in bfloat16: the embedding, and the head where it is a matrix of its own."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """Of the whole base, without norms (less than a thousandth)."""
        return self.linear_parameters + self.embedding_parameters

    def lora_parameters(self, rank: int) -> int:
        """Weights of an adapter on every linear layer: rank x (in + out) each (Hu et al., 2021)."""
        return sum(rank * (out + into) for out, into in self.linears.values())
