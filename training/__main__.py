"""The trainer as a program: `python -m training SPEC.json` (`training.spec`), for workers.

It tells what happens in lines of JSON on stdout, each beginning with `{"event"`; what else is there,
libraries wrote. SIGTERM has it save a checkpoint, where the trainer can, and end with status 75: the same
spec goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from training import chores, work
from training.launch import local, on_ray
from training.launch.local import STOPPED, OneFailed
from training.launch.together import here, started
from training.recipe import Stopped, TrainingError
from training.spec import Spec
from training.stop import Stop, on_signals


def tell(event: str, /, **more: Any) -> None:
    """Of several processes, the first speaks."""
    if here().leads:
        print(json.dumps({"event": event, **more}), flush=True)


def main(argv: list[str]) -> int:
    file = Path(argv[0])
    try:
        with on_signals() as stop:
            _work(file, Spec.read(file), stop)
    except Stopped:
        return STOPPED
    except OneFailed:
        return 1
    except TrainingError as error:
        work.tell_problem(error, tell)
        return 1
    return 0


def _work(file: Path, spec: Spec, stop: Stop) -> None:
    if spec.check:
        work.check(spec, tell)
    elif spec.build is not None:
        tell("built", **chores.build(spec, _say))
    elif spec.prove is not None:
        tell("proved", card=chores.prove(spec, _say))
    elif spec.launch == "ray":
        on_ray.run(spec, stop, tell)
    elif spec.processes > 1 and not started():
        stop.check()
        local.run(file, spec.processes)
    else:
        work.train(spec, stop, tell)


def _say(text: str) -> None:
    """For the log."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
