from __future__ import annotations

import pytest

from gateway.fleet.refusals import Refusals


def nominal(pause_s: float | None) -> float:
    """The length that a pause was drawn around: one of 20 ms, doubled, up to half a second."""
    assert pause_s is not None
    lengths = [0.02 * 2.0**doublings for doublings in range(5)] + [0.5]
    fitting = [length for length in lengths if 0.75 * length <= pause_s <= 1.25 * length]
    assert fitting, pause_s
    return fitting[0]


def refused_again(refusals: Refusals, key: str) -> float | None:
    refusals.passed()
    refusals.opened(key)
    return refusals.refused(key)


def test_the_first_pause_is_of_about_twenty_milliseconds() -> None:
    assert 0.02 == nominal(Refusals(seed=1).refused("a"))


def test_each_trial_that_is_refused_doubles_the_pause_up_to_half_a_second() -> None:
    refusals = Refusals(seed=1)
    refusals.refused("a")
    lengths = [pause for _ in range(7) if (pause := refused_again(refusals, "a"))]
    assert [True] * 7 == [
        0.75 * want <= got <= 1.25 * want
        for want, got in zip([0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5], lengths, strict=True)
    ]


def test_two_gateways_with_other_seeds_pause_for_other_times() -> None:
    assert Refusals(seed=1).refused("a") != Refusals(seed=2).refused("a")
    assert Refusals(seed=1).refused("a") == Refusals(seed=1).refused("a")


def test_refusals_of_what_was_under_way_when_the_pause_began_do_not_lengthen_it() -> None:
    refusals = Refusals(seed=1)
    refusals.refused("a")
    assert None is refusals.refused("a")
    assert None is refusals.refused("b")
    assert 0.02 == nominal(refusals.opened("a"))


def test_a_key_in_flight_that_is_refused_again_and_again_doubles_the_pause_too() -> None:
    refusals = Refusals(seed=1)
    refusals.refused("a")
    refusals.passed()
    assert 0.04 == nominal(refusals.refused("a"))


def test_a_trial_that_outlives_its_pause_halves_it_until_nothing_is_a_trial_any_more() -> None:
    refusals = Refusals(seed=1)
    refusals.refused("a")
    refused_again(refusals, "a")
    refusals.passed()
    refusals.opened("a")
    refusals.passed()
    assert refusals.fresh
    assert 0.02 == nominal(refusals.opened("b"))
    refusals.passed()
    assert not refusals.fresh


def test_a_served_trial_ends_it_all_at_once() -> None:
    refusals = Refusals(seed=1)
    refusals.refused("a")
    refused_again(refusals, "a")
    refusals.passed()
    refusals.opened("a")
    assert not refusals.took("z")
    assert refusals.took("a")
    assert not refusals.fresh
    refusals.resume()
    assert 0.02 == nominal(refusals.refused("a"))


def test_what_was_refused_is_told_when_the_pause_is_over() -> None:
    refusals = Refusals(seed=1)
    refusals.refused("a")
    refusals.refused(None)
    assert {"a", None} == set(refusals.resume())
    assert (False, set()) == (refusals.pausing, refusals.keys)


@pytest.mark.parametrize("key", ["a", None])
def test_a_refused_key_is_not_tried_in_its_pause(key: str | None) -> None:
    refusals = Refusals(seed=1)
    refusals.refused(key)
    assert (True, {key}) == (refusals.pausing, refusals.keys)
