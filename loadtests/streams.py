"""Random numbers with names: one seed, and a stream for each thing that is drawn."""

from __future__ import annotations

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The stream `name` of `seed`. Others neither change it nor are like it (`numpy.random.SeedSequence`)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *name.encode()])))
