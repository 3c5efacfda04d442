"""A prepared base for preflight: a tokenizer, a template, sizes and no weights, which it never reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapters.base.manifest import BaseManifest
from tests.tiny_model import TEMPLATE

LAYERS, HIDDEN, INTERMEDIATE = 2, 64, 128


def write(folder: Path, template: str | None = TEMPLATE, **config: Any) -> Path:
    """Write the base to `folder`. `config` overrides config.json, `quantization` and `eos` the rest."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    quantization, eos = config.pop("quantization", "none"), config.pop("eos", "<|im_end|>")
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(["system user assistant question answer"] * 4, trainer)
    words.add_special_tokens([AddedToken(text, special=True) for text in specials])
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|im_start|>", "eos_token": eos, "pad_token": "<|im_end|>"})
    )
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(sizes | config))
    shapes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
        "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj": (INTERMEDIATE, HIDDEN),
        "mlp.down_proj": (HIDDEN, INTERMEDIATE),
    }
    BaseManifest(
        name="small",
        fingerprint="5" * 64,
        licence="apache-2.0",
        source="made by tests",
        known_names=("small",),
        linears={f"model.layers.{n}.{name}": shape for n in range(LAYERS) for name, shape in shapes.items()},
        hidden_size=HIDDEN,
        quantization=quantization,
    ).write(folder)
    return folder
