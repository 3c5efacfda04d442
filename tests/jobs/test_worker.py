"""Workers do jobs: to their end, or until they are told otherwise, or die."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
import psutil
import pytest

from tests.house import wait_for
from tests.jobs.conftest import Shop


def trainers(job: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(job in word for word in words) and any("fake_trainer" in word for word in words):
            found.append(process)
    return found


def is_holding(shop: Shop, id: str, step: int) -> None:
    shop.wait_message(id, lambda text: text.startswith(f"Checkpoint created at step {step}"))


def test_a_job_is_done_and_its_model_answers_at_once(shop: Shop) -> None:
    with shop.worker():
        wait_for("a worker was seen", lambda: _created(shop))
        job = shop.wait(shop.create(steps=4, suffix="Care").id, "succeeded", "failed")
    assert ("succeeded", None, 1234) == (job.status, job.error, job.trained_tokens)
    assert job.fine_tuned_model is not None and job.fine_tuned_model.startswith("ft:tiny:default:Care:")
    assert (3, 8, 1.0) == (
        job.hyperparameters.n_epochs,
        job.hyperparameters.batch_size,
        job.hyperparameters.learning_rate_multiplier,
    )
    answer = shop.sdk.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "hi"}], max_tokens=4
    )
    assert answer.model.startswith("care@")
    assert job.fine_tuned_model in [model.id for model in shop.sdk.models.list()]
    assert [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file}",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
    ] == shop.messages(job.id)[:4]
    assert [
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ] == shop.messages(job.id)[-2:]
    steps = [text for text in shop.messages(job.id) if text.startswith("Step ")]
    assert ("Step 1/4: training loss=1.0000", 4) == (steps[0], len(steps))
    results = shop.sdk.files.content(job.result_files[0]).text
    assert "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy" == results.splitlines()[0]
    assert ["1,1.0,,,", "2,0.5,,,"] == results.splitlines()[1:3]
    points = list(shop.sdk.fine_tuning.jobs.checkpoints.list(job.id))
    assert [(4, job.fine_tuned_model), (3, f"{job.fine_tuned_model}:ckpt-step-3")] == [
        (point.step_number, point.fine_tuned_model_checkpoint) for point in points[:2]
    ]
    before = shop.sdk.chat.completions.create(
        model=points[1].fine_tuned_model_checkpoint,
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=4,
    )
    assert before.model.startswith("care@") and before.model != answer.model
    assert ["log.txt"] == os.listdir(shop.house.state / "jobs" / job.id)


def _created(shop: Shop) -> bool:
    try:
        job = shop.sdk.with_options(max_retries=0).fine_tuning.jobs.create(
            model="tiny", training_file=shop.upload(steps=1)
        )
        shop.sdk.fine_tuning.jobs.cancel(job.id)
    except openai.InternalServerError:
        return False
    return True


def test_a_file_with_bad_rows_fails_before_a_device_is_taken(shop: Shop) -> None:
    file = shop.sdk.files.create(file=("rows.jsonl", b'{"messages": "none"}\n'), purpose="fine-tune").id
    with shop.worker():
        job = shop.wait(shop.create(file).id, "failed", "succeeded")
    assert job.error is not None
    assert ("invalid_training_file", "training_file", True) == (
        job.error.code,
        job.error.param,
        "line 1" in job.error.message,
    )
    assert "Fine-tuning job started" not in shop.messages(job.id)


@pytest.mark.parametrize(
    ("todo", "code", "said"),
    [
        ({"fail": "the loss is nan"}, "training_failed", "the loss is nan"),
        ({"crash_at": 2}, "training_crashed", "out of luck"),
    ],
)
def test_a_trainer_that_fails_fails_the_job(
    shop: Shop, todo: dict[str, object], code: str, said: str
) -> None:
    with shop.worker():
        job = shop.wait(shop.create(**todo).id, "failed", "succeeded")
    assert job.error is not None
    assert (code, True, None) == (job.error.code, said in job.error.message, job.fine_tuned_model)


def test_a_trainer_that_is_killed_goes_on_from_its_checkpoint(shop: Shop) -> None:
    with shop.worker():
        job = shop.wait(shop.create(steps=4, killed_at=3).id, "failed", "succeeded")
    assert ("succeeded", None) == (job.status, job.error)
    messages = shop.messages(job.id)
    assert "The trainer was killed by signal 9; the job goes back to the queue" in messages
    assert "Step 4/4" in [text.partition(":")[0] for text in messages]


def test_a_trainer_that_is_always_killed_fails_in_the_end(shop: Shop) -> None:
    with shop.worker(attempts=2):
        job = shop.wait(shop.create(steps=4, killed_at=1).id, "failed", "succeeded")
    assert job.error is not None
    assert ("worker_lost", True) == (job.error.code, "killed by signal 9" in job.error.message)


def test_a_cancelled_job_stops_within_seconds(shop: Shop) -> None:
    with shop.worker():
        job = shop.create(steps=5, hold_at=2)
        is_holding(shop, job.id, 2)
        assert 1 <= len(trainers(job.id))
        shop.sdk.fine_tuning.jobs.cancel(job.id)
        wait_for("the trainer has gone", lambda: not trainers(job.id), 5)
        assert "cancelled" == shop.sdk.fine_tuning.jobs.retrieve(job.id).status
        folder = shop.settings().jobs_path / job.id
        wait_for("only its log is left", lambda: ["log.txt"] == [each.name for each in folder.iterdir()], 5)
        done = shop.wait(shop.create(steps=1).id, "succeeded")  # and the device is free
    assert done.status == "succeeded"


def test_a_paused_job_lets_go_and_goes_on_from_its_checkpoint(shop: Shop) -> None:
    with shop.worker():
        job = shop.create(steps=4, hold_at=2)
        is_holding(shop, job.id, 2)
        shop.sdk.fine_tuning.jobs.pause(job.id)
        wait_for("the trainer has gone", lambda: not trainers(job.id), 5)
        assert "paused" == shop.sdk.fine_tuning.jobs.retrieve(job.id).status  # type: ignore[comparison-overlap]
        shop.sdk.fine_tuning.jobs.resume(job.id)
        shop.wait(job.id, "succeeded")
    steps = [text.partition(":")[0] for text in shop.messages(job.id) if text.startswith("Step ")]
    assert ["Step 1/4", "Step 2/4", "Step 3/4", "Step 4/4"] == steps


def test_a_worker_that_is_told_to_stop_puts_its_job_back(shop: Shop) -> None:
    with shop.worker() as process:
        job = shop.create(steps=4, hold_at=2)
        is_holding(shop, job.id, 2)
        process.terminate()
        assert 0 == process.wait(10)
        assert "queued" == shop.sdk.fine_tuning.jobs.retrieve(job.id).status
    with shop.worker():
        shop.wait(job.id, "succeeded")
    steps = [text.partition(":")[0] for text in shop.messages(job.id) if text.startswith("Step ")]
    assert ["Step 1/4", "Step 2/4", "Step 3/4", "Step 4/4"] == steps


def test_a_killed_workers_job_is_finished_by_another_from_the_last_checkpoint(shop: Shop) -> None:
    with shop.worker() as process:
        job = shop.create(steps=4, hold_at=2)
        is_holding(shop, job.id, 2)
        with shop.worker():
            process.send_signal(signal.SIGKILL)
            wait_for("the trainer of the dead has gone", lambda: not trainers(job.id), 5)
            shop.wait(job.id, "succeeded")
    messages = shop.messages(job.id)
    assert "The worker was lost; the job goes back to the queue" in messages
    steps = [text.partition(":")[0] for text in messages if text.startswith("Step ")]
    assert ["Step 1/4", "Step 2/4", "Step 3/4", "Step 4/4"] == steps


def test_a_job_that_kills_every_worker_fails_in_the_end(shop: Shop) -> None:
    job = None
    for _ in range(2):
        with shop.worker(attempts=1) as process:
            job = job or shop.create(steps=4, kill_worker=True)
            assert -signal.SIGKILL == process.wait(20)
    assert job is not None
    with shop.worker(attempts=1):
        failed = shop.wait(job.id, "failed", "succeeded")
    assert failed.error is not None
    assert "worker_lost" == failed.error.code


@contextmanager
def listener(fail_first: int) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A URL that takes webhooks, refusing the first so many; what came."""
    heard: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(500 if len(heard) <= fail_first else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_the_end_of_a_job_is_told_by_a_webhook_that_the_sdk_reads_and_that_is_tried_again(shop: Shop) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    with listener(fail_first=1) as (url, heard):
        hook = {"webhook_url": url, "webhook_secret_env": "HOOK_SECRET"}
        with shop.worker({"HOOK_SECRET": secret}, **hook):
            job = shop.wait(shop.create(steps=1).id, "succeeded")
            wait_for("it was told twice", lambda: len(heard) >= 2)
    (first, _), (headers, body) = heard[:2]
    event = shop.sdk.webhooks.unwrap(body.decode(), headers, secret=secret)
    assert event.type == "fine_tuning.job.succeeded"
    assert (job.id, first["webhook-id"]) == (event.data.id, event.id)
    assert first["webhook-id"] == headers["webhook-id"]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        shop.sdk.webhooks.unwrap(json.dumps({"forged": 1}), headers, secret=secret)
