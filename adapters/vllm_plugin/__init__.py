"""Runs inside the engine, never in the gateway: a LoRA kernel for CPU that is right for base rows, the
fix for `prompt_logprobs`, a self-test, true residency with routes and metrics, admission, and a guard on
every route. vLLM calls it through two entry points (`vllm.general_plugins`, `vllm.endpoint_plugins`), both
named `hotswap`. Beside vLLM only the fake engine may use it, which has the same door and routes: `door`,
`routes` and what those stand on need neither torch nor vLLM. The rest may import them, here only inside
functions. Of Hotswap it uses what identifies and keeps adapters: `adapters.{version,store,archive,base}`.

An engine needs `VLLM_PLUGINS=bitsandbytes,hotswap` and `VLLM_API_KEY`, and no flag. It does not need
`VLLM_ALLOW_INSECURE_SERIALIZATION`: workers gain methods that are called by their names.
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
