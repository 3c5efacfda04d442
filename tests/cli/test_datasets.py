"""`hotswap datasets …` without a gateway, as users call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.dataset.candidates import question
from training.rows import chat

Hotswap = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hotswap(tmp_path: Path) -> Hotswap:
    """The command in a state folder of the test's own, with forty rows in rows.jsonl."""
    rows = (json.dumps(chat(question(at), f"answer {at}")) + "\n" for at in range(40))
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")}
    environment = {**kept, "HOTSWAP_STATE_DIR": str(tmp_path / "state")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    return run


def test_a_dataset_goes_from_build_to_rm(hotswap: Hotswap, tmp_path: Path) -> None:
    built = hotswap("datasets", "build", "support", "--from", "rows.jsonl", "--licence", "own", "--json")
    assert built.returncode == 0, built.stderr
    reference = json.loads(built.stdout)["reference"]
    assert f"next: hotswap datasets show {reference}" in built.stderr

    assert reference in hotswap("datasets", "ls").stdout
    shown = hotswap("datasets", "show", "support", "--html", "report.html")
    assert (0, True) == (shown.returncode, "36 rows" in shown.stdout)
    assert reference in (tmp_path / "report.html").read_text()

    assert reference in hotswap("datasets", "rm", reference, "--dry-run").stderr
    assert 0 == hotswap("datasets", "rm", reference, "--yes").returncode
    assert [] == json.loads(hotswap("datasets", "ls", "--json").stdout)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("build", "support"), 1, "a dataset needs a source"),
        (("build", "support", "--from", "rows.jsonl"), 1, "--licence NAME"),
        (("build", "Support", "--from", "rows.jsonl", "--licence", "own"), 1, "not usable"),
        (("build", "support", "--from", "none.jsonl", "--licence", "own"), 1, "there is no file none.jsonl"),
        (("build", "support", "--from", "traffic://support"), 3, "Start one: hotswap up"),
        (("show", "nothing"), 1, "hotswap datasets ls"),
        (("build", "support", "--plan", "none.toml"), 1, "cannot read the plan"),
    ],
)
def test_a_refusal_says_what_to_do(hotswap: Hotswap, words: tuple[str, ...], code: int, said: str) -> None:
    done = hotswap("datasets", *words)
    assert (code, "") == (done.returncode, done.stdout)
    assert said in done.stderr and "Traceback" not in done.stderr


def test_strict_redaction_of_files_is_the_gateways(hotswap: Hotswap, tmp_path: Path) -> None:
    (tmp_path / "mail.jsonl").write_text(json.dumps(chat("I am alice@example.com", "Hello")) + "\n")
    words = ("build", "mail", "--from", "mail.jsonl", "--licence", "own", "--redact", "strict")
    assert 0 == hotswap("datasets", *words).returncode
    (rows,) = (tmp_path / "state" / "datasets" / "mail").glob("*/train.jsonl")
    assert "I am [EMAIL]" in rows.read_text()


def test_training_takes_a_dataset_by_name_and_refuses_a_changed_one(hotswap: Hotswap, tmp_path: Path) -> None:
    assert 0 == hotswap("datasets", "build", "support", "--from", "rows.jsonl", "--licence", "own").returncode
    train = ("train", "support", "--data", "support", "--no-register", "--out", "out")
    assert "rows of the dataset support@" in hotswap(*train).stderr  # and then there is no base
    (rows,) = (tmp_path / "state" / "datasets" / "support").glob("*/train.jsonl")
    rows.chmod(0o644)
    rows.write_text("{}\n")
    done = hotswap(*train)
    assert (1, True) == (done.returncode, "was changed after it was frozen" in done.stderr)
    assert "there is no dataset other" in hotswap(*train[:3], "other", *train[4:]).stderr
