"""Real processes to supervise, and how tests look at them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.supervise import leash

# $0 is the folder. One grandchild in the session, and one daemon: its own session, its parent gone.
FAMILY = """
sleep 1000 & echo $! > "$0/grandchild"
setsid sh -c 'sleep 1001 & echo $! > "$0/daemon"' "$0"
echo ready
"""
WAITS = FAMILY + "wait"
STUBBORN = "trap '' TERM\n" + FAMILY + "while true; do sleep 1; done"

PARENT = """
import asyncio, sys
from pathlib import Path
from gateway.supervise import Child
async def main():
    folder, grace, script = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    child = Child("engine", ["sh", "-c", script, folder], state_dir=folder,
                  log_path=folder / "engine.log", grace_s=grace)
    print(await child.start(), child.leash_pid, flush=True)
    await child.wait()
asyncio.run(main())
"""


@dataclass
class Family:
    """A parent of ours with a child on a leash, a grandchild and a daemon."""

    parent: subprocess.Popen[str]
    leash: int
    child: int
    grandchild: int
    daemon: int

    @classmethod
    def start(cls, folder: Path, *, grace_s: float = 5.0, script: str = WAITS) -> Family:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(folder), str(grace_s), script],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert parent.stdout is not None
        child, leash_pid = map(int, parent.stdout.readline().split())
        wait_until(lambda: (folder / "daemon").exists() and (folder / "daemon").read_text().strip() != "")
        return cls(parent, leash_pid, child, read_pid(folder / "grandchild"), read_pid(folder / "daemon"))

    def living(self) -> list[str]:
        """Who of the child's side is alive."""
        members = ("leash", "child", "grandchild", "daemon")
        return [name for name in members if is_alive(getattr(self, name))]

    def kill_us_and_the_leash(self) -> None:
        """Both at once: the leash is stopped first, so that it cannot act on the end of its parent."""
        os.kill(self.leash, signal.SIGSTOP)
        self.close()
        os.kill(self.leash, signal.SIGKILL)
        wait_until(lambda: not is_alive(self.leash))

    def close(self) -> None:
        self.parent.kill()
        self.parent.communicate()


def read_pid(path: Path) -> int:
    return int(path.read_text())


def is_alive(pid: int) -> bool:
    found = leash.process(pid)
    return found is not None and found.state != "Z"


def wait_until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


async def eventually(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """As `wait_until`, while the event loop goes on."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - other processes set no asyncio.Event
            await asyncio.sleep(0.01)
