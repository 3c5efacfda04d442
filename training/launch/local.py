"""The processes of one run on this machine: a GPU each, or a share of the CPU's cores."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

from training.launch.together import started
from training.recipe import Stopped, TrainingError

STOPPED = 75
"""How a process ends that was stopped and has saved."""
SAVE_S = 600
"""For a checkpoint to be written after a stop; whoever stopped us has less patience, and ends us all."""


def run(spec: Path, processes: int) -> None:
    """Has `python -m training SPEC` done by so many processes; the leader tells for all on our stdout.

    SIGTERM goes to all of them. Raises `Stopped` when that was the end, `OneFailed` when one of them failed,
    and `TrainingError` where there are fewer GPUs. Where the kernel killed one, we die of the same signal:
    our parent is to know.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    assert not started()
    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise TrainingError(
            f"{processes} processes are to share a job, and there are {torch.cuda.device_count()} GPUs for "
            "it; set jobs.processes to no more"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,  # what is lost is begun again by the queue of jobs
        shutdown_timeout=SAVE_S,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "training", str(spec))
    except SignalException as error:
        raise Stopped("training was stopped; run it again as it was") from error
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        if first.exitcode == STOPPED:
            raise Stopped("training was stopped; run it again as it was") from error
        if first.exitcode < 0:
            os.kill(os.getpid(), -first.exitcode)
        raise OneFailed(f"process {rank} of {processes} ended with status {first.exitcode}") from error


class OneFailed(TrainingError):
    """One of the processes failed, and has said why."""
