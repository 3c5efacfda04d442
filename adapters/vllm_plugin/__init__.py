"""Runs inside the engine, never in the gateway: a LoRA kernel for CPU that is right for base rows, the
fix for `prompt_logprobs`, a self-test, an endpoint that tells the truth about them, and a guard on every
route. vLLM calls it through two entry points (`vllm.general_plugins`, `vllm.endpoint_plugins`), both named
`hotswap`; nothing else may. It may import torch, vllm and fastapi, here only inside functions, and of
Hotswap only itself.

An engine needs `VLLM_PLUGINS=bitsandbytes,hotswap` and `VLLM_API_KEY`, and no flag. It does not need
`VLLM_ALLOW_INSECURE_SERIALIZATION`: workers gain a method that is called by its name.
"""

from __future__ import annotations

import logging


def register() -> None:
    """Called by vLLM in every process of an engine. A vLLM that we do not know must still start."""
    try:
        from adapters.vllm_plugin.installation import install

        install()
    except (ImportError, AttributeError):
        logging.getLogger("vllm.hotswap").exception("HOTSWAP IS NOT IN THIS ENGINE, which is stock vLLM")
