"""GGUF to safetensors, for the default base: `python -m adapters.base.convert MODEL.gguf FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

VOLATILE_TOKENIZER_KEYS = ("is_local", "local_files_only")
"""How the tokenizer was loaded, not what it is; they would make the fingerprint depend on the machine."""


def convert(gguf: Path, into: Path) -> None:
    """Write the model of `gguf` to `into` in Hugging Face layout, weights dequantized to bfloat16.

    transformers' import of a GGUF tokenizer forgets that this one (`tokenizer.ggml.pre` = smollm) splits off
    every digit before anything else, as SmolLM2's own tokenizer.json does. It is put back: without it, two
    spaces before a number give other tokens.
    """
    import torch
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Without dequantize=True the model cannot be saved (transformers 5.19).
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(into)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    kind = GGUFReader(gguf).fields["tokenizer.ggml.pre"].contents()
    if kind == "smollm":
        inner = tokenizer.backend_tokenizer
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), inner.pre_tokenizer]
        )
    tokenizer.save_pretrained(into)
    config = into / "tokenizer_config.json"
    settings = json.loads(config.read_bytes())
    kept = {key: value for key, value in settings.items() if key not in VOLATILE_TOKENIZER_KEYS}
    config.write_text(json.dumps(kept, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
    for file in into.iterdir():
        file.chmod(0o644)  # safetensors writes 0600; an engine may run as another user


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
