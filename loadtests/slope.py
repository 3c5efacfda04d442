"""How fast something grows: the slope of a line through its values, for the memory of a soak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959963984540054  # the normal distribution's 0.975 quantile


@dataclass(frozen=True, slots=True)
class Slope:
    """Units an hour, with its 95 % interval."""

    per_hour: float
    low: float
    high: float


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope | None:
    """Least squares of `values` over `seconds`. None below 5 points, or when all are of one moment.

    The interval is the textbook's, b +- t(0.975, n-2) * s / sqrt(sum((x - mean)^2)). It takes the residuals
    for independent: memory moves in steps, and then it is too narrow. Leave the warm-up out.
    """
    x, y = np.asarray(seconds, np.float64), np.asarray(values, np.float64)
    n = len(x)
    if n < 5:
        return None
    x = x - x.mean()
    squares = float((x**2).sum())
    if squares == 0:
        return None
    b = float((x * y).sum()) / squares
    residuals = y - y.mean() - b * x
    half = student(n - 2) * math.sqrt(float((residuals**2).sum()) / (n - 2) / squares)
    return Slope(b * 3600, (b - half) * 3600, (b + half) * 3600)


def student(freedom: int) -> float:
    """Student's t, 0.975 quantile, for 3 degrees of freedom and more: within 0.3 %.

    The Cornish-Fisher expansion about the normal quantile (Abramowitz and Stegun, 26.7.5).
    """
    z, v = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )
