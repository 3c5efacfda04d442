"""Rows from traffic: what an exchange becomes, by what was thought of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.training.dataset.servers import Asked, serving
from training.dataset.candidate import Kind, Ledger
from training.dataset.conversation import Unlearnable
from training.dataset.plan import DatasetError
from training.dataset.sources.traffic import Gateway, candidate_of, read_traffic, wanted

ABOUT: dict[str, Any] = {
    "id": "019d",
    "route": "support",
    "version": "support@3f9c2ab71e04",
    "at": 1000.0,
    "unit": "h:1",
    "key": "key_1",
    "tenant": "default",
    "consent": "terms of 2026",
    "redacted": False,
    "cut": False,
    "error": "",
    "finish_reason": "stop",
    "imported": False,
    "feedback": None,
}


def said(*turns: Any) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": turn} for at, turn in enumerate(turns)]


def exchange(*turns: Any, tools: Any = None, **about: Any) -> dict[str, Any]:
    record = {"messages": said(*(turns or ("Where is it?", "Here."))), "metadata": {**ABOUT, **about}}
    return record if tools is None else {**record, "tools": tools}


@pytest.mark.parametrize(
    ("feedback", "imported", "kind"),
    [
        (None, False, Kind.OWN),
        (None, True, Kind.IMPORTED),
        ({"thumb": "up"}, False, Kind.LIKED),
        ({"thumb": "down"}, False, Kind.DISLIKED),
        ({"thumb": "down", "correction": "There."}, False, Kind.CORRECTED),
        ({"comment": "hm"}, False, Kind.OWN),
        ({"correction": " "}, False, Kind.OWN),
    ],
)
def test_what_an_answer_is_depends_on_what_was_thought_of_it(
    feedback: Any, imported: bool, kind: Kind
) -> None:
    assert kind is candidate_of(exchange(feedback=feedback, imported=imported)).kind


def test_a_correction_takes_the_answers_place() -> None:
    found = candidate_of(exchange(feedback={"correction": "There."}))
    assert ("There.", "Here.") == (found.answer, found.rejected)


def test_a_correction_saves_an_answer_that_was_cut_off_and_does_not_reject_it() -> None:
    found = candidate_of(exchange(finish_reason="length", feedback={"correction": "There."}))
    assert ("There.", None) == (found.answer, found.rejected)


def test_only_the_last_answer_is_learned() -> None:
    row = candidate_of(exchange("a", "b", "c", "d")).row()
    assert [None, 0, None, None] == [message.get("weight") for message in row["messages"]]


def test_text_in_parts_and_developers_are_read() -> None:
    record = exchange()
    record["messages"] = [
        {"role": "developer", "content": "Be brief"},
        {"role": "user", "name": "a", "content": [{"type": "text", "text": "Where?"}]},
        {"role": "assistant", "content": "Here.", "refusal": None},
    ]
    found = candidate_of(record)
    assert ("Be brief", "Where?", "Here.") == (found.system, found.prompt, found.answer)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (exchange(finish_reason="length"), "cut"),
        (exchange(cut=True), "cut"),
        (exchange(tools=[{"type": "function"}]), "tools"),
        (exchange("a", None), "no_text"),
        (exchange([{"type": "image_url"}], "b"), "no_text"),
        (exchange("a"), "no_answer"),
        (exchange("a", "b", "c"), "no_answer"),
        ({"messages": said("a", "b")[::-1] + said("a", "b"), "metadata": ABOUT}, "roles"),
    ],
)
def test_what_cannot_be_learned_has_a_reason(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unlearnable) as refused:
        candidate_of(record)
    assert reason == refused.value.reason


def test_the_url_is_read() -> None:
    found = wanted("traffic://support?since=7d&until=2026-11-24&feedback=up&min_score=helpful:0.7", now=1e9)
    assert {
        "route": "support",
        "error": "none",
        "since": 1e9 - 7 * 86400,
        "until": 1795478400.0,
        "feedback": "up",
    } == dict(found.params)
    assert {"helpful": 0.7} == dict(found.scores)


def test_the_record_of_a_url_names_no_unit() -> None:
    assert "alice" not in json.dumps(wanted("traffic://support?unit=alice").record())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("traffic://", "names no route"),
        ("traffic://a?sinse=7d", "'sinse' is not known"),
        ("traffic://a?since=soon", "since is 'soon'"),
        ("traffic://a?min_score=0.7", "min_score is '0.7'"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        wanted(url)


def test_the_gateway_is_asked_for_all_of_it_and_gives_it_in_order() -> None:
    exchanges = [
        exchange(id=f"id{at}", at=float(at), feedback={"scores": {"helpful": at / 4}}) for at in (3, 1, 4)
    ]
    exchanges.append(exchange(id="none", consent=""))
    exchanges.append(exchange(id="tool", tools=[{}]))
    ledger = Ledger()
    with serving(
        lambda _: (200, b"".join(json.dumps(each).encode() + b"\n" for each in exchanges))
    ) as server:
        asked = wanted("traffic://support?min_score=helpful:0.5")
        found = read_traffic(asked, 2, Gateway(server.url, "k"), ledger, require_consent=True)
    assert [("id3",), ("id4",)] == [each.ids for each in found]
    assert {"low_score": 1, "no_consent": 1, "tools": 1} == dict(ledger.counts)
    (request,) = server.asked
    assert ("/admin/v1/traffic/export", "Bearer k") == (request.path, request.headers["authorization"])
    assert {"route": "support", "error": "none", "all": "true", "about": "true"} == request.query


def test_a_refusal_is_told_in_the_gateways_words() -> None:
    def reply(asked: Asked) -> tuple[int, bytes]:
        return 404, b'{"error": {"message": "This gateway has no lake"}}'

    with (
        serving(reply) as server,
        pytest.raises(DatasetError, match="does not export support: This gateway has no"),
    ):
        read_traffic(
            wanted("traffic://support"), 0, Gateway(server.url, "k"), Ledger(), require_consent=False
        )


def test_a_gateway_that_is_away_is_named() -> None:
    away = Gateway("http://127.0.0.1:9", "k")
    with pytest.raises(DatasetError, match=r"http://127\.0\.0\.1:9 stopped answering"):
        read_traffic(wanted("traffic://support"), 0, away, Ledger(), require_consent=False)
