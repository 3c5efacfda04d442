"""A plan learns from corrections by itself, on a real engine: from the last correction to the proposal."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from gateway.settings import Settings
from tests.house import House, wait_for
from tests.proofs.result import Result
from tests.proofs.traffic import client
from training.recipe import Recipe
from training.tasks import support

ROWS = 300
AT_ONCE = 16
LIMIT_S = 1500.0


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    task = support()
    result = Result(
        "retraining",
        f"{ROWS} exchanges with the base ({task.title}) before vLLM, NF4. A plan is made (`hotswap retrain "
        f"set {task.name} --corrections {ROWS}`), then each exchange is corrected over /v1/feedback, and "
        "nobody does anything more: dataset, training, registration and gates are the gateway's and its "
        "worker's.",
    )
    name = Settings().base.name
    more = {"HOTSWAP_JOBS__WORKERS": "1", "HOTSWAP_JOBS__RETRAIN_EVERY_S": "2"}
    with House(folder / "house", base, more) as house:
        rate = task.recipe.learning_rate / Recipe().learning_rate
        house.cli(
            *("retrain", "set", task.name, "--from", name, "--corrections", str(ROWS)),
            *("--epochs", str(round(task.recipe.epochs)), "--batch-size", str(task.recipe.batch_size)),
            *("--learning-rate-multiplier", str(rate)),
        )
        rows = [row["messages"] for row in task.rows[:ROWS]]
        asyncio.run(_talk(house, name, rows))
        began = time.monotonic()
        wait_for("it has ended", lambda: _plan(house)["result"], LIMIT_S, every_s=5)
        took = time.monotonic() - began
        plan = _plan(house)
        made = plan["proposed"] or f"{task.name}@v1"
        card = json.loads(house.cli("adapters", "card", made, "--json").stdout)
        for found in card["findings"]:
            result.figure(f"gate {found['gate']}", f"{found['measured']} ({found['bound']})")
        proposed = "all gates are passed, and the version is proposed"
        result.must(proposed, plan["proposed"] is not None, plan["result"])
        result.must("no job but one", _jobs(house) == 1, f"{_jobs(house)} jobs")
        result.figure("from the last correction to the proposal", f"{took:.0f} s")
    return result


async def _talk(house: House, model: str, rows: list[Any]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    async with client(house.url, house.key) as http:

        async def one(question: str, right: str) -> None:
            async with gate:
                messages = [{"role": "user", "content": question}]
                asked = {"model": model, "messages": messages, "max_tokens": 32}
                id = (await http.post("/v1/chat/completions", json=asked)).json()["id"]
            for _ in range(50):  # it is remembered a moment after its end
                said = await http.post("/v1/feedback", json={"id": id, "correction": right})
                if said.status_code != 404:
                    break
                await asyncio.sleep(0.2)
            said.raise_for_status()

        await asyncio.gather(*(one(each[0]["content"], each[1]["content"]) for each in rows))


def _plan(house: House) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(house.cli("retrain", "ls", "--json").stdout)[0]
    return found


def _jobs(house: House) -> int:
    return len(json.loads(house.cli("jobs", "ls", "--json").stdout))
