"""Steps of a run: from what the trainer tells, and as the table that a job leaves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.jobs.house import lines_of
from gateway.jobs.progress import Step

COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def step_of(event: Mapping[str, Any]) -> Step:
    return Step(
        step=int(event["step"]),
        total=int(event["total"]),
        loss=float(event["loss"]),
        eta_s=float(event.get("eta_s", 0.0)),
        accuracy=event.get("accuracy"),
        valid_loss=event.get("valid_loss"),
        valid_accuracy=event.get("valid_accuracy"),
    )


def table_of(steps: Path) -> bytes:
    """A CSV with OpenAI's columns, of a file with a step a line; of one that was made twice, the last."""
    found = {row["step"]: row for row in map(json.loads, lines_of(steps))}
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    names = ("step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy")
    for step in sorted(found):
        out.writerow(["" if (value := found[step].get(name)) is None else value for name in names])
    return text.getvalue().encode()
