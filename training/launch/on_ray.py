"""The processes of one run on a Ray cluster (RAY_ADDRESS), or on a Ray that is started here for it.

This process is the driver. What the run reads travels to the workers, its events and the adapter travel back;
the base lies at the same path on every machine. A run goes on from its checkpoints where all see them: in a
shared folder, or in an object store (`jobs.checkpoint_store`).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import work
from training.launch.together import here
from training.recipe import Stopped, TrainingError
from training.spec import Spec
from training.stop import Stop

if TYPE_CHECKING:
    from training.work import Tell

LISTEN_S = 0.2
FAILURES = 3
"""So many times a run may lose a worker (a machine that is gone, or has no memory left) and go on."""


class _Wire:
    """An actor between the driver and the workers."""

    def __init__(self) -> None:
        self._told: list[dict[str, Any]] = []
        self._files: dict[str, bytes] = {}
        self._stop = False

    def tell(self, event: dict[str, Any]) -> bool:
        """From the leader; whether it is to stop."""
        self._told.append(event)
        return self._stop

    def give(self, files: dict[str, bytes]) -> None:
        """The adapter's files."""
        self._files = files

    def heard(self) -> list[dict[str, Any]]:
        told, self._told = self._told, []
        return told

    def files(self) -> dict[str, bytes]:
        return self._files

    def stop(self) -> None:
        self._stop = True


def run(spec: Spec, stop: Stop, tell: Tell) -> None:
    """Has the run done by `spec.processes` workers. Raises `Stopped`, `TrainingError`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise TrainingError(
            "jobs.launch is ray, and Ray is not installed where the trainer runs: pip install 'hotswap[ray]'"
        ) from error
    stop.check()
    _connect(ray, spec.processes)
    try:
        wire = ray.remote(num_cpus=0)(_Wire).remote()
        gpus = ray.cluster_resources().get("GPU", 0) >= spec.processes
        trainer = TorchTrainer(
            _share,
            train_loop_config={"spec": _portable(spec), "files": _read(spec), "wire": wire},
            scaling_config=ScalingConfig(num_workers=spec.processes, use_gpu=gpus),
            run_config=RunConfig(
                name=f"hotswap-{spec.job or os.getpid()}",
                storage_path=str((spec.checkpoints.parent / "ray").absolute()),
                failure_config=FailureConfig(max_failures=FAILURES),
            ),
        )
        last = _follow(ray, wire, trainer, stop, tell)
        if last == "stopped":
            raise Stopped("training was stopped; run it again as it was")
        if last == "done":
            _write(spec.out, ray.get(wire.files.remote()))
    finally:
        ray.shutdown()


def _connect(ray: Any, processes: int) -> None:
    address = os.environ.get("RAY_ADDRESS")
    more = {} if address else {"num_cpus": max(processes, os.cpu_count() or 1), "include_dashboard": False}
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address or "local", logging_level="WARNING", **more)
        for number, handler in ours.items():  # Ray's own end the driver at once
            signal.signal(number, handler)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise TrainingError(f"Ray cannot be reached ({address or 'here'}): {error}") from error


def _follow(ray: Any, wire: Any, trainer: Any, stop: Stop, tell: Tell) -> str:
    """Passes on what the leader tells until the run has ended; the name of its last event."""
    problem: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 - told below
            problem.append(error)

    fitting = threading.Thread(target=fit, name="ray", daemon=True)
    fitting.start()
    last, told_stop = "", False
    while True:
        running = fitting.is_alive()
        for event in ray.get(wire.heard.remote()):
            last = event["event"]
            if "checkpoints" in event:  # a worker on another machine has left them there
                event["checkpoints"] = {
                    step: at for step, at in event["checkpoints"].items() if Path(at).is_dir()
                }
            if last != "stopped":
                tell(event.pop("event"), **event)
        if not running:
            break
        if stop.is_set() and not told_stop:
            told_stop = True
            ray.get(wire.stop.remote())
        time.sleep(LISTEN_S)
    if last in ("stopped", "done", "error"):
        return last
    why = problem[0] if problem else "it ended without a result"
    raise TrainingError(f"the run on Ray failed: {why}")


def _share(given: dict[str, Any]) -> None:
    """In each worker."""
    import ray

    wire, stop = given["wire"], Stop()

    def tell(event: str, /, **more: Any) -> None:
        if here().leads and ray.get(wire.tell.remote({"event": event, **more})):
            stop.set()

    spec = Spec.of(given["spec"])
    ours = _put(given["files"])
    try:
        work.train(spec, stop, tell)
    except Stopped:
        tell("stopped")
        return
    except TrainingError as error:
        work.tell_problem(error, tell)
        return
    finally:
        for file in ours:
            file.unlink(missing_ok=True)  # what was said by users is not to lie about on a cluster
    if here().leads:
        files = {file.name: file.read_bytes() for file in spec.out.iterdir()}
        ray.get(wire.give.remote(files))


def _put(files: dict[str, bytes]) -> list[Path]:
    """Writes what a machine lacks that does not share the driver's disk; what this worker wrote. Several may
    do so at once: each file appears whole."""
    ours = []
    for path, content in files.items():
        file = Path(path)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{file.name}.{os.getpid()}")
            part.write_bytes(content)
            part.replace(file)
            ours.append(file)
    return ours


def _portable(spec: Spec) -> dict[str, Any]:
    found = json.loads(json.dumps(asdict(spec), default=lambda path: str(Path(path).absolute())))
    return {**found, "launch": "local", "processes": 1}


def _read(spec: Spec) -> dict[str, bytes]:
    """What the workers need besides the base, by its path."""
    files = [file for file in (spec.rows, spec.validation) if file is not None]
    if spec.continue_from is not None:
        files += sorted(spec.continue_from.iterdir())
    return {str(file.absolute()): file.read_bytes() for file in files}


def _write(out: Path, files: dict[str, bytes]) -> None:
    """The adapter, whole or not at all, where a worker on this machine has not written it already."""
    if out.exists():
        return
    part = out.with_name(f".{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (part / name).write_bytes(content)
    part.rename(out)
