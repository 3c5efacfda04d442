"""The adapter added to its base's own weights: W + scaling * B @ A, in float32, rounded once to bfloat16."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters.base.manifest import TEMPLATE_FILES, TOKENIZER_FILES, BaseManifest
from training.lora import Layer, layers
from training.recipe import TrainingError

BESIDE = ("config.json", "generation_config.json", *TOKENIZER_FILES, *TEMPLATE_FILES)
"""What a model's folder has beside its weights."""


def merge(base: Path, adapter: Path, into: Path) -> None:
    """Writes the merged model to the folder `into`, in Hugging Face's layout.

    Raises `TrainingError` for a base whose checkpoint is quantized: merging into packed weights would round
    the adapter away, and the result would be neither what was trained nor what is served.
    """
    from huggingface_hub import save_torch_state_dict

    manifest = BaseManifest.read(base)
    if manifest.quantization != "none":
        raise TrainingError(
            f"base {manifest.name} is stored quantized ({manifest.quantization}): an adapter is merged into "
            "plain weights only. Prepare the base from its bfloat16 checkpoint, or export the adapter itself"
        )
    save_torch_state_dict(merged(base, layers(adapter)), into)
    copy_beside(base, into)


def merged(base: Path, adapter: Mapping[str, Layer]) -> dict[str, Any]:
    """The base's tensors by name, with the adapter in them. Raises `TrainingError` for a missing layer."""
    import torch

    found = dict(weights(base))
    for name, layer in adapter.items():
        weight = found.get(f"{name}.weight")
        if weight is None:
            raise TrainingError(f"the base has no layer {name}, which the adapter changes")
        change = layer.scaling * (layer.b.float() @ layer.a.float())
        found[f"{name}.weight"] = weight.float() + change
    return {name: each.to(torch.bfloat16) for name, each in found.items()}


def copy_beside(base: Path, into: Path) -> None:
    """Configuration, tokenizer, template and licence."""
    licences = (file.name for file in base.glob("LICENSE*"))
    for name in (*BESIDE, *licences):
        if (base / name).is_file():
            shutil.copyfile(base / name, into / name)


def weights(folder: Path) -> Iterator[tuple[str, Any]]:
    """Every tensor of a model's folder, by name."""
    from safetensors.torch import load_file

    for file in sorted(folder.glob("*.safetensors")):
        yield from load_file(file).items()
