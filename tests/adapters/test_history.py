"""A rollback goes to the stable version before, and never back to what was rolled away from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.history import rollback_target, stables

EVER = set(range(100))


@pytest.mark.parametrize(
    ("target", "events"),
    [
        (None, []),
        (None, [("promote", 1)]),
        (1, [("promote", 1), ("promote", 2)]),
        (2, [("promote", 1), ("promote", 2), ("register", 3), ("promote", 3)]),
        (1, [("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2)]),
        (None, [("promote", 1), ("promote", 2), ("rollback", 1)]),
        (1, [("promote", 1), ("promote", 2), ("rollback", 1), ("promote", 3)]),
        (2, [("promote", 1), ("promote", 2), ("promote", 1)]),
        (None, [("promote", 1), ("promote", 2), ("remove", None), ("promote", 3)]),
    ],
)
def test_a_rollback_goes_to_the_stable_version_before(
    target: int | None, events: list[tuple[str, int | None]]
) -> None:
    assert target == rollback_target(events, EVER)


def test_a_rollback_passes_over_versions_that_are_deleted() -> None:
    assert 1 == rollback_target([("promote", 1), ("promote", 2), ("promote", 3)], {1, 3})


@given(st.lists(st.integers(0, 5)))
def test_the_last_stable_version_is_always_the_one_that_serves(choices: list[int]) -> None:
    """0 rolls back where that is possible, any other number promotes it."""
    events: list[tuple[str, int | None]] = []
    serving = None
    for choice in choices:
        target = rollback_target(events, EVER)
        if choice and choice != serving:
            events.append(("promote", serving := choice))
        elif not choice and target is not None:
            events.append(("rollback", serving := target))
    assert serving == (stables(events) or [None])[-1]
