"""What a worker has done around a job that nobody asked for by hand: its dataset before, its proof after.

Who starts such jobs is `gateway.retraining`. The gateway's address comes with the spec, its key in the
environment variable `KEY`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.base.manifest import BaseManifest
from training.recipe import TrainingError
from training.rows import read_rows

if TYPE_CHECKING:
    from training.spec import Spec

KEY = "HOTSWAP_TRAINER_KEY"

Say = Callable[[str], None]


def build(spec: Spec, say: Say) -> dict[str, Any]:
    """A frozen dataset of traffic, told to the gateway, so that forgetting reaches it; its rows are put where
    the spec has rows and validation. What of it goes into the adapter's lineage, and how many rows.

    `spec.build` has `name`, `source` (traffic://...), `shelf` (the folder of datasets), `accept` (licences)
    and `url`. Raises `TrainingError`.
    """
    from training.dataset.build import Means
    from training.dataset.build import build as run
    from training.dataset.plan import plan_of
    from training.dataset.registration import register
    from training.dataset.snapshot import TRAIN, VALIDATION, Shelf
    from training.dataset.sources.traffic import Gateway

    asked = spec.build or {}
    gateway = Gateway(asked["url"], _key())
    table = {"source": [{"from": asked["source"]}], "licences": {"accept": asked["accept"]}}
    plan = plan_of(table, asked["source"])
    base = (spec.base, BaseManifest.read(spec.base).licence)
    snapshot = run(asked["name"], plan, Means(Shelf(Path(asked["shelf"])), gateway, base, say=say)).snapshot
    register(snapshot, gateway)
    assert spec.validation is not None  # a spec that builds names a place for them
    for name, file in ((VALIDATION, spec.validation), (TRAIN, spec.rows)):
        shutil.copyfile(snapshot.file(name), file)
    return {
        "lineage": {"dataset": snapshot.reference, "dataset_digest": snapshot.digest},
        "rows": snapshot.rows[TRAIN],
        "held_out": snapshot.rows[VALIDATION],
    }


def prove(spec: Spec, say: Say) -> dict[str, Any]:
    """The report card of a version, as it is stored. The rows were learned from, the validation was not.

    `spec.prove` has `version`, `folder` (its files), `stable` (what it would replace), `claimed` (the base's
    fingerprint in its lineage) and `url`. Raises `TrainingError`.
    """
    from training.proving import Candidate
    from training.proving import prove as run

    asked = spec.prove or {}
    if spec.validation is None:
        raise TrainingError("there are no held-out rows to judge by")
    candidate = Candidate(
        version=asked["version"],
        folder=Path(asked["folder"]),
        stable=asked["stable"],
        learned=read_rows(spec.rows),
        held_out=read_rows(spec.validation),
    )
    card = run(candidate, spec.base, f"{asked['url']}/v1", _key(), claimed=asked["claimed"], say=say)
    return asyncio.run(card).record()


def _key() -> str:
    try:
        return os.environ[KEY]
    except KeyError:
        raise TrainingError(f"the gateway's key is not in {KEY}") from None
