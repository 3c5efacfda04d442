"""From traffic to a dataset, and forgetting that reaches it, as users do it: before a fake engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import TINY
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.peft_folder import random_adapter

SETTINGS = {
    "HOTSWAP_TRAFFIC__SEGMENT_AGE_S": "0.2",
    "HOTSWAP_TRAFFIC__SHIP_EVERY_S": "0.2",
    "HOTSWAP_TRAFFIC__CONSENT": "terms of 2026",
}
PEOPLE = ("alice", "bob", "carol", "dave", "erin", "frank")


@pytest.fixture(scope="module")
def house(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("datasets")
    with Fake() as fake, House(folder, tiny_base, before([fake], **SETTINGS)) as running:
        wait_for("it serves", lambda: ["serving"] == [each["status"] for each in running.fleet()])
        running.add("support", random_adapter(folder / "support", TINY, seed=1), promote=True)
        yield running


@pytest.fixture(scope="module")
def asked(house: House) -> dict[str, str]:
    """Who -> the id of the answer. Each asked once, and everybody but the last got a correction."""
    found = {}
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as sdk:
        for number, who in enumerate(PEOPLE):
            question = f"{who} wants to know about {'abcdefghijklm'[number] * 12} and nothing else"
            answer = sdk.chat.completions.create(
                model="support", messages=[{"role": "user", "content": question}], user=who
            )
            found[who] = answer.id
    for who, id in list(found.items())[:-1]:
        wait_for(f"{who}'s answer is remembered", lambda id=id: shown(house, id), 20)  # type: ignore[misc]
        said = {"id": id, "correction": f"This is right for {who}."}
        answered = httpx.post(f"{house.url}/v1/feedback", json=said, headers=house.headers)
        assert answered.status_code == 200, answered.text
    return found


def shown(house: House, id: str) -> bool:
    return house.cli("traffic", "show", id).returncode == 0


def told(house: House, *words: str) -> Any:
    done = house.cli(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def built(house: House, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = told(
        house, "datasets", "build", "support", "--from", "traffic://support?since=1h", *more
    )
    return found


def files(house: House, reference: str) -> str:
    folder = house.state / "datasets" / reference.replace("@", "/")
    return "".join(file.read_text() for file in sorted(folder.iterdir()))


def test_corrections_become_rows_pairs_and_thumbs_and_nobody_is_named(
    house: House, asked: dict[str, str]
) -> None:
    dataset = built(house)
    counts = {name: about["rows"] for name, about in dataset["files"].items()}
    # A tenth of six is one row: the newest, which nobody corrected.
    assert {"corrected": 5, "own": 1} == dataset["kinds"] and dataset["registered"]
    assert (5, 1, 5, 10) == tuple(
        counts[name] for name in ("train.jsonl", "validation.jsonl", "preferences.jsonl", "thumbs.jsonl")
    )
    (source,) = dataset["lineage"]["sources"]
    assert ("traffic://support", {"terms of 2026": 6}, "none") == (
        source["from"],
        source["consent"],
        source["filters"]["error"],
    )
    origins = [
        json.loads(line) for line in (folder(house, dataset) / "origins.jsonl").read_text().splitlines()
    ]
    assert {id.removeprefix("chatcmpl-") for id in asked.values()} == {
        id for each in origins for id in each["ids"]
    }
    assert all(each["unit"].startswith("h:") for each in origins)


def folder(house: House, dataset: dict[str, Any]) -> Path:
    return house.state / "datasets" / str(dataset["reference"]).replace("@", "/")


def test_feedback_and_a_unit_choose_what_is_exported(house: House, asked: dict[str, str]) -> None:
    found = told(house, "datasets", "build", "bob", "--from", "traffic://support?unit=bob&feedback=corrected")
    assert 1 == found["rows_read"]


def test_what_is_forgotten_is_found_in_datasets_and_versions_and_scrubbed(
    house: House, asked: dict[str, str], tmp_path: Path
) -> None:
    dataset = built(house)
    reference = dataset["reference"]
    adapter = random_adapter(tmp_path / "learned", TINY, seed=2)
    claims = {"lineage": {"dataset": reference, "dataset_digest": dataset["digest"]}}
    (adapter / "hotswap.json").write_text(json.dumps(claims))
    version = house.add("support", adapter)

    assert "alice" in files(house, reference)
    wish = told(house, "traffic", "forget", "--unit", "alice")
    (mine,) = (each for each in told(house, "traffic", "forgotten") if each["id"] == wish["id"])
    held = {"name": reference, "exchanges": 1, "scrubbed": False}
    assert held in mine["datasets"] and [version["name"]] == mine["versions"]
    assert "next: hotswap datasets scrub" in house.cli("traffic", "forgotten").stderr

    refused = house.cli("train", "support", "--data", reference)
    assert (1, True) == (refused.returncode, "rows that were forgotten since" in refused.stderr)

    # A row to learn, a pair, and two thumbs came from that one exchange.
    assert {"dataset": reference, "rows": 4, "scrubbed": 4} in told(house, "datasets", "scrub")
    assert "alice" not in files(house, reference)
    (mine,) = (each for each in told(house, "traffic", "forgotten") if each["id"] == wish["id"])
    assert {**held, "scrubbed": True} in mine["datasets"]
    assert "4 rows were forgotten" in house.cli("datasets", "show", reference).stdout
    (known,) = (
        each
        for each in httpx.get(f"{house.url}/admin/v1/datasets", headers=house.headers).json()["data"]
        if each["reference"] == reference
    )
    assert (1, 0, 4, [version["name"]]) == tuple(
        known[name] for name in ("forgotten", "not_scrubbed", "scrubbed_rows", "versions")
    )


def test_what_was_forgotten_is_in_no_dataset_that_is_built_after(house: House, asked: dict[str, str]) -> None:
    assert house.cli("traffic", "forget", "--unit", "carol").returncode == 0
    assert "carol" not in files(house, built(house)["reference"])
