"""From a request to a recipe: every value that was left out is decided by a rule, and each rule says why.

Pure: the same request, counts, base and fleet give the same recipe. The numbers are rules of thumb with their
source beside them; a value in the request always wins, and is only held against what the fleet serves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from training.recipe import unserved
from training.recipe.request import BadRecipe, Problem, Request
from training.recipe.resolved import Recipe
from training.shape import Shape

Value = TypeVar("Value")

MEASURED_RATE, MEASURED_PARAMETERS = 1e-3, 134_515_008
LARGE_RATE, LARGE_PARAMETERS = 2e-4, 7e9
STEP_TOKENS = 16_384
"""Most tokens of one step, rows padded to the longest: what a batch may grow to before it is made smaller."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts of the rows as the base's tokenizer sees them. `longest` and `typical` (95th percentile) are of
    one row; `learned` are those that the loss is over. `exact` is False where a part was estimated."""

    total: int
    learned: int
    longest: int
    typical: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the engines serve: the largest rank, and the context in tokens. `source` says who told."""

    max_rank: int
    max_tokens: int
    source: str = "the settings"


@dataclass(frozen=True, slots=True)
class Choice(Generic[Value]):
    """One value of a recipe and the rule that gave it."""

    name: str
    value: Value
    why: str


@dataclass(frozen=True, slots=True)
class Preset:
    """How far a preset goes. `epochs` unless the rows are few or many; at least `steps` optimizer steps where
    `most_epochs` allow it; `patience` in evaluations, None: no early stop."""

    says: str
    rank: int
    epochs: int
    most_epochs: int
    steps: int
    validation: float
    patience: int | None
    dropout: float


PRESETS = {
    "quick": Preset("a first look, to see whether it learns at all", 8, 1, 3, 40, 0.0, None, 0.0),
    "balanced": Preset("a good run at a fair price", 16, 3, 6, 120, 0.05, None, 0.0),
    "thorough": Preset("the best that the rows give; stops early", 32, 5, 10, 240, 0.1, 3, 0.05),
}


def resolve(request: Request, rows: int, tokens: Tokens, base: Shape, fleet: Fleet) -> Recipe:
    """The recipe that `request` means for so many rows on this base. Raises `BadRecipe`."""
    return recipe(choices(request, rows, tokens, base, fleet))


def recipe(chosen: Sequence[Choice[Any]]) -> Recipe:
    """The recipe whose every value was chosen."""
    return Recipe(**{choice.name: choice.value for choice in chosen})


def choices(
    request: Request, rows: int, tokens: Tokens, base: Shape, fleet: Fleet
) -> tuple[Choice[Any], ...]:
    """Every field of the recipe with its reason, in the order of `Recipe`.

    Raises `BadRecipe` for what the fleet cannot serve.
    """
    preset = PRESETS[request.preset]
    rank = _rank(request, preset, fleet)
    rslora = _given(request, "rslora") or _rslora(rank.value)
    share = _given(request, "validation_share") or _validation(request, preset, rows)
    kept = max(1, rows - round(rows * share.value))
    batch = _given(request, "batch_size") or _batch(kept, tokens)
    epochs = _given(request, "epochs") or _epochs(preset, kept, batch.value, request.preset)
    steps = request.max_steps or math.ceil(math.ceil(kept / batch.value) * epochs.value)
    return (
        rank,
        _given(request, "alpha") or _alpha(rank.value, rslora.value),
        _given(request, "learning_rate") or _rate(request, base, batch.value),
        epochs,
        _given(request, "max_steps") or Choice("max_steps", None, "all epochs are run"),
        batch,
        _given(request, "warmup") or Choice("warmup", 0.05, "a twentieth of the steps, before the peak"),
        _given(request, "dropout") or _dropout(preset, request.preset),
        _given(request, "max_grad_norm") or Choice("max_grad_norm", 1.0, "transformers' default"),
        _max_tokens(request, base, fleet),
        _given(request, "gradient_checkpointing") or _checkpointing(base),
        Choice("seed", request.seed, "asked for" if request.seed else "the same rows give the same adapter"),
        Choice("method", request.method, "asked for" if request.method != "sft" else "rows with answers"),
        Choice("init", request.init, "asked for" if request.init != "default" else "PEFT's own"),
        rslora,
        _given(request, "checkpoint_steps") or _checkpoints(steps),
        _given(request, "early_stop") or _early_stop(preset, share.value, request.preset),
        _given(request, "beta") or Choice("beta", 0.1, "TRL's default; dpo and kto read it"),
        Choice("rewards", request.rewards, "asked for" if request.rewards else "only grpo has any"),
        share,
    )


def _given(request: Request, name: str) -> Choice[Any] | None:
    value = getattr(request, name)
    return None if value is None else Choice(name, value, "asked for")


def _rank(request: Request, preset: Preset, fleet: Fleet) -> Choice[int]:
    if request.rank is not None:
        if why := unserved.rank(request.rank, fleet.max_rank):
            raise BadRecipe("recipe", [Problem(None, "rank", why.reason, f"nearest: {why.nearest}")])
        return Choice("rank", request.rank, "asked for")
    if preset.rank > fleet.max_rank:
        return Choice("rank", fleet.max_rank, f"{fleet.source}: this fleet serves up to {fleet.max_rank}")
    return Choice("rank", preset.rank, f"{request.preset}; 8 to 64 is usual, 16 the place to start [rules]")


