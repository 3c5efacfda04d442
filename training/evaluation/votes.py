"""People's votes, blind and side by side: a page that shows two answers to each question, and their count.

The page knows neither which model gave an answer nor which is the candidate: sides are drawn for each
question, and the key to them lies in a file of its own. A vote is `left`, `right` or `same`.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.evaluation.arms import Outcome
from training.recipe import TrainingError
from training.score import Question

PAGE, KEY = "votes.html", "key.json"
CHOICES = ("left", "right", "same")


@dataclass(frozen=True, slots=True)
class Count:
    """Of all sheets together. `share` is wins / (wins + losses), with its 95 % bounds by Wilson's interval
    (Wilson, 1927); `chance` is the probability of a split as uneven when both are as good: the two-sided
    sign test."""

    voters: int
    wins: int
    losses: int
    same: int
    share: float
    low: float
    high: float
    chance: float


def write(
    folder: Path, asked: Sequence[Question], candidate: Outcome, other: Outcome, seed: int | None = None
) -> Path:
    """The page, in a new folder, with its key beside it; questions that both answer alike are left out.

    Raises `TrainingError` when nothing is left to vote on, or the folder exists.
    """
    draw = random.Random(seed)  # noqa: S311  nobody gains by guessing a side
    pairs: list[dict[str, str]] = []
    left: list[bool] = []  # whether the candidate is on the left
    for question, mine, theirs in zip(asked, candidate.answers, other.answers, strict=True):
        if mine.text.strip() == theirs.text.strip():
            continue
        ours_left = draw.random() < 0.5
        sides = (mine.text, theirs.text) if ours_left else (theirs.text, mine.text)
        told = "\n".join(f"{message['role']}: {message['content']}" for message in question.messages)
        pairs.append({"question": told, "left": sides[0], "right": sides[1]})
        left.append(ours_left)
    if not pairs:
        raise TrainingError(f"{candidate.arm.name} and {other.arm.name} answer every question alike")
    sheet = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise TrainingError(f"{folder} exists; give another folder for the votes") from None
    (folder / PAGE).write_text(_page(sheet, pairs))
    key = {"sheet": sheet, "candidate": candidate.arm.name, "other": other.arm.name, "candidate_left": left}
    (folder / KEY).write_text(json.dumps(key) + "\n")
    return folder / PAGE


def count(key: Path, sheets: Sequence[Path]) -> tuple[Mapping[str, Any], Count]:
    """The key, and what people said in the files that the page gave them, one a voter.

    Raises `TrainingError` for a file of another page, or one that holds no votes.
    """
    known = _read(key)
    wins = losses = same = 0
    voters: set[str] = set()
    for file in sheets:
        told = _read(file)
        if told.get("sheet") != known["sheet"]:
            raise TrainingError(f"{file} has votes on another page than {key.parent}'s")
        votes = told.get("votes")
        size = len(known["candidate_left"])
        if not isinstance(votes, list) or len(votes) != size or set(votes) - {*CHOICES, None}:
            raise TrainingError(f"{file} holds no votes on {size} questions; download it from the page again")
        if told.get("voter") in voters:
            raise TrainingError(f"{told['voter']} voted twice; give one file of theirs")
        voters.add(str(told.get("voter")))
        for vote, ours_left in zip(votes, known["candidate_left"], strict=True):
            if vote == "same":
                same += 1
            elif vote is not None:
                won = (vote == "left") == ours_left
                wins, losses = wins + won, losses + (not won)
    low, high = _wilson(wins, wins + losses)
    share = wins / (wins + losses) if wins + losses else 0.5
    return known, Count(len(voters), wins, losses, same, share, low, high, _sign_test(wins, losses))


def _wilson(wins: int, of: int, z: float = 1.96) -> tuple[float, float]:
    if of == 0:
        return 0.0, 1.0
    share = wins / of
    middle = share + z * z / (2 * of)
    wide = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    whole = 1 + z * z / of
    return (middle - wide) / whole, (middle + wide) / whole


def _sign_test(wins: int, losses: int) -> float:
    of, fewer = wins + losses, min(wins, losses)
    tail: float = sum(math.comb(of, few) for few in range(fewer + 1)) / 2**of  # of whole numbers: exact
    return min(1.0, 2 * tail)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read {file}: {error}") from error
    if not isinstance(found, dict):
        raise TrainingError(f"{file} holds no votes")
    return found


def _page(sheet: str, pairs: Sequence[Mapping[str, str]]) -> str:
    # "<" as an escape: an answer must not be able to end the script.
    data = json.dumps(pairs, ensure_ascii=False).replace("<", "\\u003c")
    return _HTML.replace("SHEET", html.escape(sheet)).replace("PAIRS", data)


_HTML = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Which answer is better?</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
pre { white-space: pre-wrap; background: #f4f4f4; padding: 1rem; border-radius: 6px; margin: 0 }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin: 1rem 0 }
button { font: inherit; padding: .5rem 1rem }
</style>
<h1>Which answer is better?</h1>
<p id="at"></p><pre id="question"></pre>
<div class="sides"><pre id="left"></pre><pre id="right"></pre></div>
<p><button data-vote="left">left (1)</button> <button data-vote="same">the same (2)</button>
<button data-vote="right">right (3)</button> <button id="back">back</button></p>
<p><label>Your name <input id="voter"></label> <button id="save">Save my votes</button></p>
<script>
const sheet = "SHEET", pairs = PAIRS, kept = "hotswap-votes-" + sheet;
const votes = JSON.parse(localStorage.getItem(kept) || "null") || pairs.map(() => null);
let at = Math.max(0, votes.indexOf(null));
const show = () => {
  const pair = pairs[Math.min(at, pairs.length - 1)];
  document.getElementById("at").textContent =
    at < pairs.length ? `${at + 1} of ${pairs.length}` : "That was the last one. Save your votes.";
  for (const part of ["question", "left", "right"]) document.getElementById(part).textContent = pair[part];
};
const vote = (choice) => {
  if (at >= pairs.length) return;
  votes[at++] = choice;
  localStorage.setItem(kept, JSON.stringify(votes));
  show();
};
for (const button of document.querySelectorAll("[data-vote]"))
  button.onclick = () => vote(button.dataset.vote);
document.getElementById("back").onclick = () => { at = Math.max(0, at - 1); show(); };
document.onkeydown = (event) => {
  const choice = { 1: "left", 2: "same", 3: "right" }[event.key];
  if (choice && event.target.tagName !== "INPUT") vote(choice);
};
document.getElementById("save").onclick = () => {
  const voter = document.getElementById("voter").value.trim();
  if (!voter) return alert("Your name, please: a voter's file counts once.");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify({ sheet, voter, votes })]));
  link.download = `votes-${voter}.json`;
  link.click();
};
show();
</script></html>
"""
