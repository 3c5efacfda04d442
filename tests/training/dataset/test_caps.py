"""Caps: on what our own models said, and on any one unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.dataset.candidates import candidate
from training.dataset.candidate import Candidate, Kind, Ledger
from training.dataset.caps import capped, own_rows


def left(candidates: list[Candidate], **caps: float) -> tuple[list[Candidate], Ledger]:
    ledger = Ledger()
    wanted = {"self_generated": 1.0, "unit": 1.0, "unit_rows": 1, **caps}
    return capped(candidates, ledger=ledger, **wanted), ledger  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("others", "share", "rows"), [(7, 0.3, 3), (0, 0.5, 0), (10, 0.5, 10), (5, 1.0, 99), (5, 0.0, 0)]
)
def test_own_rows_are_a_share_of_all(others: int, share: float, rows: int) -> None:
    assert rows == own_rows(others, share, there=99)


@given(st.integers(0, 500), st.floats(0, 0.99), st.integers(0, 500))
def test_the_share_is_kept_and_not_a_row_more_is_dropped(others: int, share: float, there: int) -> None:
    own = own_rows(others, share, there)
    assert own <= share * (own + others) + 1e-6
    assert own == there or own + 1 > share * (own + 1 + others) - 1e-6


def test_answers_of_our_own_models_are_capped_and_the_others_stay() -> None:
    rows = [candidate(at, kind=Kind.OWN if at < 8 else Kind.CORRECTED) for at in range(10)]
    found, ledger = left(rows, self_generated=0.5)
    assert (2, 2, {"self_generated_cap": 6}) == (
        sum(each.kind is Kind.OWN for each in found),
        sum(each.kind is Kind.CORRECTED for each in found),
        dict(ledger.counts),
    )


def test_a_unit_has_no_more_than_its_share() -> None:
    rows = [candidate(at, unit="a" if at < 8 else f"u{at}") for at in range(16)]
    found, ledger = left(rows, unit=0.25)
    assert (4, {"unit_cap": 4}) == (sum(each.unit == "a" for each in found), dict(ledger.counts))


def test_a_unit_may_have_some_rows_in_any_case() -> None:
    rows = [candidate(at, unit="a") for at in range(6)]
    assert 5 == len(left(rows, unit=0.01, unit_rows=5)[0])


def test_rows_of_nobody_are_no_unit() -> None:
    assert 9 == len(left([candidate(at) for at in range(9)], unit=0.1)[0])


def test_of_a_unit_what_was_corrected_stays() -> None:
    rows = [candidate(at, unit="a", kind=Kind.CORRECTED if at == 5 else Kind.OWN) for at in range(9)]
    assert [Kind.CORRECTED] == [each.kind for each in left(rows, unit=0.01)[0]]


def test_two_tenants_with_a_unit_of_one_name_are_two() -> None:
    rows = [candidate(at, unit="a", tenant=f"t{at % 2}") for at in range(4)]
    assert 2 == len(left(rows, unit=0.1)[0])


def test_what_was_disliked_does_not_count() -> None:
    rows = [candidate(at, unit="a", kind=Kind.DISLIKED) for at in range(4)]
    assert rows == left(rows, unit=0.1, self_generated=0.0)[0]
