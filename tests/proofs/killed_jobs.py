"""Fine-tuning jobs killed at a random step end with the adapter that they would have had."""

from __future__ import annotations

import io
import json
import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
from safetensors.numpy import load_file

from adapters.store import Store
from gateway.settings import Settings
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.proofs.result import Result
from training.tasks import house as task

SEEDS = tuple(range(1, 1 + int(os.environ.get("KILLED_JOBS_SEEDS", "3"))))
ROWS, HELD_OUT = 200, 40
VICTIMS = ("training", "worker")
"""The process that gets SIGKILL, by turns: the trainer, or the worker that it belongs to."""
LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Run:
    """One job. `loss` is on the validation rows; `wasted` are the steps done twice, `interval` the most."""

    adapter: Path
    loss: float
    wasted: int = 0
    interval: int = 0
    victim: str = ""


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "killed_jobs",
        f"Fine-tuning jobs over OpenAI's API, NF4 base, {ROWS} rows and {HELD_OUT} for validation, the real "
        "trainer in a worker beside the gateway. Each seed is trained twice: undisturbed, and with `kill -9` "
        "of the trainer or of its worker at a random step.",
    )
    name = Settings().base.name
    dice = random.Random(7)
    with Fake(model=name) as fake:
        more = {"HOTSWAP_JOBS__WORKERS": "1"}
        with House(folder / "house", base, before([fake], base=name, **more)) as house:
            jobs = Jobs(house, name)
            whole = {seed: jobs.run(seed) for seed in SEEDS}
            killed = {seed: jobs.run(seed, VICTIMS[seed % 2], dice) for seed in SEEDS}
    losses = [run.loss for run in whole.values()]
    noise = max(losses) - min(losses)
    result.figure("validation loss over seeds, undisturbed", ", ".join(f"{loss:.4f}" for loss in losses))
    for seed in SEEDS:
        one, other = whole[seed], killed[seed]
        called = f"seed {seed}, {other.victim} killed"
        apart = abs(one.loss - other.loss)
        said = f"{one.loss:.4f} and {other.loss:.4f}: {apart:.4f} apart, seeds are {noise:.4f} apart"
        result.must(f"{called}: the same loss, but for the noise of seeds", apart <= noise, said)
        result.must(
            f"{called}: at most one checkpoint interval done twice",
            other.wasted <= other.interval,
            f"{other.wasted} steps of {other.interval}",
        )
        result.figure(f"{called}: tensors that differ", _differing(one.adapter, other.adapter))
    return result


class Jobs:
    """What an app does with `house`, whose base is `model`."""

    def __init__(self, house: House, model: str) -> None:
        self._house = house
        self._model = model
        self._sdk = openai.OpenAI(base_url=f"{house.url}/v1", api_key=house.key)
        made = task(rows=ROWS + HELD_OUT)
        self._rows = self._file(made.rows[:ROWS])
        self._validation = self._file(made.rows[ROWS:])

    def run(self, seed: int, victim: str = "", dice: random.Random | None = None) -> Run:
        suffix = f"seed{seed}-{victim or 'whole'}"
        job = self._sdk.fine_tuning.jobs.create(
            model=self._model,
            training_file=self._rows,
            validation_file=self._validation,
            suffix=suffix,
            seed=seed,
            hyperparameters={"n_epochs": 2, "batch_size": 8},
        ).id
        interval = 0
        if dice is not None:
            wait_for("it has begun", lambda: self._step(job), LIMIT_S, 0.2)
            at = dice.randint(12, 40)
            wait_for(f"step {at}", lambda: self._step(job) >= at, LIMIT_S, 0.05)
            self._kill(victim)
            interval = min(self._checkpoints(job), default=at)
            print(f"  killed {victim} at step {self._step(job)} of {suffix}", flush=True)
        ended = ("succeeded", "failed", "cancelled")
        wait_for(
            f"{suffix} has ended",
            lambda: self._sdk.fine_tuning.jobs.retrieve(job).status in ended,
            LIMIT_S,
            0.5,
        )
        found = self._sdk.fine_tuning.jobs.retrieve(job)
        assert found.status == "succeeded", found.error
        print(f"  {suffix} has ended", flush=True)
        steps = [int(each["step"]) for each in self._metrics(job)]
        twice = len(steps) - len(set(steps))
        return Run(self._adapter(suffix), self._loss(job), twice, interval, victim)

    def _file(self, rows: Any) -> str:
        content = io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())
        return self._sdk.files.create(file=("rows.jsonl", content), purpose="fine-tune").id

    def _metrics(self, job: str) -> list[dict[str, Any]]:
        events = self._sdk.fine_tuning.jobs.list_events(job, limit=100)
        return [dict(event.data) for event in events if event.type == "metrics" and event.data]  # type: ignore[call-overload]

    def _step(self, job: str) -> int:
        return max((int(each["step"]) for each in self._metrics(job)), default=0)

    def _loss(self, job: str) -> float:
        points = self._sdk.fine_tuning.jobs.checkpoints.list(job)
        return min(point.metrics.valid_loss for point in points if point.metrics.valid_loss is not None)

    def _checkpoints(self, job: str) -> list[int]:
        return sorted(point.step_number for point in self._sdk.fine_tuning.jobs.checkpoints.list(job))

    def _kill(self, victim: str) -> None:
        assert self._house.process is not None
        for process in psutil.Process(self._house.process.pid).children(recursive=True):
            words = process.cmdline()
            if victim in words[1:4] and "-m" in words[1:3]:
                process.send_signal(signal.SIGKILL)
                return
        raise AssertionError(f"there is no {victim} to kill")

    def _adapter(self, name: str) -> Path:
        answer = httpx.get(f"{self._house.url}/admin/v1/adapters/{name}", headers=self._house.headers)
        digest = answer.raise_for_status().json()["versions"][0]["digest"]
        return Store(self._house.state / "adapters").path(digest)


def _differing(one: Path, other: Path) -> str:
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    differing = [name for name in ours if (ours[name] != theirs[name]).any()]
    return f"{len(differing)} of {len(ours)}"
