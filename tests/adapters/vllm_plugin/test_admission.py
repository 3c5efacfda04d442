"""Who may generate now. Pure: no server, a clock that stands still until it is moved."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapters.vllm_plugin.admission import GIVEN_UP_S, TURN_S, Admission


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_as_many_adapters_enter_as_there_are_slots_and_no_more():
    admission = Admission(2)
    assert [None, None, "slots"] == [admission.enter(name) for name in ("a", "b", "c")]


def test_an_adapter_that_is_in_flight_always_enters():
    admission = Admission(1)
    assert [None, None, None] == [admission.enter("a") for _ in range(3)]


def test_the_base_takes_no_slot():
    admission = Admission(1)
    admission.enter("a")
    assert admission.enter(None) is None
    assert admission.enter("b") == "slots"


def test_a_slot_is_free_when_the_last_of_its_requests_has_left():
    admission = Admission(1)
    admission.enter("a")
    admission.enter("a")
    admission.leave("a")
    assert admission.enter("b") == "slots"
    admission.leave("a")
    assert admission.enter("b") is None


def test_every_refusal_is_counted():
    admission = Admission(1)
    admission.enter("a")
    admission.enter("b")
    admission.enter("b")
    assert admission.not_now == 2


def test_switched_off_it_lets_everybody_in_and_still_counts_them():
    admission = Admission(1, apart=True, enabled=False)
    assert [None] * 3 == [admission.enter(name) for name in ("a", "b", None)]
    assert {"a": 1, "b": 1} == dict(admission.adapters)


def test_without_slots_known_nothing_is_capped():
    admission = Admission(None)
    assert {None} == {admission.enter(f"a{number}") for number in range(50)}


def test_apart_base_and_adapters_are_never_in_flight_together():
    admission = Admission(4, apart=True, clock=Clock())
    admission.enter("a")
    assert admission.enter(None) == "apart"
    admission.leave("a")
    assert admission.enter(None) is None
    assert admission.enter("a") == "apart"


def test_apart_the_side_that_waits_gets_its_turn():
    clock = Clock()
    admission = Admission(4, apart=True, clock=clock)
    admission.enter(None)
    admission.enter("a")  # refused: it waits from now on
    assert admission.enter(None) is None
    for _ in range(2):
        clock.now += 0.51 * TURN_S
        admission.enter("a")
    assert admission.enter(None) == "apart"
    admission.leave(None)
    admission.leave(None)
    assert admission.enter(None) == "apart"
    assert admission.enter("a") is None


def test_apart_a_side_that_asks_no_more_keeps_nobody_out():
    clock = Clock()
    admission = Admission(4, apart=True, clock=clock)
    admission.enter(None)
    admission.enter("a")
    admission.leave(None)
    assert admission.enter(None) == "apart"
    clock.now += GIVEN_UP_S + 0.01
    assert admission.enter(None) is None


moves = st.lists(st.tuples(st.booleans(), st.sampled_from([None, "a", "b", "c", "d"]), st.floats(0, 2)))


@given(moves=moves, slots=st.integers(1, 3), apart=st.booleans())
def test_whatever_comes_and_goes_no_more_adapters_than_slots_are_inside_and_apart_is_kept(
    moves, slots, apart
):
    clock = Clock()
    admission = Admission(slots, apart=apart, clock=clock)
    inside: list[str | None] = []
    for enters, key, seconds in moves:
        clock.now += seconds
        if enters and admission.enter(key) is None:
            inside.append(key)
        elif not enters and key in inside:
            inside.remove(key)
            admission.leave(key)
        names = {each for each in inside if each is not None}
        assert len(names) <= slots
        assert not (apart and names and None in inside)
        assert {name: inside.count(name) for name in names} == dict(admission.adapters)


@given(moves=moves)
def test_an_empty_engine_takes_somebody_within_two_askings(moves):
    clock = Clock()
    admission = Admission(2, apart=True, clock=clock)
    inside: list[str | None] = []
    for enters, key, seconds in moves:
        clock.now += seconds
        if enters and admission.enter(key) is None:
            inside.append(key)
        elif not enters and key in inside:
            inside.remove(key)
            admission.leave(key)
    for key in inside:
        admission.leave(key)
    assert None in (admission.enter(None), admission.enter("a"))
