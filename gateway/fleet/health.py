"""Whether an engine may be asked, judged by what became of the requests that it had.

Passive outlier detection after Envoy's (envoyproxy.io/docs, "Outlier detection", "Panic threshold" and "Slow
start mode"), with these differences: an ejection's time doubles (Envoy multiplies the first by the count),
it ends in a *probation* which one answer decides, and panic begins only when nobody is left (Envoy: below
half), since a fleet of two is at half with one engine gone.

    well ── `consecutive` failures in a row, or one fatal ──▶ ejected ── after its time ──▶ probation
      ▲                                                          ▲                              │
      └───────────── one success, then slow start ───────────────┼──────────────────────────────┤
                                                                 └───────── one failure ────────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

FLOOR = 0.1
"""Weight of an engine that has just come back: enough to be tried, too little to hurt if it was a mistake."""

QUIET_TIMES = 10.0
"""This many times `base_s` in service without a failure, and one earlier ejection is forgiven."""

_LONGEST_EXPONENT = 60
"""2**60 s is long enough; a float has no 2**1100."""


class Health:
    """One engine's, through all its boots. It tells; whether to obey is the caller's (`may_serve`).

    `consecutive` failures in a row eject for `base_s` seconds, the next time for twice that, and so on up to
    `max_s`. After `recovered` (a new boot) and after a probation passed, `weight` rises for `slow_start_s`.
    `clock` gives monotonic seconds. Count requests only: `/health` can be well on an engine that answers
    nothing. What a client did wrong (4xx) or gave up is neither a failure nor a success.

    `began` of `succeeded` and `failed` is when the request began, by the same clock: news of requests older
    than the last ejection or boot is ignored, so that a hundred streams that stall together, and are given
    up one by one, eject their engine once. Without `began`, all news is taken as new.
    """

    __slots__ = (
        "_base_s",
        "_clock",
        "_consecutive",
        "_ejections",
        "_max_s",
        "_quiet_since",
        "_ramp_from",
        "_reason",
        "_since",
        "_slow_start_s",
        "failures",
        "until",
    )

    def __init__(
        self,
        *,
        consecutive: int = 3,
        base_s: float = 2.0,
        max_s: float = 60.0,
        slow_start_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `ValueError` for settings that cannot be meant."""
        if consecutive < 1 or base_s <= 0 or max_s < base_s or slow_start_s < 0:
            raise ValueError(
                f"consecutive = {consecutive}, base_s = {base_s}, max_s = {max_s}, slow_start_s = "
                f"{slow_start_s}: at least one failure ejects, for base_s > 0 and <= max_s"
            )
        self._consecutive = consecutive
        self._base_s = base_s
        self._max_s = max_s
        self._slow_start_s = slow_start_s
        self._clock = clock
        self.failures = 0
        """In a row, lately."""
        self._ejections = 0
        self._quiet_since = clock()
        self._since = float("-inf")
        self.until: float | None = None
        """When the ejection ends; stays set on probation. None: it is well."""
        self._ramp_from: float | None = None
        self._reason = ""

    @property
    def ejections(self) -> int:
        """How many ejections are remembered, the running one included: what the next one's time grows by."""
        return self._unforgiven(self._clock())

    @property
    def probation(self) -> bool:
        """Back after an ejection, and nothing has been heard of it since."""
        return self.until is not None and self._clock() >= self.until

    @property
    def suspect(self) -> bool:
        """Ejected, or on probation since."""
        return self.until is not None

    def ejected(self) -> str | None:
        """Why it is out, None while it may be asked: as ever, or on probation. Cheap while it is well."""
        if self.until is None or self._clock() >= self.until:
            return None
        return self._reason

    def back_in_s(self) -> float:
        """Seconds until an ejection ends; 0 when there is none."""
        return 0.0 if self.until is None else max(0.0, self.until - self._clock())

    def succeeded(self, *, began: float | None = None) -> None:
        """An engine's answer. Ends a probation.

        During an ejection only the success of a request that began during it counts (it was tried because
        nobody else was left): that ends the ejection at once.
        """
        if self.until is None:
            if self.failures and not self._old(began):
                self.failures = 0
            return
        now = self._clock()
        if self._old(began) or (began is None and now < self.until):
            return
        self._come_back(now)

    def failed(self, reason: str, *, fatal: bool = False, began: float | None = None) -> bool:
        """A request that the engine did not answer as an engine should. True: that ejected it, just now.

        `fatal` is for what needs no second look: it refuses or resets connections. During an ejection nothing
        is counted.
        """
        now = self._clock()
        if self._old(began) or (self.until is not None and now < self.until):
            return False
        self._ejections = self._unforgiven(now)
        self._quiet_since = now
        self.failures += 1
        if self.until is not None:
            self._eject(f"failed again on probation: {reason}", now)
        elif fatal or self._consecutive == 1:
            self._eject(f"failed: {reason}", now)
        elif self.failures >= self._consecutive:
            self._eject(f"{self.failures} failures in a row; the last: {reason}", now)
        else:
            return False
        return True

    def recovered(self) -> None:
        """A new boot was found fit: it may be asked at once, and slowly at first.

        Earlier ejections are not forgiven by that, so that an engine which fails after every start is out for
        longer each time.
        """
        self._since = now = self._clock()
        self._come_back(now)

    def weight(self) -> float:
        """The share of its capacity that it should get, 0 < weight <= 1."""
        if self.until is not None:
            return FLOOR
        if self._ramp_from is None:
            return 1.0
        passed_s = self._clock() - self._ramp_from
        if passed_s >= self._slow_start_s:
            self._ramp_from = None
            return 1.0
        return FLOOR + (1.0 - FLOOR) * passed_s / self._slow_start_s

    def _old(self, began: float | None) -> bool:
        return began is not None and began < self._since

    def _come_back(self, now: float) -> None:
        self.until = None
        self.failures = 0
        self._ramp_from = now
        self._quiet_since = min(self._quiet_since, now)  # later than now: an ejection was cut short

    def _eject(self, why: str, now: float) -> None:
        self._ejections += 1
        for_s = min(self._max_s, self._base_s * 2.0 ** min(self._ejections - 1, _LONGEST_EXPONENT))
        self._reason = why
        self._since = now
        self.until = self._quiet_since = now + for_s  # being left alone is not yet being well
        self._ramp_from = None

    def _unforgiven(self, now: float) -> int:
        quiet_s = max(0.0, now - self._quiet_since)
        return max(0, self._ejections - int(quiet_s / (QUIET_TIMES * self._base_s)))


def may_serve(healths: Sequence[Health]) -> list[bool]:
    """Which of these engines may be asked, in their order: those that are not ejected.

    When all of them are, all may (Envoy calls it panic). Every one of them failed, so either the cause is
    not theirs, or asking costs nothing that is not lost already; to refuse would make a hiccup of the network
    an outage of as long as the longest ejection.
    """
    well = [health.ejected() is None for health in healths]
    return well if any(well) else [True] * len(well)
