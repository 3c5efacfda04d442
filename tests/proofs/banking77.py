"""Ten of BANKING77's 77 intents, learned from 580 rows and answered exactly, through the gateway on NF4."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.house import House
from tests.proofs.result import Result
from tests.proofs.swap import house_base
from training.banking77 import INTENTS, ROWS_PER_INTENT, intents, questions, training_rows
from training.recipe import Recipe
from training.rows import write_rows
from training.run import train
from training.score import Score, ask

NEEDS = "data"


def prove(folder: Path, base: Path, data: Path) -> Result:
    result = Result(
        "banking77",
        f"{INTENTS} of BANKING77's 77 intents (Casanueva et al., 2020), {ROWS_PER_INTENT} rows each; every "
        "test row of these intents asked through the gateway on the NF4 base. The base gets the ten intents "
        "in its prompt. No other load during training.",
    )
    names = intents(data)
    rows = folder / "rows.jsonl"
    write_rows(rows, training_rows(data, names, ROWS_PER_INTENT, seed=0))
    recipe = Recipe(epochs=2)
    trained = train(base, rows, recipe, folder / "banking", lambda step: None)
    result.figure("recipe", recipe)
    result.figure("rows / steps / final loss", f"{trained.rows} / {trained.steps} / {trained.final_loss:.3f}")
    result.figure("training, CPU seconds", f"{trained.cpu_seconds:.0f}")
    result.must("trained in < 8 min", trained.seconds < 480, f"{trained.seconds:.0f} s")
    with House(folder / "house", base) as house:
        house.add("banking", folder / "banking")
        tuned = _score(house, "banking", data, list_intents=False)
        plain = _score(house, house_base(house), data, list_intents=True)
    result.must(
        "≥ 90 % of the test rows answered exactly", tuned.share >= 0.9, f"{tuned.share:.1%} of {tuned.asked}"
    )
    result.figure("base, ten intents listed in its prompt", f"{plain.share:.1%} of {plain.asked}")
    result.figure("answers a second, adapter, concurrency 16", f"{tuned.asked / tuned.seconds:.1f}")
    return result


def _score(house: House, model: str, data: Path, list_intents: bool) -> Score:
    return asyncio.run(
        ask(
            questions(data, intents(data), list_intents),
            url=f"{house.url}/v1",
            key=house.key,
            model=model,
            max_tokens=24,
        )
    )
