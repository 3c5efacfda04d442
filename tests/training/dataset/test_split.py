"""Nothing of training is in validation: by question, by unit, by time. Properties over generated rows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.dataset.candidates import candidate, question
from training.dataset.candidate import Candidate
from training.dataset.near import alike, pieces
from training.dataset.split import Halves, split

SIMILARITY = 0.8


@st.composite
def rows(draw: st.DrawFn) -> list[Candidate]:
    """Some with nearly the same question, some of one unit, all in one hour."""
    found = []
    for _ in range(draw(st.integers(0, 25))):
        topic, variant = draw(st.integers(0, 12)), draw(st.sampled_from(["", " ?", " please"]))
        unit = draw(st.sampled_from(["", "", "u1", "u2", "u3"]))
        at = draw(st.none() | st.floats(0, 3600))
        found.append(candidate(topic, question(topic) + variant, unit=unit, at=at))
    return found


def done(candidates: list[Candidate], by: str, share: float = 0.3, seed: int = 0) -> Halves:
    return split(candidates, share=share, by=by, similarity=SIMILARITY, seed=seed)


both_ways = st.sampled_from(["random", "time", "auto"])


@settings(deadline=None)
@given(rows(), both_ways, st.floats(0, 0.9))
def test_every_row_is_in_one_place(candidates: list[Candidate], by: str, share: float) -> None:
    halves = done(candidates, by, share)
    everywhere = sorted([*halves.train, *halves.validation, *halves.astride])
    assert list(range(len(candidates))) == everywhere


@settings(deadline=None)
@given(rows(), both_ways, st.floats(0, 0.9))
def test_validation_is_never_more_than_was_wanted(candidates: list[Candidate], by: str, share: float) -> None:
    assert len(done(candidates, by, share).validation) <= round(share * len(candidates))


@settings(deadline=None)
@given(rows(), both_ways)
def test_no_question_of_validation_is_like_one_of_training(candidates: list[Candidate], by: str) -> None:
    halves = done(candidates, by)
    asked = [pieces(each.prompt) for each in candidates]
    leaks = [
        (one, other)
        for one in halves.train
        for other in halves.validation
        if alike(asked[one], asked[other]) >= SIMILARITY
    ]
    assert [] == leaks


@settings(deadline=None)
@given(rows(), both_ways)
def test_no_unit_is_in_both(candidates: list[Candidate], by: str) -> None:
    halves = done(candidates, by)
    sides = [{candidates[at].unit for at in half} - {""} for half in (halves.train, halves.validation)]
    assert set() == sides[0] & sides[1]


@settings(deadline=None)
@given(rows())
def test_by_time_training_has_nothing_from_after_the_cut(candidates: list[Candidate]) -> None:
    halves = done(candidates, "time")
    if halves.cut_at is not None:
        taught = [candidates[at].at for at in halves.train]
        assert all(at is None or at < halves.cut_at for at in taught)
        heard = [candidates[at].at for at in halves.validation]
        assert all(at is not None and at >= halves.cut_at for at in heard)


def numbered(count: int, **more: object) -> list[Candidate]:
    return [candidate(number, **more) for number in range(count)]


def test_unlike_rows_are_split_exactly() -> None:
    halves = done(numbered(40), "random", 0.25)
    assert (30, 10) == (len(halves.train), len(halves.validation))


def test_by_time_the_newest_are_validation() -> None:
    halves = done([candidate(number, at=float(number)) for number in range(10)], "time", 0.2)
    assert ([8, 9], 8.0) == (halves.validation, halves.cut_at)


def test_later_rows_of_an_early_group_go_nowhere() -> None:
    early, late = candidate(0, unit="u", at=0.0), candidate(99, unit="u", at=100.0)
    others = [candidate(number, at=float(number)) for number in range(1, 11)]
    halves = done([early, late, *others], "time", 0.2)
    assert ([1], True) == (halves.astride, 0 in halves.train)


def test_auto_is_time_only_where_every_row_has_one() -> None:
    timed = [candidate(number, at=float(number)) for number in range(4)]
    assert ("time", "random") == (done(timed, "auto").by, done([*timed, candidate(9)], "auto").by)


def test_rows_that_are_all_one_group_stay_in_training() -> None:
    halves = done(numbered(10, unit="u"), "random")
    assert (10, 0, 10) == (len(halves.train), len(halves.validation), halves.largest)


def test_another_seed_chooses_others() -> None:
    candidates = numbered(40)
    assert done(candidates, "random").validation != done(candidates, "random", seed=1).validation


def test_most_of_validation_stays_when_rows_are_added() -> None:
    before = {f"rows.jsonl:{at}" for at in done(numbered(100), "random", 0.2).validation}
    after = {f"rows.jsonl:{at}" for at in done(numbered(120), "random", 0.2).validation}
    assert len(before & after) >= 0.8 * len(before)


def test_the_choice_does_not_depend_on_the_order_of_rows() -> None:
    candidates = numbered(30)
    forward = {candidates[at].place for at in done(candidates, "random").validation}
    backward = candidates[::-1]
    assert forward == {backward[at].place for at in done(backward, "random").validation}
