"""The trainer as a program: what it is told, and what it tells."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from adapters.archive import CONFIG, MANIFEST, WEIGHTS
from training.__main__ import STOPPED, main
from training.recipe import Recipe, TrainingError
from training.rows import chat, write_rows
from training.spec import Spec


def spec_file(folder: Path, **more: Any) -> str:
    write_rows(folder / "rows.jsonl", [chat(f"question {n}", "green") for n in range(8)])
    asked = {
        "method": "supervised",
        "base": str(folder / "base"),
        "rows": str(folder / "rows.jsonl"),
        "out": str(folder / "out"),
        "checkpoints": str(folder / "checkpoints"),
        "hyperparameters": {"n_epochs": "auto", "batch_size": 4, "learning_rate_multiplier": 0.5},
        "seed": 7,
    }
    file = folder / "spec.json"
    file.write_text(json.dumps(asked | more))
    return str(file)


def told(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"event"')]


def test_auto_is_the_recipes_own_and_a_multiplier_scales_its_rate(tmp_path: Path) -> None:
    spec = Spec.read(Path(spec_file(tmp_path)))
    recipe, default = spec.recipe(), Recipe()
    assert (default.epochs, 4, default.learning_rate / 2, 7) == (
        recipe.epochs,
        recipe.batch_size,
        recipe.learning_rate,
        recipe.seed,
    )
    assert {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 0.5} == spec.resolved()


def test_the_rank_is_one_that_the_fleet_serves(tmp_path: Path) -> None:
    assert 8 == Spec.read(Path(spec_file(tmp_path, max_rank=8))).recipe().rank


def test_a_spec_with_something_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has gpu, which no spec has"):
        Spec.read(Path(spec_file(tmp_path, gpu=1)))


def test_good_rows_are_counted_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main([spec_file(tmp_path, check=True)])
    assert [{"event": "checked", "rows": 8}] == told(capsys.readouterr().out)


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_a_bad_row_is_told_with_its_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], param: str
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": 1}\n')
    which = {"training_file": "rows", "validation_file": "validation"}[param]
    assert 1 == main([spec_file(tmp_path, check=True, **{which: str(bad)})])
    (error,) = told(capsys.readouterr().out)
    assert (f"invalid_{param}", param, True) == (error["code"], error["param"], "line 1" in error["message"])


def test_pairs_are_read_as_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main([spec_file(tmp_path, method="dpo", check=True)])
    (error,) = told(capsys.readouterr().out)
    assert ("invalid_training_file", True) == (error["code"], "is no pair" in error["message"])


def test_preferences_have_a_gentler_rate_and_a_beta(tmp_path: Path) -> None:
    asked = {"beta": 0.3, "learning_rate_multiplier": 2}
    spec = Spec.read(Path(spec_file(tmp_path, method="dpo", hyperparameters=asked)))
    assert ("dpo", 0.3, pytest.approx(Recipe().learning_rate / 10)) == (
        spec.recipe().method,
        spec.recipe().beta,
        spec.recipe().learning_rate,
    )
    assert (2, 0.3) == (spec.resolved()["learning_rate_multiplier"], spec.resolved()["beta"])


@pytest.mark.parametrize(
    ("grader", "reward"),
    [
        ({"type": "string_check", "operation": "eq", "input": "{{sample.output_text}}"}, "exact"),
        ({"type": "string_check", "operation": "ne"}, "other"),
        ({"type": "string_check", "operation": "ilike"}, "icontains"),
        ({"type": "text_similarity", "evaluation_metric": "rouge_l"}, "rouge_l"),
    ],
)
def test_a_grader_is_a_reward_where_there_is_one_like_it(
    grader: dict[str, str], reward: str, tmp_path: Path
) -> None:
    spec = Spec.read(Path(spec_file(tmp_path, method="reinforcement", grader=grader)))
    assert ("grpo", (reward,)) == (spec.recipe().method, spec.recipe().rewards)


@pytest.mark.parametrize(
    ("grader", "words"),
    [
        ({"type": "python", "source": "…"}, "python"),
        ({"type": "text_similarity", "evaluation_metric": "meteor"}, "text_similarity meteor"),
        ({"type": "string_check", "operation": "eq", "input": "{{item.a}}"}, "string_check eq {{item.a}}"),
    ],
)
def test_a_grader_that_there_is_none_like_is_told(
    grader: dict[str, str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 1 == main([spec_file(tmp_path, method="reinforcement", grader=grader)])
    (error,) = told(capsys.readouterr().out)
    assert ("training_failed", True) == (error["code"], f"the grader ({words})" in error["message"])


def test_a_run_goes_on_from_an_adapter(
    tmp_path: Path, small_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main([spec_file(tmp_path, base=str(small_base), max_rank=8)])
    first = [event for event in told(capsys.readouterr().out) if event["event"] == "step"]
    more = {"out": str(tmp_path / "more"), "continue_from": str(tmp_path / "out")}
    assert 0 == main([spec_file(tmp_path, base=str(small_base), **more)])
    then = [event for event in told(capsys.readouterr().out) if event["event"] == "step"]
    assert then[0]["loss"] < first[0]["loss"]
    assert 8 == json.loads((tmp_path / "more" / "adapter_config.json").read_text())["r"]


def test_a_result_that_is_there_already_is_told_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "hotswap.json").write_text(json.dumps({"lineage": {"learned_tokens": 10}}))
    assert 0 == main([spec_file(tmp_path)])
    assert {"event": "done", "trained_tokens": 30, "checkpoints": {}} == told(capsys.readouterr().out)[-1]


def test_steps_are_told_and_the_result_is_an_adapter(
    tmp_path: Path, small_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main([spec_file(tmp_path, base=str(small_base))])
    events = told(capsys.readouterr().out)
    assert ["started", *["step"] * 6, "done"] == [e["event"] for e in events if e["event"] != "checkpoint"]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_the_last_checkpoints_are_left_as_adapters_of_their_own(
    tmp_path: Path, small_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"n_epochs": 3, "batch_size": 1}  # 24 steps, a checkpoint every third
    assert 0 == main([spec_file(tmp_path, base=str(small_base), max_rank=8, hyperparameters=asked)])
    found = told(capsys.readouterr().out)[-1]["checkpoints"]
    assert ["18", "21"] == list(found)
    folder, result = Path(found["21"]), tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in result.iterdir())
    assert (folder / CONFIG).read_bytes() == (result / CONFIG).read_bytes()
    with safe_open(str(folder / WEIGHTS), "pt") as before, safe_open(str(result / WEIGHTS), "pt") as after:
        assert list(before.keys()) == list(after.keys())
        pairs = [(before.get_tensor(name), after.get_tensor(name)) for name in list(after.keys())]
    assert all(one.shape == other.shape and one.dtype == other.dtype for one, other in pairs)
    assert any(not one.equal(other) for one, other in pairs)
    lineage = json.loads((folder / MANIFEST).read_text())["lineage"]
    assert (21, False) == (lineage["steps"], "final_loss" in lineage)
    assert 0 == main([str(tmp_path / "spec.json")])  # as a worker asks that had not heard of it
    assert found == told(capsys.readouterr().out)[-1]["checkpoints"]


def test_a_run_that_was_stopped_says_so_by_its_status(
    tmp_path: Path, small_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(event: str, **more: Any) -> None:
        if event == "step":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("training.__main__.tell", tell)
    assert STOPPED == main([spec_file(tmp_path, base=str(small_base))])
    assert not (tmp_path / "out").exists()
