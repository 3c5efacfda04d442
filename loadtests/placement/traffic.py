"""Who asks for what: versions with Zipf-distributed popularity, and the names that placement hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def versions(count: int) -> list[str]:
    """`adapter-000007@3f9c2ab71e04`: as a gateway names them."""
    return [f"adapter-{at:06d}@{hashlib.sha256(str(at).encode()).hexdigest()[:12]}" for at in range(count)]


def engines(count: int, begin: int = 0) -> list[str]:
    return [f"engine-{at}:8000" for at in range(begin, begin + count)]


def shares(count: int, exponent: float) -> NDArray[np.float64]:
    """Share of the requests for each version, most asked for first: 1 / rank^exponent; 0 is uniform."""
    raw = 1.0 / np.arange(1, count + 1) ** exponent
    popular: NDArray[np.float64] = raw / raw.sum()
    return popular


def draws(popular: NDArray[np.float64], seed: int) -> Iterator[int]:
    """Versions of requests, one after the other, for ever."""
    random = np.random.default_rng(seed)
    while True:
        yield from random.choice(len(popular), size=4096, p=popular).tolist()
