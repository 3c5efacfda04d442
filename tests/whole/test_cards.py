"""What may take traffic: report cards over the command line and the admin API, before a fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import TINY
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.peft_folder import random_adapter


@pytest.fixture(scope="module")
def house(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("cards")
    with Fake() as fake, House(folder, tiny_base, before([fake])) as running:
        wait_for("it serves", lambda: ["serving"] == [each["status"] for each in running.fleet()])
        yield running


@pytest.fixture
def version(house: House, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The second version of a name of its own: the first is stable."""
    name = f"card-{abs(hash(request.node.name)) % 10**6}"
    house.add(name, random_adapter(tmp_path / "one", TINY, seed=1))
    return house.add(name, random_adapter(tmp_path / "two", TINY, seed=2))


def card(version: dict[str, Any], passed: bool, **more: Any) -> dict[str, Any]:
    finding = {"gate": "parity", "passed": passed, "measured": "0.03 nats", "bound": "<= 2 x the base's"}
    return {"version": version["name"], "passed": passed, "findings": [finding], **more}


def put(house: House, version: dict[str, Any], body: dict[str, Any]) -> httpx.Response:
    url = f"{house.url}/admin/v1/adapters/{version['name']}/card"
    return httpx.put(url, json=body, headers=house.headers, timeout=30)


def stable(house: House, version: dict[str, Any]) -> str:
    url = f"{house.url}/admin/v1/adapters/{version['adapter']}"
    listed = httpx.get(url, headers=house.headers).json()["versions"]
    return str(next(each["name"] for each in listed if each["state"] == "stable"))


def test_a_version_without_a_card_is_not_promoted_and_the_message_says_how(
    house: House, version: dict[str, Any]
) -> None:
    refused = house.cli("adapters", "promote", version["name"])
    assert (1, True, True) == (
        refused.returncode,
        "it has no report card" in refused.stderr,
        "hotswap adapters prove" in refused.stderr,
    )
    assert stable(house, version) != version["name"]


def test_a_version_whose_card_is_not_passed_is_not_promoted(house: House, version: dict[str, Any]) -> None:
    assert 200 == put(house, version, card(version, passed=False)).status_code
    refused = house.cli("adapters", "promote", version["name"])
    assert (1, True) == (refused.returncode, "its report card is not passed" in refused.stderr)


def test_a_passed_card_opens_the_way(house: House, version: dict[str, Any]) -> None:
    assert True is put(house, version, card(version, passed=True)).json()["proved"]
    assert 0 == house.cli("adapters", "promote", version["name"]).returncode
    assert version["name"] == stable(house, version)


def test_force_goes_without(house: House, version: dict[str, Any]) -> None:
    assert 0 == house.cli("adapters", "promote", version["name"], "--force").returncode
    assert version["name"] == stable(house, version)


def test_a_card_is_shown_as_it_was_kept(house: House, version: dict[str, Any]) -> None:
    put(house, version, card(version, passed=False))
    put(house, version, card(version, passed=True))
    told = house.cli("adapters", "card", version["name"])
    assert 0 == told.returncode, told.stderr
    assert [f"{version['name']}: passed", "parity"] == [
        told.stdout.splitlines()[0],
        told.stdout.splitlines()[2].split()[1],
    ]


def test_a_version_has_no_card_until_it_got_one(house: House, version: dict[str, Any]) -> None:
    told = house.cli("adapters", "card", version["name"])
    assert (1, True) == (told.returncode, "has no report card" in told.stderr)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"passed": False}, "passed"),
        ({"version": "other@3f9c2ab71e04"}, "version"),
        ({"findings": []}, "findings"),
        ({"mood": "good"}, "mood"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(
    change: dict[str, Any], param: str, house: House, version: dict[str, Any]
) -> None:
    refused = put(house, version, card(version, passed=True) | change)
    assert (400, param) == (refused.status_code, refused.json()["error"]["param"])
