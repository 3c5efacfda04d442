"""A plan starts jobs by itself; what they make is proposed when all gates are passed, and only then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.jobs.conftest import Shop


@contextmanager
def opened(folder: Path, tiny_base: Path) -> Iterator[Shop]:
    """A house that looks at its plans five times a second."""
    with Fake(model="tiny") as fake:
        settings = before([fake], HOTSWAP_JOBS__WORKERS="0", HOTSWAP_JOBS__RETRAIN_EVERY_S="0.2")
        with (
            House(folder, tiny_base, settings) as house,
            openai.OpenAI(base_url=house.url + "/v1", api_key=house.key, max_retries=2) as sdk,
        ):
            yield Shop(house, sdk, tiny_base)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Shop]:
    """With a worker."""
    with opened(tmp_path_factory.mktemp("shop") / "house", tiny_base) as shop, shop.worker():
        wait_for("a worker was seen", lambda: _has_worker(shop))
        yield shop


@pytest.fixture
def shop(house: Shop) -> Iterator[Shop]:
    """Without plans."""
    yield house
    for plan in json.loads(house.house.cli("retrain", "ls", "--json").stdout):
        house.house.cli("retrain", "rm", plan["adapter"])


def correct(shop: Shop, count: int) -> None:
    for number in range(count):
        answer = shop.sdk.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": f"question {number}"}], max_tokens=4
        )
        said = {"id": answer.id, "correction": f"answer {number}"}
        given = httpx.post(f"{shop.house.url}/v1/feedback", json=said, headers=shop.house.headers)
        given.raise_for_status()


def plan_of(shop: Shop) -> dict[str, Any]:
    listed = json.loads(shop.house.cli("retrain", "ls", "--json").stdout)
    assert len(listed) == 1
    found: dict[str, Any] = listed[0]
    return found


def wait_result(shop: Shop, has: str) -> dict[str, Any]:
    wait_for(has, lambda: has in plan_of(shop)["result"], 30, every_s=0.5)
    return plan_of(shop)


def versions(shop: Shop, adapter: str) -> list[dict[str, Any]]:
    url = f"{shop.house.url}/admin/v1/adapters/{adapter}"
    found: list[dict[str, Any]] = httpx.get(url, headers=shop.house.headers).json()["versions"]
    return found


def test_enough_corrections_start_a_job_whose_version_is_proposed(shop: Shop) -> None:
    made = shop.house.cli("retrain", "set", "good", "--from", "tiny", "--corrections", "3")
    assert (0, True) == (made.returncode, "3 corrections" in made.stdout), made.stderr
    correct(shop, 2)
    assert plan_of(shop)["since_last"] == {"corrected": 2, "judged": 0, "liked": 0}
    assert plan_of(shop)["job"] is None
    correct(shop, 1)
    plan = wait_result(shop, "passed all gates")
    (version,) = (each for each in versions(shop, "good") if each["proved"])
    assert plan["proposed"] == version["name"]
    told = shop.messages(plan["job"])
    assert told[0] == f"Created fine-tuning job: {plan['job']}, for 3 corrections since the last one"
    assert "Rows of the dataset good@0123456789ab: 1, and 1 held out" in told
    assert told[-3] == "All gates are passed"
    assert plan_of(shop)["since_last"]["corrected"] == 0
    assert f"hotswap adapters promote {version['name']}" in shop.house.cli("retrain", "ls").stdout


def test_what_fails_a_gate_is_not_proposed(shop: Shop) -> None:
    shop.house.cli("retrain", "set", "bad", "--from", "tiny", "--corrections", "1")
    correct(shop, 1)
    plan = wait_result(shop, "did not pass task gain")
    assert plan["proposed"] is None
    assert not any(each["proved"] for each in versions(shop, "bad"))
    assert shop.messages(plan["job"])[-3] == "Gates not passed: task gain"


def test_a_plan_that_is_wished_now_runs_and_one_that_is_removed_does_not(shop: Shop) -> None:
    shop.house.cli("retrain", "set", "other", "--from", "tiny", "--every", "4w")
    job = json.loads(shop.house.cli("retrain", "now", "other", "--json").stdout)["id"]
    shop.wait(job, "succeeded")
    assert wait_result(shop, "passed all gates")["job"] == job
    assert 0 == shop.house.cli("retrain", "rm", "other").returncode
    assert [] == json.loads(shop.house.cli("retrain", "ls", "--json").stdout)
    gone = shop.house.cli("retrain", "now", "other")
    assert (1, True) == (gone.returncode, "hotswap retrain set other" in gone.stderr)


def test_while_a_job_of_it_runs_no_other_starts(shop: Shop) -> None:
    shop.house.cli("retrain", "set", "slow", "--from", "tiny", "--every", "4w")
    job = json.loads(shop.house.cli("retrain", "now", "slow", "--json").stdout)["id"]
    refused = shop.house.cli("retrain", "now", "slow")
    assert (1, True) == (refused.returncode, f"hotswap jobs cancel {job}" in refused.stderr)
    assert 0 == shop.house.cli("jobs", "cancel", job).returncode
    again = shop.house.cli("retrain", "now", "slow", "--json")
    assert (0, True) == (again.returncode, json.loads(again.stdout)["id"] != job)
    shop.house.cli("jobs", "cancel", json.loads(again.stdout)["id"])


def test_without_a_worker_it_says_why_nothing_starts(tmp_path: Path, tiny_base: Path) -> None:
    with opened(tmp_path / "house", tiny_base) as shop:
        shop.house.cli("retrain", "set", "good", "--from", "tiny", "--corrections", "1")
        correct(shop, 1)
        wait_for("a reason", lambda: "No worker has ever been here" in (plan_of(shop)["problem"] or ""), 20)
        assert "could not start" in shop.house.cli("retrain", "ls").stdout


def test_a_plan_that_cannot_be_is_refused(shop: Shop) -> None:
    for words, problem in (
        (("good",), "say when"),
        (("good", "--every", "soon"), "--every: 'soon' is no age; write 30m, 12h, 7d or 4w"),
        (("good", "--drift", "1.5"), "drift"),
        (("good", "--corrections", "0"), "corrections"),
        (("No Name!", "--corrections", "5"), "name"),
    ):
        refused = shop.house.cli("retrain", "set", *words)
        assert refused.returncode in (1, 2), words
        assert problem in refused.stderr, words
    assert [] == json.loads(shop.house.cli("retrain", "ls", "--json").stdout)


def _has_worker(shop: Shop) -> bool:
    try:
        job = shop.create()
    except openai.InternalServerError:
        return False
    shop.wait(job.id, "succeeded")
    return True
