"""The base as the engine serves it, loaded for training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from adapters.base.manifest import BaseManifest
from training.recipe import TrainingError


def load(folder: Path, manifest: BaseManifest) -> Any:
    """The base as a causal language model: NF4 with double quantization and bfloat16 compute, as vLLM's
    bitsandbytes loader quantizes it; a checkpoint that is quantized already is taken as it is.

    On the GPU when there is one.
    """
    # bitsandbytes recommends, at warning level, a package that fetches kernels from a hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    options: dict[str, Any] = {"dtype": torch.bfloat16, "local_files_only": True}
    if manifest.quantization == "none":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    try:
        model = AutoModelForCausalLM.from_pretrained(str(folder), **options)
    except (ImportError, ValueError, OSError) as error:
        raise TrainingError(
            f"cannot load base {manifest.name} from {folder} for training: {error}"
        ) from error
    forbid_repacking(model)
    model.config.use_cache = False
    return model


def forbid_repacking(model: Any) -> None:
    """Keep bitsandbytes (0.50) from repacking its weights in place on CPUs with AVX512-BF16.

    `Linear4bit.forward` does so at the first forward outside training. After it every `state_dict()`, which
    PEFT calls to save and load, writes back wrong scales, and training drops the gradient through each
    frozen layer while the loss looks normal. Must be called before any forward.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
