"""The machine that a run would be on, looked at without torch."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SPEEDS = "training-speed.json"
KEPT = 20


@dataclass(frozen=True, slots=True)
class Speed:
    """A measured run: `tokens_per_s` trained (padding included), for a base by its number of parameters."""

    base: str
    parameters: int
    device: str
    tokens_per_s: float
    at: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run may use: bytes of memory that are free (None: unknown), "cpu" or "cuda", earlier speeds."""

    free_bytes: int | None
    device: str = "cpu"
    speeds: tuple[Speed, ...] = ()

    @classmethod
    def here(cls, state_dir: Path) -> Machine:
        """This one."""
        return cls(free_memory(), device(), read_speeds(state_dir))


def free_memory() -> int | None:
    """Bytes that a new process can have here: the kernel's own count, within the container's limit."""
    try:
        text = Path("/proc/meminfo").read_text()
        free = int(text.partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if most != "max":
            free = min(free, int(most) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        return free  # no container, or the first version of cgroups
    return max(0, free)


def device() -> str:
    """ "cuda" where an NVIDIA device is; by its file, since asking torch takes seconds."""
    return "cuda" if any(os.path.exists(f"/dev/nvidia{number}") for number in range(8)) else "cpu"


def read_speeds(state_dir: Path) -> tuple[Speed, ...]:
    """What earlier runs here measured, oldest first; a file that is none is passed over."""
    try:
        listed = json.loads((state_dir / SPEEDS).read_bytes())
        return tuple(Speed(**each) for each in listed)
    except (OSError, ValueError, TypeError):
        return ()  # a memory aid: without it the estimate says that it is a guess


def write_speed(state_dir: Path, speed: Speed) -> None:
    """Remember it among the last `KEPT`, all or nothing."""
    kept: Sequence[Speed] = (*read_speeds(state_dir), speed)[-KEPT:]
    state_dir.mkdir(parents=True, exist_ok=True)
    part = state_dir / f".{SPEEDS}.part"
    part.write_text(json.dumps([asdict(each) for each in kept], indent=1))
    part.replace(state_dir / SPEEDS)


def today() -> str:
    """The date, for a record of speed."""
    return time.strftime("%Y-%m-%d")
