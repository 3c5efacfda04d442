from __future__ import annotations

import time

import pytest

from gateway.traffic.redact import redact
from tests.traffic.redact.adversarial import ADVERSARIAL


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_four_times_as_much_takes_no_more_than_four_times_as_long(name: str) -> None:
    """Twelve times allows for a busy machine; quadratic would be sixteen and, at a megabyte, minutes."""
    unit = ADVERSARIAL[name]
    short, long = (_seconds(unit * (size // len(unit))) for size in (25_000, 100_000))
    assert long < max(0.2, 12 * short)


def _seconds(text: str) -> float:
    best = float("inf")
    for _ in range(2):
        begun = time.process_time()
        redact(text)
        best = min(best, time.process_time() - begun)
    return best
