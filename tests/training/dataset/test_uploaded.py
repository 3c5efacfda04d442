"""Rows that were uploaded over the Files API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.dataset.candidates import question
from tests.training.dataset.conftest import Build
from tests.training.dataset.servers import Asked, serving
from training.dataset.build import Means
from training.dataset.plan import DatasetError
from training.dataset.snapshot import Shelf
from training.dataset.sources.traffic import Gateway
from training.rows import chat

ROWS = "".join(json.dumps(chat(question(at), f"answer {at}")) + "\n" for at in range(40)).encode()
ID = "file-abc123"


def gateway(asked: Asked) -> tuple[int, bytes]:
    assert asked.headers["authorization"] == "Bearer k"
    if asked.path == f"/v1/files/{ID}":
        return 200, json.dumps({"id": ID, "filename": "mine.JSONL"}).encode()
    if asked.path == f"/v1/files/{ID}/content":
        return 200, ROWS
    return 404, json.dumps({"error": {"message": f"No such File object: {asked.path[10:]}"}}).encode()


def means(shelf: Shelf, url: str) -> Means:
    return Means(shelf, gateway=Gateway(url, "k"))


def source(location: str) -> dict[str, Any]:
    return {"source": [{"from": location, "licence": "own"}]}


def test_an_uploaded_file_is_a_source(make: Build, shelf: Shelf) -> None:
    with serving(gateway) as server:
        snapshot = make("support", means(shelf, server.url), **source(ID)).snapshot
    assert 40 == sum(snapshot.rows[file] for file in ("train.jsonl", "validation.jsonl"))
    (told,) = snapshot.manifest["lineage"]["sources"]
    assert (ID, 40) == (told["from"], told["rows_used"])
    assert {ID} == {origin["place"].partition(".")[0] for origin in snapshot.origins()}


def test_one_that_is_not_there_is_named(make: Build, shelf: Shelf) -> None:
    with serving(gateway) as server, pytest.raises(DatasetError, match="No such File object: file-none"):
        make("support", means(shelf, server.url), **source("file-none"))


def test_without_a_gateway_it_says_what_it_needs(make: Build) -> None:
    with pytest.raises(DatasetError, match="file-abc123 needs a running gateway"):
        make(**source(ID))


def test_a_file_of_that_name_comes_first(
    make: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file-here").mkdir()
    with pytest.raises(DatasetError, match=r"is none of \.jsonl"):
        make(**source("file-here"))
