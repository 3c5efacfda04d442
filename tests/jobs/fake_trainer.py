"""A trainer that trains nothing: it speaks the protocol of `gateway.jobs.trainer`, in milliseconds.

    python tests/jobs/fake_trainer.py SPEC.json

What it is to do stands in the first row's question, as JSON: `steps`, `step_s`, `hold_at` (a step at which it
waits until it is stopped), `crash_at`, `fail`, `kill_worker`. Each step is saved, and gone on from.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from training.recipe import TrainingError
from training.rows import read_rows

stopped = False


def tell(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


def stop(number: int, frame: object) -> None:
    global stopped
    stopped = True


def kill_worker() -> None:
    """And waits for what comes then. The parent is the leash; nobody but a worker is killed."""
    worker = psutil.Process(psutil.Process(os.getppid()).ppid())
    assert any("worker_process" in word for word in worker.cmdline())
    worker.kill()
    while True:
        time.sleep(0.1)


def build(spec: dict[str, Any]) -> int:
    """As `training.chores` does, but for the dataset."""
    assert os.environ["HOTSWAP_TRAINER_KEY"]
    assert spec["build"]["source"].startswith("traffic://tiny?feedback=corrected&tenant=default")
    todo = json.dumps({"step_s": 60} if spec["build"]["name"] == "slow" else {})
    row = {"messages": [{"role": "user", "content": todo}, {"role": "assistant", "content": "ok"}]}
    for name in ("rows", "validation"):
        Path(spec[name]).write_text(json.dumps(row) + "\n")
    lineage = {"dataset": f"{spec['build']['name']}@0123456789ab", "dataset_digest": "0" * 64}
    tell("built", lineage=lineage, rows=1, held_out=1)
    return 0


def prove(spec: dict[str, Any]) -> int:
    """Every gate is passed, but by the versions of `bad`."""
    assert os.environ["HOTSWAP_TRAINER_KEY"] and Path(spec["prove"]["folder"]).is_dir()
    version = spec["prove"]["version"]
    passed = not version.startswith("bad@")
    finding = {"gate": "task gain", "passed": passed, "measured": "some", "bound": "above 0"}
    tell("proved", card={"version": version, "passed": passed, "findings": [finding]})
    return 0


def main() -> int:
    signal.signal(signal.SIGTERM, stop)
    spec = json.loads(Path(sys.argv[1]).read_text())
    if spec.get("build"):
        return build(spec)
    if spec.get("prove"):
        return prove(spec)
    try:
        rows = read_rows(Path(spec["rows"]))
    except TrainingError as error:
        tell("error", code="invalid_training_file", message=str(error), param="training_file")
        return 1
    if spec["check"]:
        tell("checked", rows=len(rows))
        return 0
    todo = json.loads(rows[0].messages[0].content)
    print("a library says: hello", flush=True)
    tell("started", hyperparameters={"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0})
    saved = Path(spec["checkpoints"])
    saved.mkdir(exist_ok=True)
    first = max((int(path.name.removeprefix("checkpoint-")) for path in saved.iterdir()), default=0) + 1
    total = todo.get("steps", 3)
    for step in range(first, total + 1):
        tell("step", step=step, total=total, loss=1 / step, eta_s=0.1 * (total - step))
        if "fail" in todo:
            tell("error", code="training_failed", message=todo["fail"])
            return 1
        if "kill_worker" in todo:
            kill_worker()
        if step == todo.get("crash_at"):
            print("Traceback: out of luck", flush=True)
            return 3
        if step == todo.get("killed_at") and first == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        (saved / f"checkpoint-{step}").touch()
        tell("checkpoint", step=step)
        while step == todo.get("hold_at") and first != step + 1 and not stopped:
            time.sleep(0.01)
        if stopped:
            return 75
        time.sleep(todo.get("step_s", 0))
    from tests.conftest import TINY
    from tests.peft_folder import random_adapter

    random_adapter(Path(spec["out"]), TINY, spec["seed"])
    before = Path(spec["out"]).with_name("before")
    random_adapter(before, TINY, spec["seed"] + 1)
    tell("done", trained_tokens=1234, checkpoints={str(total - 1): str(before)} if total > 1 else {})
    return 0


if __name__ == "__main__":
    sys.exit(main())
