"""Checkpoints in an object store."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import BUCKET, S3
from training.checkpoints import MARK
from training.mirror import Mirror, main
from training.recipe import TrainingError


def checkpoint(folder: Path, step: int, best: str | None = None) -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 8192)  # 2 MB
    (made / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": best}))
    (made / MARK).write_text("{}")
    return made


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as running:
        yield running


@pytest.fixture(params=["file", "s3"])
def mirror(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    if request.param == "file":
        return Mirror(f"file://{tmp_path / 'store'}", "run")
    running: S3 = request.getfixturevalue("s3")
    for name, value in running.options().items():
        monkeypatch.setenv(name, value)
    return Mirror(f"s3://{BUCKET}/{tmp_path.name}", "run")


def test_what_is_sent_comes_back_on_another_machine(mirror: Mirror, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for step in (3, 6):
        assert mirror.push(checkpoint(here, step, best=str(here / "checkpoint-3")))
    mirror.fetch(there)
    for name in ("checkpoint-3", "checkpoint-6"):
        told = {file.name: file.read_bytes() for file in (there / name).iterdir()}
        assert told.keys() == {"adapter_model.safetensors", "trainer_state.json", MARK}
        weights = "adapter_model.safetensors"
        assert told[weights] == (here / name / weights).read_bytes()
        assert {"best_model_checkpoint": str(there / "checkpoint-3")} == json.loads(
            told["trainer_state.json"]
        )


def test_what_is_gone_here_goes_there(mirror: Mirror, tmp_path: Path) -> None:
    import shutil

    here = tmp_path / "here"
    mirror.push(checkpoint(here, 3))
    shutil.rmtree(here / "checkpoint-3")
    mirror.push(checkpoint(here, 6))
    mirror.fetch(tmp_path / "there")
    assert ["checkpoint-6"] == [each.name for each in (tmp_path / "there").iterdir()]
    mirror.forget()
    mirror.fetch(tmp_path / "later")
    assert not (tmp_path / "later").exists()


def test_one_without_its_mark_does_not_count(mirror: Mirror, tmp_path: Path) -> None:
    half = checkpoint(tmp_path / "here", 3)
    (half / MARK).unlink()
    mirror.push(half)
    mirror.fetch(tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_worker_forgets_a_job_by_its_url(tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    for job in ("job-1", "job-2"):
        Mirror(f"{store}/{job}", "run").push(checkpoint(tmp_path / job, 3))
    assert 0 == main(["forget", f"{store}/job-1"])
    assert ["job-2"] == [each.name for each in (tmp_path / "store").iterdir() if any(each.rglob("*.json"))]


def test_a_store_that_is_away_is_told_and_does_not_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with S3() as short_lived:
        for name, value in short_lived.options().items():
            monkeypatch.setenv(name, value)
        mirror = Mirror(f"s3://{BUCKET}/x", "run")
    with caplog.at_level(logging.WARNING):
        assert not mirror.push(checkpoint(tmp_path, 3))
    assert "checkpoint-3 is on this machine only" in caplog.text
    with pytest.raises(TrainingError, match="does not answer"):
        mirror.fetch(tmp_path / "there")


def test_a_url_that_no_store_has_is_refused() -> None:
    with pytest.raises(TrainingError, match="ftp://x"):
        Mirror("ftp://x/y", "run")
