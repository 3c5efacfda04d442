"""One job done by one worker: rows fetched, the trainer run and watched, the result registered.

It can be done again from any point: what lies in the job's folder is gone on from.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Row

from gateway.jobs.house import House, HouseError, Left
from gateway.jobs.leftovers import checkpoint_store, clear
from gateway.jobs.progress import NotOurs, Progress, Step
from gateway.jobs.request import TRAFFIC
from gateway.jobs.source import parse
from gateway.jobs.steps import step_of, table_of
from gateway.jobs.trainer import Command, Trainer
from gateway.settings import Settings

log = logging.getLogger("hotswap.jobs")

WATCH_EVERY_S = 1.0
"""How soon a cancelled or paused job stops."""
GATHER_S = 0.25
"""Steps that come within this time are written together."""
STOPPED = 75
"""How the trainer ends when it was asked to and has saved."""
TRAINING, VALIDATION = "training_file.jsonl", "validation_file.jsonl"
KEY = "HOTSWAP_TRAINER_KEY"
"""Where the trainer finds the gateway's key, when it is to speak to it (`training.chores`)."""


class PutBack(Exception):
    """The worker stops, or the trainer was killed, and the job goes back to the queue."""


class Failed(Exception):
    """The job cannot succeed; `code`, the message and `param` are its error."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class Bench:
    """What every run of a worker needs. `stopping` is set when the worker is to end."""

    settings: Settings
    progress: Progress
    house: House
    command: Command
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


class Run:
    """`job` under queue entry `entry`, on `device` (None: the CPU, or whatever there is)."""

    def __init__(self, bench: Bench, job: Row[Any], entry: int, device: str | None = None) -> None:
        self._bench = bench
        self._job = job
        self._entry = entry
        self._device = device
        self._steps: list[Step] = []
        self._lineage: dict[str, Any] | None = job.lineage
        self.folder = bench.settings.jobs_path / job.id

    async def check(self) -> None:
        """Are its files good? Raises `PutBack`, `NotOurs`."""
        await self._guarded(self._check())

    async def train(self) -> None:
        """All of it. Raises `PutBack`, `NotOurs`."""
        await self._guarded(self._train())

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except Failed as error:
            await self._bench.progress.failed(self._job.id, self._entry, error.code, str(error), error.param)
            await asyncio.to_thread(clear, self._bench.settings, self._job.id)
        except Left:
            await self._bench.progress.put_back(self._job.id, self._entry)
            raise PutBack from None

    async def _check(self) -> None:
        await self._fetch()
        await self._run_trainer("check")
        await self._bench.progress.checked(self._job.id, self._entry)

    async def _train(self) -> None:
        await self._bench.progress.began(self._job.id, self._entry)
        await self._fetch()
        await self._keep(await self._run_trainer("train"))

    async def _fetch(self) -> None:
        """The rows, once."""
        await asyncio.to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        if self._job.plan is not None:
            await self._build()
            return
        for param, file in (
            ("training_file", self._job.training_file),
            ("validation_file", self._job.validation_file),
        ):
            path = self.folder / f"{param}.jsonl"
            if file is None or path.exists():
                continue
            try:
                if file.startswith(TRAFFIC):
                    await asyncio.to_thread(self._bench.house.export, parse(file), self._job.tenant, path)
                else:
                    await asyncio.to_thread(self._bench.house.download, file, path)
            except HouseError as error:
                if error.status in (400, 404):
                    raise Failed(f"invalid_{param}", str(error), param) from error
                raise

    async def _build(self) -> None:
        """The rows of a job that a plan has started: of a dataset of their own, once."""
        if (self.folder / TRAINING).exists() and self._job.lineage is not None:
            return
        settings, house = self._bench.settings, self._bench.house
        both = "&" if "?" in self._job.training_file else "?"
        asked = {
            "name": self._job.adapter,
            "source": f"{self._job.training_file}{both}tenant={quote(self._job.tenant)}",
            "shelf": str(settings.state_dir.absolute() / "datasets"),
            "accept": self._job.accept or [],
            "url": house.url,
        }
        done = await self._run_trainer("build", build=asked)
        lineage = dict(done["lineage"])
        held_out = done["held_out"] or "none"
        told = f"Rows of the dataset {lineage['dataset']}: {done['rows']}, and {held_out} held out"
        await self._bench.progress.built(self._job.id, self._entry, lineage, told)
        self._lineage = lineage

    async def _prove(self, version: str) -> None:
        """The report card of the version that a plan's job has made, and what it says in one event."""
        progress, house = self._bench.progress, self._bench.house
        if not self._holds_out:
            await progress.said(
                self._job.id, self._entry, "Not proved: there are no held-out rows to judge by", "warn"
            )
            return
        try:
            stable, manifest = await asyncio.to_thread(house.before, version)
            asked = {
                "version": version,
                "folder": str(self.folder / "adapter"),
                "stable": stable or self._bench.settings.base.name,
                "claimed": "" if manifest["base_assumed"] else manifest["base_fingerprint"],
                "url": house.url,
            }
            card = (await self._run_trainer("prove", prove=asked))["card"]
            await asyncio.to_thread(house.grade, version, card)
        except (Failed, HouseError) as error:  # the version is there; without a card it is not promoted
            if isinstance(error, HouseError) and not error.final:
                raise  # the gateway is away: all of this again, later
            await progress.said(self._job.id, self._entry, f"Not proved: {error}", "warn")
            return
        failed = [found["gate"] for found in card["findings"] if not found["passed"]]
        told = f"Gates not passed: {', '.join(failed)}" if failed else "All gates are passed"
        await progress.said(self._job.id, self._entry, told, "warn" if failed else "info")

    async def _run_trainer(self, work: str, **more: Any) -> Mapping[str, Any]:
        """The trainer's last event, of its `work`: check, train, build or prove.

        Raises `Left` when it was stopped because the worker stops.
        """
        spec = self.folder / f"{work}.json"
        spec.write_text(json.dumps({**self._spec(work), **more}, indent=1))
        trainer = Trainer(
            f"{work}-{self._job.id}",
            self._bench.command(spec),
            state_dir=self._bench.settings.state_dir,
            log=self.folder / "log.txt",
            device=self._device,
            stop_s=self._bench.settings.jobs.stop_s,
            secrets={KEY: self._bench.house.key} if more else None,
        )
        async with trainer.running() as events:
            watching = asyncio.create_task(self._watch(trainer))
            try:
                last = await self._listen(events)
            finally:
                watching.cancel()
                stopped = (await asyncio.gather(watching, return_exceptions=True))[0]
        if isinstance(stopped, Exception):
            raise stopped
        if last is not None and last["event"] == "error":
            raise Failed(str(last.get("code", "training_failed")), str(last["message"]), last.get("param"))
        if last is not None:
            return last
        if self._bench.stopping.is_set() or trainer.status == STOPPED:
            raise Left
        if not await self._bench.progress.holds(self._job.id, self._entry):
            raise NotOurs(self._job.id)
        if trainer.status is not None and trainer.status < 0:  # the kernel, for want of memory, or somebody
            why = f"The trainer was killed by signal {-trainer.status}"
            if work == "prove":
                raise Failed("not_proved", why)
            attempts = self._bench.settings.jobs.attempts
            if await self._bench.progress.lost(self._job.id, self._entry, attempts, why):
                raise PutBack
            raise NotOurs(self._job.id)  # it has failed
        raise Failed("training_crashed", f"the trainer ended without a result: {trainer.last_words()}")

    async def _watch(self, trainer: Trainer) -> None:
        """Stops the trainer when the worker is to end, or the job is not to go on. Raises `NotOurs`."""
        while True:
            try:
                await asyncio.wait_for(self._bench.stopping.wait(), WATCH_EVERY_S)
            except TimeoutError:
                if await self._bench.progress.holds(self._job.id, self._entry):
                    continue
                await trainer.stop()
                raise NotOurs(self._job.id) from None
            await trainer.stop()
            return

    async def _listen(self, events: Any) -> Mapping[str, Any] | None:
        """Writes down what the trainer tells; its last word, if it had one."""
        last = None
        waiting: list[Step] = []
        wrote = 0.0
        loop = asyncio.get_running_loop()

        async def flush() -> None:
            nonlocal waiting, wrote
            if waiting:
                steps, waiting = waiting, []
                await self._bench.progress.steps(self._job.id, self._entry, steps)
            wrote = loop.time()

        try:
            async for event in events:
                match event["event"]:
                    case "started":
                        known = event.get("hyperparameters", {})
                        await self._bench.progress.resolved(self._job.id, self._entry, known)
                    case "step":
                        step = step_of(event)
                        self._remember(step)
                        waiting.append(step)
                        if loop.time() - wrote > GATHER_S or step.step == step.total:
                            await flush()
                    case "validated" if self._steps and self._steps[-1].step == event["step"]:
                        self._steps[-1] = replace(
                            self._steps[-1], valid_loss=event["loss"], valid_accuracy=event["accuracy"]
                        )
                        if waiting:
                            waiting[-1] = self._steps[-1]
                    case "checkpoint":
                        await flush()
                        metrics = next(
                            (step.metrics for step in reversed(self._steps) if step.step == event["step"]),
                            {"step": event["step"]},
                        )
                        await self._bench.progress.checkpoint(
                            self._job.id, self._entry, event["step"], metrics
                        )
                    case "checked" | "built" | "proved" | "done" | "error":
                        last = event
            await flush()
        except NotOurs:
            return None  # the watch says so too, and stops it
        return last

    def _remember(self, step: Step) -> None:
        """For the result file: a run that goes on in this folder has the steps of the runs before it."""
        self._steps.append(step)
        with (self.folder / "steps.jsonl").open("a") as file:
            file.write(json.dumps({**step.metrics, "total": step.total, "eta_s": step.eta_s}) + "\n")

    async def _keep(self, done: Mapping[str, Any]) -> None:
        """The adapter to the registry, what was measured to the files, and the job has succeeded."""
        house, job = self._bench.house, self._job
        if not await self._bench.progress.holds(job.id, self._entry):
            raise NotOurs(job.id)
        try:
            version = await asyncio.to_thread(house.register, self.folder / "adapter", job.adapter, job.name)
            results = await asyncio.to_thread(
                house.upload_results,
                job.tenant,
                f"{job.id}_step_metrics.csv",
                table_of(self.folder / "steps.jsonl"),
            )
        except HouseError as error:
            if error.final:
                raise Failed("registration_failed", f"the result was not registered: {error}") from error
            raise
        await self._offer(done.get("checkpoints", {}))
        if job.plan is not None:
            await self._prove(version)
        await self._bench.progress.succeeded(
            job.id,
            self._entry,
            version=version,
            tokens=int(done.get("trained_tokens", 0)),
            results=results,
            last=self._steps[-1] if self._steps else None,
        )
        await asyncio.to_thread(clear, self._bench.settings, job.id)

    async def _offer(self, checkpoints: Mapping[str, str]) -> None:
        """The adapters of the last checkpoints (by step, their folders) answer at their names, too; after the
        result, which becomes the stable version where there is none. One that is refused, for want of room,
        say, is not worth the job."""
        if not self._bench.settings.jobs.offer_checkpoints:
            return
        for step, folder in sorted(checkpoints.items(), key=lambda each: int(each[0])):
            name = f"{self._job.name}:ckpt-step-{step}"
            try:
                await asyncio.to_thread(self._bench.house.register, Path(folder), self._job.adapter, name)
            except HouseError as error:
                if not error.final:
                    raise
                told = f"{name} does not answer: {error}"
                await self._bench.progress.said(self._job.id, self._entry, told, "warn")

    @property
    def _holds_out(self) -> bool:
        """Are there rows to judge by? Of the few rows of a plan's job, there may be none."""
        if self._job.plan is None:
            return self._job.validation_file is not None
        path: Path = self.folder / VALIDATION
        return path.exists() and path.stat().st_size > 0

    def _spec(self, work: str) -> dict[str, Any]:
        settings, method = self._bench.settings, self._job.method
        continues = self._job.continues
        part = {name: value for name, value in method[method["type"]].items() if name != "hyperparameters"}
        return {
            "check": work == "check",
            "job": self._job.id,
            "method": method["type"],
            **part,
            "hyperparameters": method[method["type"]]["hyperparameters"],
            "seed": self._job.seed,
            "base": str(settings.base_path),
            "rows": str(self.folder / TRAINING),
            "validation": str(self.folder / VALIDATION) if work == "build" or self._holds_out else None,
            "continue_from": None if continues is None else self._version_folder(continues),
            "max_rank": settings.engine.max_lora_rank,
            "out": str(self.folder / "adapter"),
            "checkpoints": str(self.folder / "checkpoints"),
            "checkpoint_store": checkpoint_store(settings, self._job.id),
            "lineage": self._lineage,
            "processes": settings.jobs.processes,
            "launch": settings.jobs.launch,
            "tensorboard": None if settings.jobs.tensorboard is None else str(settings.jobs.tensorboard),
        }

    def _version_folder(self, version: str) -> str:
        """Where the files of a version are, in the store that this worker shares with the gateway."""
        short = version.partition("@")[2]
        found: list[Path] = list((self._bench.settings.store_path / "sha256").glob(f"{short}*"))
        if len(found) != 1:
            raise Failed(
                "model_not_available",
                f"the files of {version}, which the job goes on from, are not in this worker's store",
                "model",
            )
        return str(found[0])
