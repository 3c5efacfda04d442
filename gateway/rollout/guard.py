"""Is a candidate worse than stable? Evidence that may be looked at after every request.

For outcomes between 0 and 1 (1 is bad: an error, an empty answer, slower than nearly all of stable's), one of
each unit: its first, because the requests of one unit are alike, and as many independent ones they are not.
Units come in pairs of blocks: as soon as both arms have some, d = (mean of the candidate's) - (mean of
stable's) since the pair before. What changes with the hour changes both.

The wealth of a bettor who puts the share L of it on d being positive, at fair odds while candidate and stable
are alike (Waudby-Smith and Ramdas, 2024), is the product of 1 + L * (d - margin); for L in `SHARES`, the mean
of their wealths. If the candidate is no more than `margin` worse, it is a supermartingale that begins with 1,
so by Ville's inequality it ever reaches 1 / alpha with a probability of at most alpha.
"""

from __future__ import annotations

import math

SHARES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Small ones find small harm in many units, large ones find large harm in few."""


class Guard:
    """Of one kind of outcome. `margin` is by how much worse is still taken for alike."""

    def __init__(self, margin: float = 0.0) -> None:
        if not 0 <= margin < 1:
            raise ValueError(f"margin is {margin}; it must be at least 0 and below 1")
        self._margin = margin
        self._logs = [0.0 for _ in SHARES]
        self._candidate = _Block()
        self._stable = _Block()
        self.pairs = 0
        self.most = 0.0
        """The greatest log wealth that there was."""

    def candidate(self, bad: float) -> None:
        """A unit's first outcome under the candidate."""
        self._candidate.add(bad)
        self._pair()

    def stable(self, bad: float) -> None:
        """A unit's first outcome under stable, in the same hours."""
        self._stable.add(bad)
        self._pair()

    @property
    def log_wealth(self) -> float:
        highest = max(self._logs)
        return highest + math.log(sum(math.exp(each - highest) for each in self._logs) / len(self._logs))

    def harmful(self, alpha: float) -> bool:
        """Whether the evidence has ever been enough, at level `alpha`."""
        return self.most >= -math.log(alpha)

    def _pair(self) -> None:
        if not self._candidate.units or not self._stable.units:
            return
        gain = self._candidate.take() - self._stable.take() - self._margin
        # d - margin is at least -1 - margin, so each factor is at least 1 - L > 0.
        self._logs = [
            log + math.log1p(share * gain / (1 + self._margin))
            for log, share in zip(self._logs, SHARES, strict=True)
        ]
        self.pairs += 1
        self.most = max(self.most, self.log_wealth)


class _Block:
    """Outcomes of one arm since the last pair."""

    def __init__(self) -> None:
        self.units = 0
        self._sum = 0.0

    def add(self, bad: float) -> None:
        if not 0 <= bad <= 1:
            raise ValueError(f"an outcome is {bad}; it must be between 0 (good) and 1 (bad)")
        self.units += 1
        self._sum += bad

    def take(self) -> float:
        mean = self._sum / self.units
        self.units, self._sum = 0, 0.0
        return mean
