"""The part of `hotswap demo` that closes the loop: traffic, corrections, a dataset, an adapter, its proof."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gateway.cli.client import Gateway, fail, say

if TYPE_CHECKING:
    from training.tasks import Task

EXCHANGES = 300
AT_ONCE = 16
MAX_TOKENS = 32


def learn_from_traffic(
    gateway: Gateway, base: str, task: Task, run: Callable[..., None], step: Callable[[str], None]
) -> None:
    """Ask the base what an app would, correct it as people would, and let the rest run by itself.

    `run` calls a verb of the command line and ends the demo when that fails.
    """
    from training.recipe import TrainingError

    step(f"{EXCHANGES} exchanges with {base}, as an app would have them ({task.title})")
    rows = task.rows[:EXCHANGES]
    try:
        ids = asyncio.run(_ask(gateway, base, [row["messages"][0]["content"] for row in rows]))
        step("each gets a correction, as from a person who reads the answers")
        asyncio.run(_correct(gateway, ids, [row["messages"][1]["content"] for row in rows]))
    except TrainingError as error:
        fail(str(error))
    step("a dataset of what was corrected: frozen, named by its content, split so that nothing leaks")
    run("datasets", "build", task.name, "--from", f"traffic://{base}?since=1h&feedback=corrected")
    step(f"an adapter, {task.name}; then the gates: is it better, and is the served one the trained one?")
    recipe = task.recipe
    run(
        *("train", task.name, "--data", task.name, "--recipe", "quick", "--promote", "--no-trial"),
        *("--epochs", str(recipe.epochs), "--learning-rate", str(recipe.learning_rate)),
        *("--rank", str(recipe.rank), "--batch-size", str(recipe.batch_size)),
    )


async def _ask(gateway: Gateway, model: str, prompts: Sequence[str]) -> list[str]:
    """The ids of the answers."""
    from training.ask import ask_all

    def tell(done: int, total: int) -> None:
        if done % 100 == 0:
            say(f"  {done} of {total} answered")

    answers = await ask_all(
        [[{"role": "user", "content": prompt}] for prompt in prompts],
        url=f"{gateway.url}/v1",
        key=gateway.key,
        model=model,
        concurrency=AT_ONCE,
        max_tokens=MAX_TOKENS,
        progress=tell,
    )
    return [answer.id for answer in answers]


async def _correct(gateway: Gateway, ids: Sequence[str], right: Sequence[str]) -> None:
    import httpx

    gate = asyncio.Semaphore(AT_ONCE)
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30) as http:

        async def correct(id: str, text: str) -> None:
            async with gate:
                said = await http.post("/v1/feedback", json={"id": id, "correction": text})
            if said.status_code != 200:
                fail(f"a correction was refused with {said.status_code}: {said.text[:200]}")

        await asyncio.gather(*(correct(id, text) for id, text in zip(ids, right, strict=True)))
