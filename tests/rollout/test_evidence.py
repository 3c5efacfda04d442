"""All of a rollout's evidence: who counts, and for whom."""

from __future__ import annotations

from gateway.rollout.evidence import ALPHA, GOAL, Evidence


def test_the_parts_of_alpha_are_all_of_it() -> None:
    made = Evidence(1000, ["errors", "slow"])
    assert GOAL + 2 * made._each == ALPHA


def test_a_unit_counts_once_and_where_it_was_first() -> None:
    made = Evidence(1000, ["errors"])
    made.exchange("anna", 0, {"errors": 0.0}, candidate=False)
    made.exchange("bert", 0, {"errors": 1.0}, candidate=True)
    made.exchange("anna", 0, {"errors": 1.0}, candidate=True)  # its share has grown
    assert made.guards["errors"].pairs == 1
    made.said("anna", 1.0, candidate=True)
    assert all(cell.units == 0 for pair in made.goal._cells.values() for cell in pair)
    made.said("anna", 1.0, candidate=False)
    assert sum(cell.units for pair in made.goal._cells.values() for cell in pair) == 1


def test_a_guardrail_says_by_what_the_candidate_is_worse() -> None:
    made = Evidence(1000, ["errors", "slow"])
    for unit in range(60):
        candidate = unit % 2 == 0
        made.exchange(unit, 0, {"errors": float(candidate), "slow": 0.0}, candidate=candidate)
    assert made.harmed() == ["errors"]
    assert made.look() is None  # nobody said anything
