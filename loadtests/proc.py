"""What a process costs, from Linux's /proc: CPU seconds and resident memory of it and of its descendants."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CPU, RSS = "process_tree_cpu_seconds_total", "process_tree_resident_bytes"
"""What `Cost` is called among scraped series."""

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class ProcessGone(RuntimeError):
    """There is no such process, or the system has no /proc."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a process tree at one moment. CPU of children that have ended and were waited for is in it."""

    cpu_s: float
    rss_bytes: int
    processes: int


def cost(pid: int, *, children: bool = True) -> Cost:
    """What `pid`, and the tree under it, has cost until now. Raises `ProcessGone`."""
    root = _stat(pid)
    if root is None:
        raise ProcessGone(f"there is no process {pid} in /proc")
    below: dict[int, list[int]] = {}
    stats = {pid: root}
    for entry in os.listdir("/proc") if children else ():
        if entry.isdecimal() and (stat := _stat(int(entry))) is not None:
            stats[int(entry)] = stat
            below.setdefault(stat.parent, []).append(int(entry))
    tree, waiting = [], [pid]
    while waiting:
        each = waiting.pop()
        tree.append(stats[each])
        waiting += below.get(each, ())
    return Cost(
        cpu_s=sum(stat.cpu_ticks for stat in tree) / _TICKS,
        rss_bytes=sum(stat.rss_pages for stat in tree) * _PAGE,
        processes=len(tree),
    )


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    cpu_ticks: int
    rss_pages: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after = text.rpartition(")")[2].split()  # a name may hold spaces and brackets
    # proc(5): field n is after[n - 3]; 4 is the parent, 14 to 17 utime, stime, cutime, cstime, 24 rss.
    return _Stat(int(after[1]), sum(map(int, after[11:15])), int(after[21]))
