"""The long tier: `make prove`, or `python -m tests.proofs [NAME...] [--data FOLDER] [--tools FOLDER]`.

Each proof starts its own Hotswap on real vLLM, measures, and writes docs/proofs/<name>.md.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

from tests.proofs.result import Result

PROOFS = (
    "startup",
    "disconnect",
    "kills",
    "swap",
    "purity",
    "banking77",
    "stall",
    "generator",
    "agreement",
    "scenarios",
    "overhead",
    "overhead_since",
    "soak",
    "kernel",
    "thrash",
    "fairness",
    "engine_lost",
    "scale",
    "stale",
    "placement",
    "redaction",
    "capture",
    "remembered",
    "millions",
    "traffic_outages",
    "memory_estimate",
    "training_speed",
    "killed_jobs",
    "retraining",
    "banking77_all",
    "rollout_statistics",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.proofs", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*PROOFS, []], help="default: all of them")
    parser.add_argument("--data", type=Path, help="folder of banking77 (train.csv, test.csv)")
    parser.add_argument("--tools", type=Path, help="folder of the yardstick in C (mock.c, load.c)")
    parser.add_argument(
        "--base", type=Path, help="prepared base; default: <repo>/.hotswap/base/…, made if missing"
    )
    chosen = parser.parse_args()
    given = {
        "data": chosen.data or _folder("BANKING77"),
        "tools": chosen.tools or _folder("OVERHEAD_TOOLS"),
    }
    base = chosen.base or _base()
    failed, missing = [], []
    for name in chosen.names or PROOFS:
        module = importlib.import_module(f"tests.proofs.{name}")
        need = getattr(module, "NEEDS", "")
        if need and given[need] is None:
            print(f"{name}: not run: give --{need} FOLDER", flush=True)
            missing.append(name)
            continue
        print(f"{name}:", flush=True)
        with tempfile.TemporaryDirectory(prefix=f"hotswap-{name}-") as folder:
            result: Result = module.prove(Path(folder), base, given.get(need))
        print(f"  written: {result.write().name}", flush=True)
        if not result.held:
            failed.append(name)
    print(
        f"{len(chosen.names or PROOFS) - len(failed) - len(missing)} held, "
        f"{len(failed)} failed, {len(missing)} not run"
    )
    return 1 if failed or (missing and chosen.names) else 0


def _folder(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


def _base() -> Path:
    """The default base, prepared in the repository's own state folder (not in git)."""
    from adapters.base.prepare import prepare
    from gateway.settings import Settings

    folder = (Path(__file__).parents[2] / ".hotswap" / "base" / Settings().base.name).resolve()
    prepare(None, folder, Settings().base.name, lambda line: print(f"  base: {line}", flush=True))
    return folder


sys.exit(main())
