"""A house before the fake engine, whose jobs are done by workers with a fake trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from gateway.db import running_url
from gateway.settings import Settings
from tests.house import House, wait_for

PROCESS = Path(__file__).with_name("worker_process.py")
ROOT = PROCESS.parents[2]


@dataclass
class Shop:
    """The house, its SDK, and how to start workers."""

    house: House
    sdk: openai.OpenAI
    tiny_base: Path

    def settings(self, **jobs: Any) -> Settings:
        quick = {"heartbeat_s": 0.2, "lost_after_s": 1.5, "stop_s": 1.0}
        return Settings.model_validate(
            {
                "state_dir": self.house.state,
                "base": {"name": "tiny", "path": self.tiny_base},
                "jobs": quick | jobs,
            }
        )

    @property
    def database_url(self) -> str:
        return running_url(self.house.state / "postgres")

    @contextmanager
    def worker(
        self, environment: dict[str, str] | None = None, **jobs: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        words = [sys.executable, str(PROCESS), self.settings(**jobs).model_dump_json(), self.database_url]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        with (self.house.folder / "worker.log").open("ab") as sink:
            process = subprocess.Popen(
                words, env={**os.environ, "PYTHONPATH": path, **(environment or {})}, stdout=sink, stderr=sink
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)

    def upload(self, **todo: Any) -> str:
        row = {
            "messages": [
                {"role": "user", "content": json.dumps(todo)},
                {"role": "assistant", "content": "ok"},
            ]
        }
        return self.sdk.files.create(file=("rows.jsonl", json.dumps(row).encode()), purpose="fine-tune").id

    def create(self, file: str | None = None, suffix: str | None = None, **todo: Any) -> FineTuningJob:
        return self.sdk.fine_tuning.jobs.create(
            model="tiny", training_file=file or self.upload(**todo), **({"suffix": suffix} if suffix else {})
        )

    def wait(self, id: str, *statuses: str, deadline_s: float = 30) -> FineTuningJob:
        def there() -> FineTuningJob | None:
            job = self.sdk.fine_tuning.jobs.retrieve(id)
            return job if job.status in statuses else None

        return wait_for(f"{id} is {statuses}", there, deadline_s)

    def messages(self, id: str) -> list[str]:
        """Oldest first."""
        return [event.message for event in self.sdk.fine_tuning.jobs.list_events(id, limit=100)][::-1]

    def wait_message(self, id: str, has: Callable[[str], bool], deadline_s: float = 30) -> None:
        wait_for("an event", lambda: any(map(has, self.messages(id))), deadline_s, every_s=0.1)


@pytest.fixture
def shop(fake_house: House, tiny_base: Path) -> Iterator[Shop]:
    with openai.OpenAI(base_url=fake_house.url + "/v1", api_key=fake_house.key, max_retries=2) as sdk:
        yield Shop(fake_house, sdk, tiny_base)
