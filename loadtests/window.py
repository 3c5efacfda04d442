"""What came back while a stretch of a run lasted: the honest numerator of a rate.

Requests that a slow server answers after the window, in the drain, are no throughput of the window; those
that were due before it and were answered inside are.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from loadtests.sample import Outcome, Sample


@dataclass(frozen=True, slots=True)
class Window:
    """`seconds` of a run from `start` (seconds from its beginning). The end is outside."""

    start: float
    seconds: float

    @property
    def end(self) -> float:
        return self.start + self.seconds

    def holds(self, moment: float | None) -> bool:
        return moment is not None and self.start <= moment < self.end

    def output_tokens(self, sample: Sample) -> int:
        """Output tokens that came inside: each chunk brings an even part, a whole answer all at its end.

        The tokens of the first i of n chunks are floor(tokens * i / n), so that windows one after the other
        add up to the whole.
        """
        if not sample.arrivals:
            return sample.output_tokens if self.holds(sample.last) else 0
        n, tokens = len(sample.arrivals), sample.output_tokens
        before = bisect_left(sample.arrivals, self.start)
        after = bisect_left(sample.arrivals, self.end, lo=before)
        return tokens * after // n - tokens * before // n

    def input_tokens(self, sample: Sample) -> int:
        """Prompt tokens whose first answer came inside: all of them or none."""
        return sample.input_tokens if self.holds(_read(sample)) else 0

    def cached_tokens(self, sample: Sample) -> int:
        """Those of `input_tokens` that the engine had in its prefix cache."""
        return sample.cached_tokens if self.holds(_read(sample)) else 0

    def idle_share(self, samples: Iterable[Sample]) -> float:
        """The share of the window in which no request was open."""
        if self.seconds <= 0:
            return 0.0
        busy, reached = 0.0, self.start
        for sent, last in sorted((s.sent, ended(s)) for s in samples if s.sent is not None):
            left, right = max(sent, reached), min(last, self.end)
            if right > left:
                busy += right - left
                reached = right
        return max(0.0, 1 - busy / self.seconds)


def ended(sample: Sample) -> float:
    """When a request was no longer open: infinity for one that never ended by itself."""
    if sample.last is not None:
        return sample.last
    if sample.outcome in (Outcome.UNFINISHED, Outcome.TIMEOUT):
        return math.inf
    return sample.at  # dropped, or refused without an answer: nothing waits for it


def _read(sample: Sample) -> float | None:
    return sample.last if sample.first is None else sample.first
