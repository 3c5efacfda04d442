"""Numbers that one process adds to and any process may read: an array of doubles in shared memory.

A worker of several has its array in a file of the state folder, mapped into memory, so that whichever worker
is asked for /metrics can add up all of them, and a counter does not fall when a worker is started again. An
addition is a load and a store: no lock (one writer a file), no system call.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path

VALUE = struct.calcsize("d")


class Tally:
    """`values[i] += 1`. `names` fixes the layout: the same names in the same order in every process."""

    def __init__(self, names: Sequence[str], file: Path | None = None) -> None:
        """Counts in `file`, going on from what it holds; in memory of its own without one."""
        self.names = tuple(names)
        self._folder = None if file is None else file.parent
        size = len(self.names) * VALUE
        if file is None:
            self._memory = mmap.mmap(-1, size)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.ftruncate(descriptor, size)
                os.posix_fallocate(descriptor, 0, size)  # a full disk is told of here, not by a signal later
                self._memory = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        self.values = memoryview(self._memory).cast("d")

    def total(self) -> dict[str, float]:
        """Name -> value, added up over every tally in the same folder."""
        sums = [0.0] * len(self.names)
        for values in self._all():
            for i, value in enumerate(values):
                sums[i] += value
        return dict(zip(self.names, sums, strict=True))

    def _all(self) -> list[Sequence[float]]:
        if self._folder is None:
            return [self.values.tolist()]
        found: list[Sequence[float]] = []
        for file in self._folder.glob("*.tally"):
            content = file.read_bytes()
            if len(content) == len(self.names) * VALUE:  # another layout is an earlier release's
                found.append(struct.unpack(f"{len(self.names)}d", content))
        return found
