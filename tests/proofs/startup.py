"""How long a user waits: for help, for the gateway alone, for the second `hotswap up`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.house import House
from tests.proofs.result import Result, median


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result("startup", "Wall-clock times from the command to its effect, medians; caches are warm.")
    helps = []
    for _ in range(11):
        began = time.monotonic()
        subprocess.run([Path(sys.executable).parent / "hotswap", "--help"], check=True, capture_output=True)
        helps.append(time.monotonic() - began)
    result.must(
        "`hotswap --help` < 0.3 s",
        median(helps) < 0.3,
        f"{median(helps):.2f} s, max {max(helps):.2f} s (n=11)",
    )

    alone = House(folder / "alone", base, engine=False)
    first = alone.start(ready=False)
    alone.stop()
    times = []
    for _ in range(7):
        times.append(alone.start(ready=False))
        alone.stop()
    result.figure("gateway alone, first start (makes its database)", f"{first:.2f} s")
    result.must(
        "gateway alone ready < 1.5 s",
        median(times) < 1.5,
        f"{median(times):.2f} s, max {max(times):.2f} s (n=7)",
    )

    whole = House(folder / "whole", base)
    whole.start()
    whole.stop()
    second = []
    for _ in range(3):
        second.append(whole.start())
        whole.stop()
    result.must(
        "a second `hotswap up` ready < 60 s",
        max(second) < 60,
        f"median {median(second):.0f} s, max {max(second):.0f} s (n=3)",
    )
    return result
