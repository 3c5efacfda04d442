"""How many requests may be tried a second time, so that retries cannot become the load."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

BUCKET_S = 1.0
"""Tokens expire together with the others of their second."""

BATCH = 16
"""The clock is read once in so many requests; by as many, at most, a token's age is taken for too old."""

_ROUNDING = 1e-9
"""Ten tenths make a token, whatever binary fractions say."""


class RetryBudget:
    """A token bucket after Finagle's RetryBudget (finagle.github.io/blog/2016/02/08/retry-budgets).

    Each request deposits `share` tokens, each second `min_per_s` (so that low traffic can retry, too), and
    each retry takes one. A token that nobody took expires `ttl_s` seconds after its deposit, or up to 1 s
    earlier: an hour without trouble saves up for no storm. So the retries of any window of w seconds are at
    most share x requests of the window and of `ttl_s` before it, plus min_per_s x (w + ttl_s + 1).

    Each gateway process has its own. `request` is called for every request and costs a fraction of a
    microsecond; requests since the clock was last read count as old as that reading, which never gives more.
    """

    __slots__ = (
        "_buckets",
        "_clock",
        "_deposit",
        "_ends",
        "_min_per_bucket",
        "_pending",
        "refused",
        "retries",
    )

    def __init__(
        self,
        share: float = 0.1,
        *,
        min_per_s: float = 1.0,
        ttl_s: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins with the reserve full: `min_per_s` x `ttl_s` tokens. Raises `ValueError`."""
        if share < 0 or min_per_s < 0 or ttl_s < 1:
            raise ValueError(
                f"share = {share}, min_per_s = {min_per_s}, ttl_s = {ttl_s}: none may be negative, and "
                "tokens live for 1 s at least"
            )
        self._deposit = share
        self._min_per_bucket = min_per_s * BUCKET_S
        self._clock = clock
        length = int(ttl_s / BUCKET_S)
        self._buckets = deque([self._min_per_bucket] * length, maxlen=length)  # the oldest first
        self._ends = clock() + BUCKET_S
        self._pending = 0
        self.retries = 0
        """Retries that were allowed, ever."""
        self.refused = 0
        """And those that were not."""

    def request(self) -> None:
        """A request came in (not a retry of one)."""
        self._pending += 1
        if self._pending >= BATCH:
            self._settle()

    def try_retry(self) -> bool:
        """Takes a token for one retry; False when there is none, and then the failure is the answer."""
        if self.balance < 1.0 - _ROUNDING:
            self.refused += 1
            return False
        missing = 1.0
        for at, tokens in enumerate(self._buckets):  # those that expire first
            taken = min(tokens, missing)
            self._buckets[at] = tokens - taken
            missing -= taken
        self.retries += 1
        return True

    @property
    def balance(self) -> float:
        """Tokens that are there now; a retry takes one."""
        self._settle()
        return sum(self._buckets)

    def _settle(self) -> None:
        """Deposits for the pending requests, as of when this ran last, and lets old tokens expire."""
        self._buckets[-1] += self._pending * self._deposit
        self._pending = 0
        now = self._clock()
        if now < self._ends:
            return
        seconds = int((now - self._ends) / BUCKET_S) + 1
        self._ends += seconds * BUCKET_S
        for _ in range(min(seconds, len(self._buckets))):
            self._buckets.append(self._min_per_bucket)
