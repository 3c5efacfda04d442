"""A reward model scores generated rows: its own reward, whatever batch a row is in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tiny_model import build as build_tiny
from tests.training.dataset.conftest import Build
from tests.training.dataset.servers import serving
from tests.training.dataset.test_generated import endpoint, pair, writes
from training.dataset.candidate import Candidate, Kind
from training.dataset.plan import DatasetError, RewardModel
from training.dataset.reward import scorer
from training.rows import Message


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("reward"), outputs=1)


def classifier(folder: Path, outputs: int) -> Path:
    """Of random weights, large enough for rewards that differ."""
    tiny = build_tiny(folder / "tiny")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=outputs, dtype=torch.float32)
    with torch.no_grad():
        model.score.weight.normal_(std=0.5)
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder / "model")
    return folder / "model"


def candidate(question: str, answer: str) -> Candidate:
    said = (Message("user", question), Message("assistant", answer, learn=True))
    return Candidate(messages=said, kind=Kind.SYNTHETIC, source=0, place="here", licence="own")


def test_a_score_is_the_models_own_reward_in_any_batch(reward_model: Path) -> None:
    some = [candidate(f"question {at}", "green " * (1 + 7 * at)) for at in range(5)]
    together = scorer(RewardModel(model=str(reward_model), batch=4))(some)
    model = AutoModelForSequenceClassification.from_pretrained(reward_model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    wanted = []
    for each in some:
        said = [{"role": message.role, "content": message.content} for message in each.messages]
        ids = tokenizer.apply_chat_template(said, return_tensors="pt", return_dict=False)
        with torch.inference_mode():
            wanted.append(1 / (1 + math.exp(-float(model(ids).logits[0, 0]))))
    assert together == pytest.approx(wanted, abs=1e-4)
    assert max(wanted) - min(wanted) > 0.05  # or the test could not tell rows apart


def test_what_is_longer_than_it_reads_is_cut_before_the_answer(reward_model: Path) -> None:
    score = scorer(RewardModel(model=str(reward_model)))
    long = "word " * 2000
    first, second = score([candidate(long, "green"), candidate(long, "blue and some more words")])
    assert abs(first - second) > 1e-6  # cut from the right, both would be the same words


def test_rows_that_score_too_little_are_not_kept(make: Build, reward_model: Path) -> None:
    pairs = [pair(at) for at in range(100, 108)]
    scores = scorer(RewardModel(model=str(reward_model)))(
        [candidate(each["question"], each["answer"]) for each in pairs]
    )
    bound = sorted(scores)[4]
    with serving(writes(json.dumps(pairs))) as server:
        wanted = {"rows": 8, "min_score": bound - 1e-6}
        model = {"model": str(reward_model)}
        snapshot = make(synthetic=wanted, writer=endpoint(server), reward_model=model).snapshot
    dropped = {each["reason"]: each["rows"] for each in snapshot.manifest["dropped"]}
    kept = [origin for origin in snapshot.origins() if origin["kind"] == "synthetic"]
    assert len(kept) == 4 and dropped["bad_score"] >= 4


def test_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has 2 outputs; a reward model has one"):
        scorer(RewardModel(model=str(classifier(tmp_path, outputs=2))))
    with pytest.raises(DatasetError, match="cannot be loaded"):
        scorer(RewardModel(model=str(tmp_path / "nothing")))


def test_two_ways_to_score_are_one_too_many(make: Build) -> None:
    endpoint = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(DatasetError, match="judge and reward_model both score"):
        make(judge=endpoint, reward_model={"model": "m"})
