"""What was freed goes back to the kernel, also from the middle of the heap."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os
from pathlib import Path
from gateway.memory import give_back, keep_steady

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if not keep_steady():
    raise SystemExit("no glibc")
pieces = [bytes(20_000) for _ in range(2_000)]
last = bytes(20_000)  # stands at the heap's end, and stays
before = resident()
pieces.clear()
freed = before - resident()
give_back()
print(freed, before - resident())
"""


def test_free_pages_before_one_that_stays_go_back() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    by_itself, asked = (int(word) for word in said.stdout.split())
    assert by_itself < 10e6 < 30e6 < asked
