"""People's votes: a page that gives nothing away, and a count that knows who was where."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from training.ask import Answered
from training.evaluation.arms import Arm, Outcome
from training.evaluation.votes import KEY, PAGE, count, write
from training.recipe import TrainingError
from training.score import Question


def outcome(name: str, answers: list[str]) -> Outcome:
    told = tuple(Answered("", answer, 0.1, 1, 1) for answer in answers)
    return Outcome(Arm(name, "http://x/v1", "k"), told, {})


def page(folder: Path, size: int = 40) -> tuple[Path, list[dict[str, str]]]:
    asked = [Question(({"role": "user", "content": f"question {n}"},), "right") for n in range(size)]
    mine = [f"good {n}" for n in range(size)]
    theirs = [f"bad {n}" for n in range(size)]
    write(folder, asked, outcome("support@v2", mine), outcome("base", theirs), seed=1)
    found = re.search(r"pairs = (\[.*?\]), kept", (folder / PAGE).read_text(), re.DOTALL)
    assert found is not None
    pairs: list[dict[str, str]] = json.loads(found[1])
    return folder, pairs


def voted(folder: Path, voter: str, votes: list[str | None]) -> Path:
    sheet = json.loads((folder / KEY).read_text())["sheet"]
    file = folder / f"votes-{voter}.json"
    file.write_text(json.dumps({"sheet": sheet, "voter": voter, "votes": votes}))
    return file


def side_of(pair: dict[str, str], word: str) -> str:
    return "left" if word in pair["left"] else "right"


def test_the_page_does_not_say_who_answered(tmp_path: Path) -> None:
    folder, pairs = page(tmp_path / "votes")
    text = (folder / PAGE).read_text()
    assert "support@v2" not in text and "base" not in text.replace("database", "")
    sides = {side_of(pair, "good") for pair in pairs}
    assert {"left", "right"} == sides


def test_votes_are_counted_for_whom_they_were_given(tmp_path: Path) -> None:
    folder, pairs = page(tmp_path / "votes")
    anna = voted(folder, "anna", [side_of(pair, "good") for pair in pairs])
    bert = voted(folder, "bert", [*(side_of(pair, "bad") for pair in pairs[:10]), *["same"] * 29, None])
    key, found = count(folder / KEY, [anna, bert])
    assert ("support@v2", "base") == (key["candidate"], key["other"])
    assert (2, 40, 10, 29) == (found.voters, found.wins, found.losses, found.same)
    assert 0.8 == found.share
    assert (0.67, 0.89) == (round(found.low, 2), round(found.high, 2))  # Wilson's for 40 of 50
    assert found.chance == pytest.approx(2.386e-5, rel=1e-3)  # scipy.stats.binomtest(40, 50).pvalue


def test_many_votes_are_counted_too(tmp_path: Path) -> None:
    folder, pairs = page(tmp_path / "votes", 100)
    for number in range(12):
        voted(folder, f"voter{number}", [side_of(pair, "good") for pair in pairs])
    _, found = count(folder / KEY, sorted(folder.glob("votes-*.json")))
    assert (12, 1200, 0) == (found.voters, found.wins, found.losses)
    assert 0 <= found.chance < 1e-300


def test_what_both_say_is_not_voted_on_and_markup_stays_text(tmp_path: Path) -> None:
    asked = [Question(({"role": "user", "content": "q"},), "r") for _ in range(2)]
    one = outcome("a", ["alike", "</script><script>alert(1)</script>"])
    write(tmp_path / "votes", asked, one, outcome("b", ["alike ", "other"]))
    text = (tmp_path / "votes" / PAGE).read_text()
    assert 1 == text.count("</script>")
    assert 1 == len(json.loads((tmp_path / "votes" / KEY).read_text())["candidate_left"])
    with pytest.raises(TrainingError, match="answer every question alike"):
        write(tmp_path / "more", asked[:1], outcome("a", ["x"]), outcome("b", ["x"]))


def test_files_that_are_no_votes_on_this_page_are_named(tmp_path: Path) -> None:
    folder, _ = page(tmp_path / "votes", 3)
    good = voted(folder, "anna", ["left", "same", None])
    with pytest.raises(TrainingError, match="anna voted twice"):
        count(folder / KEY, [good, good])
    with pytest.raises(TrainingError, match="no votes on 3 questions"):
        count(folder / KEY, [voted(folder, "bert", ["left"])])
    with pytest.raises(TrainingError, match="no votes on 3 questions"):
        count(folder / KEY, [voted(folder, "carl", ["left", "up", None])])
    other, _ = page(tmp_path / "other", 2)
    with pytest.raises(TrainingError, match="another page"):
        count(folder / KEY, [voted(other, "dora", ["left", "left"])])
    with pytest.raises(TrainingError, match="cannot read"):
        count(folder / KEY, [tmp_path / "none.json"])
