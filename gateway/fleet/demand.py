"""How much each version is used: requests in flight and waiting, sampled and smoothed.

What placement needs is *load*, the mean number of requests at work (Little's law: rate times duration). It is
sampled from what is in flight anyway, so that the request path counts nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FORGOTTEN = 1e-3
"""A version whose smoothed load is below this is cold."""


class Demand:
    """`sample` often; `close_interval` every few seconds gives version -> smoothed load (requests)."""

    def __init__(self, keep: float = 0.5) -> None:
        """`keep`: how much of the old value stays at each interval (an exponential average)."""
        self._keep = keep
        self._samples = 0
        self._sums: dict[str, int] = {}
        self._smooth: dict[str, float] = {}

    def sample(self, in_flight: Iterable[Mapping[str, int]]) -> None:
        """One look at every engine: version -> requests in flight and waiting there."""
        self._samples += 1
        sums = self._sums
        for counts in in_flight:
            for name, count in counts.items():
                sums[name] = sums.get(name, 0) + count

    def close_interval(self) -> Mapping[str, float]:
        """smooth = keep * smooth + (1 - keep) * mean of the samples since the last call."""
        sums, samples = self._sums, self._samples
        self._sums, self._samples = {}, 0
        if samples:
            smooth = {name: self._keep * load for name, load in self._smooth.items()}
            for name, total in sums.items():
                smooth[name] = smooth.get(name, 0.0) + (1 - self._keep) * total / samples
            self._smooth = {name: load for name, load in smooth.items() if load >= FORGOTTEN}
        return dict(self._smooth)
