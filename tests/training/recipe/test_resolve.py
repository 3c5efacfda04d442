"""From a request to a recipe: what the rules give, and what always holds of what they give."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from training.recipe import Recipe, TrainingError
from training.recipe.request import BadRecipe, Request
from training.recipe.resolve import STEP_TOKENS, Fleet, Tokens, choices, resolve
from training.shape import Shape


def base(parameters: int = 134_515_008, context: int = 8_192) -> Shape:
    """A base of about so many parameters, all of them in one layer."""
    side = math.isqrt(parameters)
    return Shape(
        name="made-up",
        linears={"model.layers.0.mlp.up_proj": (side, side)},
        hidden=64,
        intermediate=128,
        layers=1,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocabulary=10,
        context=context,
        tied=True,
        quantization="none",
    )


SHORT = Tokens(total=60_000, learned=9_000, longest=200, typical=120)
FLEET = Fleet(max_rank=32, max_tokens=2_048)


def resolved(rows: int = 1_000, tokens: Tokens = SHORT, fleet: Fleet = FLEET, **asked: Any) -> Recipe:
    return resolve(Request(**asked), rows, tokens, base(), fleet)


def test_the_measured_run_is_what_balanced_resolves_to() -> None:
    """BANKING77: 2,002 rows on the 135M base; rank 16, 1e-3, batch 8, 3 epochs (docs/training.md)."""
    recipe = resolved(rows=2_002)
    assert (16, 32, 1e-3, 8, 3.0) == (
        recipe.rank,
        recipe.alpha,
        recipe.learning_rate,
        recipe.batch_size,
        recipe.epochs,
    )


def test_a_large_base_learns_at_a_fifth_of_the_rate() -> None:
    recipe = resolve(Request(), 2_000, SHORT, base(7_000_000_000), FLEET)
    assert 2e-4 == recipe.learning_rate


def test_the_presets_go_further_one_after_the_other() -> None:
    quick, balanced, thorough = (resolved(preset=name) for name in ("quick", "balanced", "thorough"))
    assert quick.rank < balanced.rank < thorough.rank
    assert quick.steps(1_000) < balanced.steps(1_000) < thorough.steps(1_000)


def test_a_fleet_of_a_low_rank_is_taken_at_its_word() -> None:
    assert 8 == resolved(preset="thorough", fleet=Fleet(max_rank=8, max_tokens=2_048)).rank


def test_a_rank_above_the_fleets_is_refused_with_what_works() -> None:
    with pytest.raises(BadRecipe, match=r"rank is 64; this fleet serves up to 32.*nearest: rank = 32 with"):
        resolved(rank=64)


def test_more_tokens_than_the_base_knows_are_refused() -> None:
    with pytest.raises(BadRecipe, match=r"max_tokens is 10,000; made-up was trained for 8,192"):
        resolved(max_tokens=10_000)


def test_few_rows_are_passed_more_often_but_not_without_end() -> None:
    assert (3.0, 6.0) == (resolved(rows=2_000).epochs, resolved(rows=40).epochs)


def test_long_rows_make_smaller_batches() -> None:
    long = Tokens(total=10**7, learned=10**6, longest=8_000, typical=6_000)
    assert 2 == resolved(tokens=long).batch_size


def test_what_was_asked_for_wins_and_is_said_to() -> None:
    asked = {"rank": 8, "epochs": 2.0, "batch_size": 3, "learning_rate": 5e-4, "validation_share": 0.0}
    chosen = {each.name: each for each in choices(Request(**asked), 1_000, SHORT, base(), FLEET)}
    assert asked == {name: chosen[name].value for name in asked}
    assert {"asked for"} == {chosen[name].why for name in asked}


def test_every_value_has_its_reason() -> None:
    chosen = choices(Request(), 1_000, SHORT, base(), FLEET)
    assert set(Recipe.__dataclass_fields__) == {each.name for each in chosen}
    assert [] == [each.name for each in chosen if not each.why]


def test_a_rank_of_64_is_scaled_by_its_root() -> None:
    recipe = resolved(rank=64, fleet=Fleet(max_rank=64, max_tokens=2_048))
    assert (True, 16) == (recipe.rslora, recipe.alpha)


def test_preferences_are_learned_at_a_twentieth_of_the_rate() -> None:
    assert 20 == round(resolved().learning_rate / resolved(method="dpo").learning_rate)


def test_an_early_stop_holds_rows_out() -> None:
    assert 0.1 == resolved(rows=100, preset="quick", early_stop=2).validation_share


@given(
    rows=some.integers(1, 200_000),
    longest=some.integers(4, 8_000),
    preset=some.sampled_from(["quick", "balanced", "thorough"]),
    rank=some.sampled_from([1, 8, 16, 32, 64, 128, 512]),
    parameters=some.integers(10**6, 10**11),
)
def test_any_rows_on_any_base_resolve_to_a_recipe_that_the_fleet_serves(
    rows: int, longest: int, preset: str, rank: int, parameters: int
) -> None:
    tokens = Tokens(total=rows * longest, learned=rows, longest=longest, typical=longest)
    fleet = Fleet(max_rank=rank, max_tokens=8_192)
    request = Request.model_validate({"preset": preset})
    recipe = resolve(request, rows, tokens, base(parameters), fleet)
    assert recipe.rank <= rank
    assert recipe.batch_size == 1 or recipe.batch_size * longest <= STEP_TOKENS
    assert recipe.epochs <= 10
    assert recipe == resolve(request, rows, tokens, base(parameters), fleet)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"method": "ppo"}, "method is 'ppo'; known are sft, dpo, kto, grpo"),
        ({"init": "pissa"}, "init is 'pissa'; known are default, eva"),
        ({"method": "grpo"}, "name at least one in `rewards`"),
        ({"rewards": ("exact",)}, "`rewards` are grpo's"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"validation_share": 1.0}, "validation_share is 1.0"),
        ({"checkpoint_steps": 0}, "checkpoint_steps is 0"),
    ],
)
def test_an_impossible_recipe_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        Recipe(**values)


def test_the_record_is_what_json_gives_back() -> None:
    import json

    record = Recipe(method="grpo", rewards=("exact",)).record()
    assert record == json.loads(json.dumps(record))
