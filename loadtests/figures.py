"""Figures as people read them: how many digits, which unit, what stands for none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loadtests.percentiles import QUANTILES, few

NONE = "-"
OPEN = "…"
"""Stands for a bound that the samples do not give."""


def number(value: float | None) -> str:
    """Three digits or all before the point: 0.0123, 1.23, 12.3, 1,234."""
    if value is None:
        return NONE
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def ms(seconds: float | None) -> str:
    """Seconds in milliseconds."""
    if seconds is None:
        return NONE
    value = seconds * 1000
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percent(share: float | None) -> str:
    """A share of 1. Never rounded to 0 % or 100 % unless it is that."""
    if share is None:
        return NONE
    text = f"{share:.1%}"
    for edge, whole in (("0.0%", 0.0), ("100.0%", 1.0)):
        if text == edge and share != whole:
            text = f"{share:.2%}" if f"{share:.2%}" not in ("0.00%", "100.00%") else f"{share * 100:.6g}%"
    return text.replace(".0%", "%") if share in (0.0, 1.0) else text


def usd(value: float | None) -> str:
    """Dollars, with three digits where they are few."""
    if value is None:
        return NONE
    return f"${value:,.2f}" if value >= 10 or value == 0 else f"${value:.3g}"


def quantiles(spread: Mapping[str, Any], names: Iterable[str], *, bounds: bool = True) -> tuple[str, ...]:
    """Percentiles of a spread in ms, with their interval where there is one, and `*` on those of too few
    samples."""
    cells = []
    for name in names:
        cell = ms(spread[name])
        if spread[name] is not None and few(spread["n"], QUANTILES[name]):
            cell += "*"
        low, high = spread.get(f"{name}_low"), spread.get(f"{name}_high")
        if bounds and (low is not None or high is not None):
            ends = (OPEN if end is None else ms(end) for end in (low, high))
            cell += f" [{', '.join(ends)}]"
        cells.append(cell)
    return tuple(cells)
