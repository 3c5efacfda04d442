"""A run that several processes share, started on this machine or by Ray: the same adapter, and as safe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.house import wait_for
from tests.training.test_main import spec_file
from training.__main__ import main
from training.launch.together import part
from training.recipe import Recipe, TrainingError
from training.rows import chat, write_rows

STOPPED = 75
SHARED = [{"processes": 2}, {"processes": 2, "launch": "ray"}]
NAMES = ["local", "ray"]


@contextmanager
def trainer(folder: Path, base: Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """`python -m training` on forty rows, its events in `events.jsonl`."""
    folder.mkdir(exist_ok=True)
    rows = [chat(f"question {n}", f"green {n % 7}") for n in range(40)]
    if more.get("method") == "dpo":
        rows = [pair(f"question {n}", f"green {n % 7}", f"red {n % 7}") for n in range(40)]
    write_rows(folder / "rows.jsonl", rows)
    asked = {
        "method": "supervised",
        "base": str(base),
        "rows": str(folder / "rows.jsonl"),
        "out": str(folder / "out"),
        "checkpoints": str(folder / "checkpoints"),
        "hyperparameters": {"n_epochs": 2, "batch_size": 4},
        "seed": 7,
        "max_rank": 8,
        **more,
    }
    (folder / "spec.json").write_text(json.dumps(asked))
    command = [sys.executable, "-m", "training", str(folder / "spec.json")]
    with (folder / "events.jsonl").open("a") as out, (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, stdout=out, stderr=log, text=True, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def pair(question: str, better: str, worse: str) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
    }


def train(folder: Path, base: Path, **more: Any) -> int:
    with trainer(folder, base, **more) as process:
        return process.wait(240)


def told(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith('{"event"') and line.endswith("}")]
    return [event for event in events if event["event"] in kinds]


def difference(one: Path, other: Path) -> float:
    """Of two adapters' weights: the length of the difference over that of the one."""
    apart = whole = 0.0
    with (
        safe_open(str(one / "out" / "adapter_model.safetensors"), "pt") as left,
        safe_open(str(other / "out" / "adapter_model.safetensors"), "pt") as right,
    ):
        assert list(left.keys()) == list(right.keys())
        for name in left.keys():  # noqa: SIM118 - it is no dictionary
            apart += float((left.get_tensor(name) - right.get_tensor(name)).square().sum())
            whole += float(left.get_tensor(name).square().sum())
    return (apart / whole) ** 0.5


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """What one process makes of it."""
    folder = tmp_path_factory.mktemp("alone")
    assert 0 == train(folder, small_base)
    return folder


@pytest.mark.parametrize("more", SHARED, ids=NAMES)
def test_a_shared_run_is_stopped_goes_on_and_makes_the_same_adapter(
    more: dict[str, Any], alone: Path, small_base: Path, tmp_path: Path
) -> None:
    with trainer(tmp_path, small_base, **more) as process:
        wait_for("some steps", lambda: len(told(tmp_path, "step")) >= 3, 120, every_s=0.02)
        process.terminate()
        assert process.wait(120) == STOPPED, (tmp_path / "log.txt").read_text()[-2000:]
    done = told(tmp_path, "step")[-1]["step"]
    assert done < 20 and not (tmp_path / "out").exists()
    assert told(tmp_path, "checkpoint")[-1]["step"] == done
    assert 0 == train(tmp_path, small_base, **more), (tmp_path / "log.txt").read_text()[-2000:]
    steps, before = told(tmp_path, "step"), told(alone, "step")
    assert [step["step"] for step in steps] == list(range(1, 21))
    for step, wanted in zip(steps, before, strict=True):
        assert step["loss"] == pytest.approx(wanted["loss"], rel=0.02), step
    assert 0 < difference(alone, tmp_path) < 0.05
    assert told(tmp_path, "done")[0]["trained_tokens"] == told(alone, "done")[0]["trained_tokens"]
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_one_that_is_killed_ends_all_by_its_signal(small_base: Path, tmp_path: Path) -> None:
    """Of preferences, which can be shared, too."""
    with trainer(tmp_path, small_base, processes=2, method="dpo") as process:
        wait_for("some steps", lambda: len(told(tmp_path, "step")) >= 2, 120, every_s=0.02)
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        shares = [pid for pid in found if b"training" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(shares) == 2
        os.kill(int(shares[1]), signal.SIGKILL)
        assert process.wait(120) == -signal.SIGKILL  # what the worker puts a job back for
        for pid in shares:
            wait_for("all have ended", lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10)


def test_what_cannot_be_shared_is_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"n_epochs": 1, "batch_size": 3}
    assert 1 == main([spec_file(tmp_path, check=True, processes=2, hyperparameters=asked)])
    assert "batches of 3 rows cannot be shared evenly by 2 processes" in capsys.readouterr().out


def test_a_batch_is_shared_evenly_or_not_at_all() -> None:
    assert part(Recipe(batch_size=8), 4) == 2
    with pytest.raises(TrainingError, match="choose a batch_size like 9"):
        part(Recipe(batch_size=8), 3)
    with pytest.raises(TrainingError, match="grpo is done by one process"):
        part(Recipe(method="grpo", rewards=("exact",), batch_size=8), 2)