def _rslora(rank: int) -> Choice[bool]:
    if rank >= 64:
        return Choice("rslora", True, "rank 64 and more learns slowly without it (Kalajdzievski, 2023)")
    return Choice("rslora", False, "of use from rank 64 on")


def _alpha(rank: int, rslora: bool) -> Choice[int]:
    if rslora:
        return Choice("alpha", max(1, round(2 * math.sqrt(rank))), "alpha / sqrt(rank) is 2")
    return Choice("alpha", 2 * rank, "alpha / rank is 2, with which the learning rate was measured")


def _rate(request: Request, base: Shape, batch: int) -> Choice[float]:
    """Log-linear in the number of parameters between what was measured (135M: 1e-3) and what is usual at 7B
    (2e-4), times sqrt(batch / 8): Adam's scaling with the batch (Malladi et al., 2022)."""
    slope = math.log(LARGE_RATE / MEASURED_RATE) / math.log(LARGE_PARAMETERS / MEASURED_PARAMETERS)
    rate = MEASURED_RATE * (base.parameters / MEASURED_PARAMETERS) ** slope
    rate = min(max(rate, 5e-5), 1.5e-3) * math.sqrt(batch / 8)
    why = f"{_count(base.parameters)} parameters (measured: 1e-3 at 135M; 2e-4 is usual at 7B)"
    if batch != 8:
        why += f", times sqrt({batch}/8) for the batch"
    if request.method != "sft":
        rate /= 20
        why += f"; a twentieth for {request.method}, which starts from what the model says already"
    return Choice("learning_rate", float(f"{rate:.2g}"), why)


def _batch(rows: int, tokens: Tokens) -> Choice[int]:
    if rows < 160:
        size, why = 4, "few rows: smaller steps, and more of them"
    elif rows < 8_000:
        size, why = 8, "measured on 580 and 2,000 rows"
    else:
        size, why = 16, "many rows: calmer steps"
    fits = max(1, STEP_TOKENS // max(1, tokens.typical))
    if fits < size:
        return Choice(
            "batch_size",
            2 ** int(math.log2(fits)),
            f"rows of {tokens.typical:,} tokens (95th percentile): {STEP_TOKENS:,} tokens a step at most",
        )
    return Choice("batch_size", size, why)


def _epochs(preset: Preset, rows: int, batch: int, name: str) -> Choice[float]:
    per_epoch = math.ceil(rows / batch)
    wanted = math.ceil(preset.steps / per_epoch)
    if rows >= 20_000 and preset.epochs > 1:
        return Choice("epochs", 1.0, "tens of thousands of rows: quality is flat after that [rules]")
    if wanted > preset.epochs:
        epochs = min(wanted, preset.most_epochs)
        why = f"{rows} rows are {per_epoch} steps a pass; {name} wants {preset.steps} steps"
        if epochs < wanted:
            why += f", and more than {epochs} passes memorise [rules]"
        return Choice("epochs", float(epochs), why)
    return Choice("epochs", float(preset.epochs), name)


def _validation(request: Request, preset: Preset, rows: int) -> Choice[float]:
    if request.early_stop is not None and not preset.validation:
        return Choice("validation_share", 0.1, "early_stop evaluates on held-out rows")
    if not preset.validation:
        return Choice("validation_share", 0.0, f"{request.preset} trains on every row")
    if rows < 200 and request.early_stop is None:
        return Choice("validation_share", 0.0, f"{rows} rows are too few to hold any out")
    share = min(preset.validation, 500 / rows)
    why = request.preset if share == preset.validation else "500 rows tell enough"
    return Choice("validation_share", round(share, 4), why)


def _early_stop(preset: Preset, share: float, name: str) -> Choice[int | None]:
    if preset.patience is None:
        return Choice("early_stop", None, f"{name} runs to its end")
    if not share:
        return Choice("early_stop", None, "no rows are held out")
    return Choice("early_stop", preset.patience, f"{name}: ends after so many evaluations without a better")


def _dropout(preset: Preset, name: str) -> Choice[float]:
    why = f"{name}: many passes" if preset.dropout else "few passes need none"
    return Choice("dropout", preset.dropout, why)


def _max_tokens(request: Request, base: Shape, fleet: Fleet) -> Choice[int]:
    most = min(base.context, fleet.max_tokens)
    limit = f"the base's context ({base.context:,})"
    if fleet.max_tokens < base.context:
        limit = f"{fleet.source}: engines serve {fleet.max_tokens:,} tokens"
    if request.max_tokens is None:
        return Choice("max_tokens", most, limit)
    if request.max_tokens > base.context:
        raise BadRecipe(
            "recipe",
            [
                Problem(
                    None,
                    "max_tokens",
                    f"max_tokens is {request.max_tokens:,}; {base.name} was trained for {base.context:,}",
                    f"at most {base.context:,}; split longer rows, or take a base with more context",
                )
            ],
        )
    return Choice("max_tokens", request.max_tokens, "asked for")


def _checkpointing(base: Shape) -> Choice[bool]:
    if base.parameters >= 1e9:
        return Choice("gradient_checkpointing", True, "a third more time for most of the activations' memory")
    return Choice("gradient_checkpointing", False, "the base is small: memory is not the limit, time is")


def _checkpoints(steps: int) -> Choice[int | None]:
    if steps < 100:
        return Choice("checkpoint_steps", None, f"{steps} steps are soon done again")
    return Choice("checkpoint_steps", max(25, math.ceil(steps / 10)), "ten of them: a kill wastes a tenth")


def _count(parameters: float) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"
