"""Rendezvous hashing (Thaler and Ravishankar, 1998): each version has its own order of engines, best first.

The order depends on names alone, so every process computes the same one, and an engine that comes or goes
changes nobody's order of the others. Scores are of 64 bits: the names' BLAKE2b digests, xored and mixed by
splitmix64's finaliser (Steele, Lea and Flood, 2014), in Python for a few engines and in numpy for many.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MASK = (1 << 64) - 1
INCREMENT, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
FEW = 48
"""Up to here a loop in Python is faster than numpy's dozen calls."""
SCORES = 1 << 18
"""Computed at once: 2 MB, which stays near the processor."""
AFFINE = 8
"""Homes up to which each prompt prefix has its own order of them; beyond, its own place to begin."""


def order(version: str, engines: Sequence[str]) -> tuple[str, ...]:
    """`engines` in the order in which `version` prefers them, best first."""
    own = digest(version)
    return tuple(sorted(engines, key=lambda engine: (-mix(own ^ digest_of_engine(engine)), engine)))


def prefer(affinity: int, homes: Sequence[str]) -> tuple[str, ...]:
    """`homes` in the order in which prompts with this `affinity` (a hash of their beginning) prefer them.

    A home that is added takes over one prompt in so many and leaves the others where they were. With more
    than `AFFINE` homes that holds for one added at the end, which is where a hotter version gets them.
    """
    if len(homes) == 1:
        return tuple(homes)
    if len(homes) > AFFINE:
        begin = _jump(affinity & MASK, len(homes))
        return (*homes[begin:], *homes[:begin])
    own = mix(affinity & MASK)
    return tuple(sorted(homes, key=lambda home: (-mix(own ^ digest_of_engine(home)), home)))


def digest(name: str) -> int:
    """64 bits that depend on `name` alone, unlike Python's own salted `hash`."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


@lru_cache(maxsize=4096)
def digest_of_engine(name: str) -> int:
    """The same, remembered: engines are few and asked for at every request."""
    return digest(name)


def mix(value: int) -> int:
    """A bijection of 64 bits in which each bit of `value` changes half of the result's."""
    value = (value + INCREMENT) & MASK
    value = ((value ^ (value >> 30)) * FIRST) & MASK
    value = ((value ^ (value >> 27)) * SECOND) & MASK
    return value ^ (value >> 31)


@dataclass(frozen=True, eq=False)
class Electorate:
    """Engines to be ranked, in the order of their names; positions in it stand for them.

    An engine of twice the weight is the first choice of twice as many versions: scores become exponential
    variates, -ln(u)/weight, least first. A weight that changes moves versions to or from that engine only.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    digests: tuple[int, ...]

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Electorate:
        names = tuple(sorted(weights))
        return cls(names, tuple(weights[name] for name in names), tuple(map(digest_of_engine, names)))

    def __len__(self) -> int:
        return len(self.names)

    def same_as(self, other: Electorate) -> bool:
        return self.names == other.names and self.weights == other.weights

    @cached_property
    def equal(self) -> bool:
        return len(set(self.weights)) <= 1

    def first(self, own: int) -> int:
        """The position of the engine that the version with the digest `own` prefers."""
        if len(self) > FEW:
            return int(self._waits([own])[0].argmin())
        if self.equal:
            return max(range(len(self)), key=lambda at: mix(own ^ self.digests[at]))
        return min(range(len(self)), key=lambda at: _wait(mix(own ^ self.digests[at]), self.weights[at]))

    def all_of(self, own: int) -> list[int]:
        """Every position, best first, for the version with the digest `own`."""
        import numpy as np

        best_first: list[int] = np.argsort(self._waits([own])[0], kind="stable").tolist()
        return best_first

    def firsts(self, owns: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The position of the engine that each version prefers."""
        import numpy as np

        step = max(1, SCORES // max(1, len(self)))
        positions = np.zeros(len(owns), dtype=np.int64)
        for at in range(0, len(owns), step):
            positions[at : at + step] = np.argmin(self._waits(owns[at : at + step]), axis=1)
        return positions

    @cached_property
    def _digests(self) -> NDArray[np.uint64]:
        import numpy as np

        return np.array(self.digests, dtype=np.uint64)

    def _waits(self, owns: NDArray[np.uint64] | list[int]) -> NDArray[np.uint64] | NDArray[np.float64]:
        """Versions x engines; the least is the best."""
        import numpy as np

        values = np.asarray(owns, dtype=np.uint64)[:, None] ^ self._digests[None, :]
        values += np.uint64(INCREMENT)
        values ^= values >> np.uint64(30)
        values *= np.uint64(FIRST)
        values ^= values >> np.uint64(27)
        values *= np.uint64(SECOND)
        values ^= values >> np.uint64(31)
        if self.equal:
            return ~values
        uniform = ((values >> np.uint64(11)) + 0.5) / 2.0**53
        waits: NDArray[np.float64] = -np.log(uniform) / np.array(self.weights)
        return waits


def _wait(score: int, weight: float) -> float:
    return -math.log(((score >> 11) + 0.5) / 2.0**53) / weight


def _jump(key: int, buckets: int) -> int:
    """Jump consistent hash (Lamping and Veach, 2014): one more bucket takes 1/buckets of the keys."""
    bucket, following = -1, 0
    while following < buckets:
        bucket = following
        key = (key * 2862933555777941757 + 1) & MASK
        following = int((bucket + 1) * (2.0**31 / ((key >> 33) + 1)))
    return bucket
