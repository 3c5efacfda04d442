"""How long to wait before the next start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Doubles from `first_s` to `longest_s`; begins again after a run that was well for `reset_after_s`."""

    first_s: float = 0.5
    longest_s: float = 30.0
    reset_after_s: float = 60.0
    _failures: int = 0

    def next_s(self, healthy_s: float) -> float:
        """The wait after a run that served for `healthy_s` seconds (0: it never came into service)."""
        if healthy_s >= self.reset_after_s:
            self._failures = 0
        wait = min(self.longest_s, self.first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return wait
