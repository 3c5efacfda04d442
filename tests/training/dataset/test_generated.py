"""Rows that a model writes: of documents, like others, or backwards from answers; scored, and kept apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.dataset.candidates import question
from tests.training.dataset.conftest import Build
from tests.training.dataset.servers import Asked, Server, completion, serving
from training.dataset.build import Means
from training.dataset.endpoint import Answers, json_in, may_have_captured
from training.dataset.plan import DatasetError, Endpoint
from training.dataset.snapshot import TRAIN, Shelf
from training.dataset.sources.documents import is_transcript, pieces
from training.rows import read_rows

TEXT = "Cards are sent on Mondays.\n\nThey take five days.\n\n" + "A long paragraph of words. " * 20


def asked_of(request: Asked) -> str:
    return str(request.json["messages"][0]["content"])


def writes(*answers: str) -> Any:
    """Each question in turn gets the next answer, and then the last one again."""
    left = list(answers)

    def reply(_: Asked) -> tuple[int, bytes]:
        return 200, completion(left.pop(0) if len(left) > 1 else left[0])

    return reply


def pair(number: int) -> dict[str, str]:
    return {"question": question(number), "answer": f"It is {number}."}


def endpoint(server: Server, **more: Any) -> dict[str, Any]:
    return {"url": f"{server.url}/v1", "model": "writer", "at_once": 1, **more}


def document(folder: Path, text: str = TEXT) -> dict[str, str]:
    (folder / "manual.md").write_text(text)
    return {"from": str(folder / "manual.md"), "licence": "own"}


def test_a_text_is_cut_at_paragraphs_and_loses_nothing() -> None:
    found = pieces(TEXT, 200)
    assert "Cards are sent on Mondays.\n\nThey take five days." == found[0]
    assert all(len(piece) <= 200 for piece in found)
    assert TEXT.split() == " ".join(found).split()


def test_a_sentence_without_end_is_cut_where_it_must_be() -> None:
    assert ["x" * 200, "x" * 50] == pieces("x" * 250, 200)


def test_a_transcript_is_known_by_its_speakers_and_cut_between_turns() -> None:
    talk = "\n".join(f"[00:0{at}] {'Ann' if at % 2 else 'Bob'}: {'word ' * 10}" for at in range(6))
    assert (True, False) == (is_transcript(talk), is_transcript(TEXT))
    assert all(piece.startswith("[00:") for piece in pieces(talk, 150, transcript=True))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('[{"a": 1}]', [{"a": 1}]),
        ('Sure!\n```json\n{"a": [1]}\n```', {"a": [1]}),
        ("a [draft] of {it}: [1, 2]", [1, 2]),
        ("none", None),
    ],
)
def test_json_is_found_in_what_a_model_wrote(text: str, value: Any) -> None:
    assert value == json_in(text)


def test_a_document_becomes_pairs_on_one_side_of_the_split(make: Build, tmp_path: Path) -> None:
    with serving(writes(json.dumps([pair(1), pair(2)]), json.dumps([pair(3)]))) as server:
        plan = {"source": [document(tmp_path)], "writer": endpoint(server), "documents": {"piece_chars": 400}}
        snapshot = make(**plan, split={"validation": 0.5}).snapshot
    assert "Cards are sent on Mondays." in asked_of(server.asked[0])
    assert [3, 0] == list(snapshot.rows.values())
    assert {"document"} == {origin["kind"] for origin in snapshot.origins()}


def test_a_piece_of_which_nothing_was_made_is_counted(make: Build, tmp_path: Path) -> None:
    with serving(writes("I cannot do that", json.dumps([pair(3)]))) as server:
        plan = {"source": [document(tmp_path)], "writer": endpoint(server), "documents": {"piece_chars": 400}}
        manifest = make(**plan).snapshot.manifest
    assert {"reason": "not_pairs", "rows": 1, "examples": ["manual.md:piece 1"]} in manifest["dropped"]


def test_a_document_without_a_writer_says_what_is_missing(make: Build, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="--writer URL --writer-model NAME"):
        make(source=[document(tmp_path)])


def test_built_again_nothing_is_asked_again(make: Build, shelf: Shelf, tmp_path: Path) -> None:
    means = Means(shelf, kept=tmp_path / "answers")
    with serving(writes(json.dumps([pair(1)]))) as server:
        plan = {"source": [document(tmp_path)], "writer": endpoint(server)}
        first = make(means=means, **plan).snapshot.digest
        once = len(server.asked)
        assert (first, once) == (make(means=means, **plan).snapshot.digest, len(server.asked))


def test_new_rows_go_to_training_only_and_are_judged(make: Build) -> None:
    scores = iter([9, 3, 8, 2])

    def reply(request: Asked) -> tuple[int, bytes]:
        if "How good is the answer" in asked_of(request):
            return 200, completion(json.dumps({"score": next(scores, 9)}))
        return 200, completion(json.dumps([pair(at) for at in range(100, 104)]))

    with serving(reply) as server:
        writer = endpoint(server)
        snapshot = make(synthetic={"rows": 2}, writer=writer, judge={**writer, "model": "judge"}).snapshot
    made = [origin for origin in snapshot.origins() if origin["kind"] == "synthetic"]
    assert [TRAIN, TRAIN] == [origin["file"] for origin in made]
    answers = {row.messages[-1].content for row in read_rows(snapshot.file(TRAIN))}
    assert {"It is 100.", "It is 102."} <= answers and "It is 101." not in answers


def test_a_new_row_that_is_like_one_that_is_there_is_not_kept(make: Build) -> None:
    with serving(writes(json.dumps([pair(at) for at in range(3)]))) as server:  # the forty rows ask these
        snapshot = make(synthetic={"rows": 3}, writer=endpoint(server)).snapshot
    dropped = {each["reason"]: each["rows"] for each in snapshot.manifest["dropped"]}
    assert (3, {"file"}) == (
        dropped["like_a_row_that_is_there"],
        {origin["kind"] for origin in snapshot.origins()},
    )


def test_from_good_answers_the_questions_are_written(make: Build, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text('On Monday.\n"In two\\nlines."\n')
    replies = (
        json.dumps({"question": f"When does {word} come?"}) for word in ("the card", "everything else")
    )
    with serving(writes(*replies)) as server:
        plan = {"synthetic": {"outputs": str(tmp_path / "good.txt")}, "writer": endpoint(server)}
        snapshot = make(source=[], **plan).snapshot
    rows = [(row.messages[0].content, row.messages[1].content) for row in read_rows(snapshot.file(TRAIN))]
    assert [
        ("When does the card come?", "On Monday."),
        ("When does everything else come?", "In two\nlines."),
    ] == rows


def test_what_users_asked_goes_only_where_the_plan_allows() -> None:
    outside = Endpoint(url="https://api.example.com/v1", model="m")
    with pytest.raises(DatasetError, match=r'privacy\.hosts = \["api\.example\.com"\]'):
        may_have_captured(outside, [], None)
    may_have_captured(outside, ["api.example.com"], None)
    may_have_captured(Endpoint(url="http://127.0.0.1:1/v1", model="m"), [], None)
    may_have_captured(Endpoint(url="https://gateway.example/v1", model="m"), [], "https://gateway.example")


def ask(server: Server, **more: Any) -> list[str]:
    return Answers(Endpoint(**endpoint(server, **more)), None, wait_s=0.001).all(["one", "two"])


def test_an_endpoint_that_is_busy_is_asked_again() -> None:
    busy = iter([(429, b"slow"), (503, b"down")])
    with serving(lambda asked: next(busy, (200, completion(asked_of(asked).upper())))) as server:
        assert ["ONE", "TWO"] == ask(server)


def test_an_endpoint_that_refuses_is_told_with_its_reason() -> None:
    with serving(lambda _: (401, b"bad key")) as server, pytest.raises(DatasetError, match="401: bad key"):
        ask(server)
    assert 1 <= len(server.asked) <= 2


def test_a_key_comes_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_KEY", "secret")
    with serving(lambda _: (200, completion("x"))) as server:
        ask(server, key_env="WRITER_KEY")
        with pytest.raises(DatasetError, match="NO_SUCH_KEY, which is not set"):
            ask(server, key_env="NO_SUCH_KEY")
    assert {"Bearer secret"} == {request.headers["authorization"] for request in server.asked}
