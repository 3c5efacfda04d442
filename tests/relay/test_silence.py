"""Engines that say nothing are given up; those that wait for their client are not."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.relay import Silence


@dataclass(eq=False)
class Answer:
    begun: bool = False
    pieces: int = 0
    waits_for_client: bool = False
    given_up: list[str] = field(default_factory=list)

    def give_up(self, message: str) -> None:
        self.given_up.append(message)


def watched(**how: bool) -> tuple[Silence, Answer]:
    silence, answer = Silence(begin_s=3, stall_s=2), Answer(**how)
    silence.add(answer)
    silence.look(1)  # the first look only remembers
    return silence, answer


def test_an_answer_that_does_not_begin_is_given_up_after_its_time() -> None:
    silence, answer = watched()
    silence.look(1)
    silence.look(1)
    assert [] == answer.given_up
    silence.look(1)
    assert ["the engine did not begin an answer within 3 s"] == answer.given_up
    silence.look(1)
    assert 1 == len(answer.given_up)


def test_an_answer_that_stops_is_given_up_sooner() -> None:
    silence, answer = watched(begun=True)
    silence.look(1)
    silence.look(1)
    assert ["the engine added nothing to its answer within 2 s"] == answer.given_up


def test_every_piece_gives_it_time_anew() -> None:
    silence, answer = watched(begun=True)
    for _ in range(10):
        silence.look(1)
        answer.pieces += 1
    assert [] == answer.given_up


def test_the_head_of_an_answer_gives_it_time_anew() -> None:
    silence, answer = watched()
    silence.look(1)
    silence.look(1)
    answer.begun = True
    silence.look(1)
    silence.look(1)
    assert [] == answer.given_up
    silence.look(1)
    assert 1 == len(answer.given_up)


def test_an_engine_that_is_held_back_by_its_client_is_not_silent() -> None:
    silence, answer = watched(begun=True, waits_for_client=True)
    for _ in range(10):
        silence.look(1)
    assert [] == answer.given_up


def test_an_answer_that_is_over_is_not_looked_at() -> None:
    silence, answer = watched()
    silence.discard(answer)
    for _ in range(10):
        silence.look(1)
    assert [] == answer.given_up
