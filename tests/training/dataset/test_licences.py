"""The licence gate: what goes through, what does not, and what a person can say."""

from __future__ import annotations

import pytest

from training.dataset.licences import gate, judged
from training.dataset.plan import DatasetError


@pytest.mark.parametrize(
    "licence", ["apache-2.0", "MIT", "CC BY 4.0", "cc0-1.0", "own", "Apache 2.0", "odc-by"]
)
def test_a_licence_that_allows_derivatives_goes_through(licence: str) -> None:
    assert judged(licence, ()).allowed


@pytest.mark.parametrize(
    ("licence", "why"),
    [
        ("", "nobody said"),
        ("unknown", "nobody said"),
        ("cc-by-nd-4.0", "forbids derivatives"),
        ("cc-by-nc-4.0", "forbids commercial use"),
        ("cc-by-nc-sa-3.0", "forbids commercial use"),
        ("cc-by-sa-4.0", "same terms"),
        ("proprietary", "reserves all rights"),
        ("llama community licence", "conditions"),
        ("our-own-thing", "not a licence that is known"),
    ],
)
def test_any_other_is_refused_with_the_reason(licence: str, why: str) -> None:
    found = judged(licence, ())
    assert (False, True) == (found.allowed, why in found.why)


def test_a_person_may_accept_it_and_that_is_recorded() -> None:
    found = judged("CC BY-NC 4.0", ["cc-by-nc-4.0"])
    assert (True, True) == (found.allowed, found.accepted)


def test_accepting_one_does_not_accept_another() -> None:
    assert not judged("cc-by-nd-4.0", ["cc-by-nc-4.0"]).allowed


def test_accepting_nothing_does_not_accept_what_has_no_licence() -> None:
    assert not judged("", [""]).allowed


def test_the_gate_names_all_that_it_refuses_and_what_to_do() -> None:
    with pytest.raises(DatasetError) as refused:
        gate([("a.csv", ""), ("b.csv", "cc-by-nc-4.0"), ("c.csv", "mit")], "gemma", [])
    said = str(refused.value)
    assert all(
        part in said for part in ("a.csv", "b.csv", "the base", "--licence NAME", "--accept-licence gemma")
    )
    assert "c.csv" not in said
