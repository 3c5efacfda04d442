"""How far apart two arms must be, look by look, so that looking often does not find what is not there.

A test is planned for a horizon. When `share` of its information is there, the error probability that may have
been spent is O'Brien and Fleming's, as Lan and DeMets (1983) spend it, half of alpha on either side:

    spent(share) = 2 (2 - 2 Phi(z / sqrt(share))),   z = Phi^-1(1 - alpha / 4)

The bound b_k of look k is where P(|Z_1| < b_1, ..., |Z_k-1| < b_k-1, |Z_k| >= b_k) is what may be spent since
look k-1, for a Brownian motion W without drift: Z_k = W(share_k) / sqrt(share_k). It is found by Armitage,
McPherson and Rowe's recursion (1969): the density of W over those paths that have crossed no bound is carried
from look to look, as a sum over a grid.

Called by `gateway.rollout.goal`. Imports NumPy when it is called: not for a process that serves requests.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

POINTS = 200
"""Of the grid, on either side of 0."""
_NORMAL = NormalDist()


def spent(share: float, alpha: float) -> float:
    """Error probability, both sides, that may be used up when so much of the information is there."""
    if share <= 0:
        return 0.0
    return 4 * _NORMAL.cdf(_NORMAL.inv_cdf(alpha / 4) / math.sqrt(share))


@lru_cache
def bounds(alpha: float, looks: int) -> tuple[float, ...]:
    """The bounds for |Z| at `looks` looks, each after 1 / looks of the information, of a two-sided test.

    Who leaves looks out, or takes one later than planned, spends less than `alpha`.
    Raises `ValueError`.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must be between 0 and 1")
    import numpy as np

    step_sd = math.sqrt(1 / looks)
    tail = np.frompyfunc(_NORMAL.cdf, 1, 1)
    places, mass = np.zeros(1), np.ones(1)
    found = []
    for look in range(1, looks + 1):
        budget = spent(look / looks, alpha) - spent((look - 1) / looks, alpha)
        low, high = 0.0, 40.0 * math.sqrt(look / looks)
        while high - low > 1e-7:
            edge = (low + high) / 2
            outside = tail((places - edge) / step_sd) + tail((-edge - places) / step_sd)
            if float(mass @ np.asarray(outside, float)) > budget:
                low = edge
            else:
                high = edge
        found.append(high / math.sqrt(look / looks))
        # Onto a new grid between the bounds, by the trapezoidal rule.
        grid = np.linspace(-high, high, 2 * POINTS + 1)
        density = np.exp(-0.5 * ((grid[:, None] - places[None, :]) / step_sd) ** 2) @ mass
        mass = density * (grid[1] - grid[0]) / (step_sd * math.sqrt(2 * math.pi))
        mass[[0, -1]] *= 0.5
        places = grid
    return tuple(found)
