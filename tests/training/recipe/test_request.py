"""A recipe as a person writes it: files, presets, flags, and what is refused by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.loraconfig import VARIANTS
from training.recipe import unserved
from training.recipe.request import BadRecipe, Request, load


def write(folder: Path, text: str) -> str:
    (folder / "recipe.toml").write_text(text)
    return str(folder / "recipe.toml")


def test_a_preset_is_a_recipe() -> None:
    assert Request(preset="thorough") == load("thorough")


def test_without_a_recipe_the_preset_is_balanced() -> None:
    assert Request() == load(None)


def test_a_file_is_read_and_flags_win_over_it(tmp_path: Path) -> None:
    file = write(tmp_path, 'preset = "quick"\nrank = 8\nepochs = 2\n')
    assert Request(preset="quick", rank=8, epochs=5) == load(file, {"epochs": 5, "seed": None})


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("lerning_rate", "learning_rate"),
        ("lora_r", "rank"),
        ("lr", "learning_rate"),
        ("num_train_epochs", "epochs"),
        ("per_device_train_batch_size", "batch_size"),
        ("batch-size", "batch_size"),
        ("use_rslora", "rslora"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(key: str, near: str, tmp_path: Path) -> None:
    with pytest.raises(
        BadRecipe, match=rf"recipe.toml:2: '{key}' is no key of a recipe; did you mean '{near}'"
    ):
        load(write(tmp_path, f"\n{key} = 1\n"))


def test_every_problem_of_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe) as refused:
        load(write(tmp_path, "rank = 0\nnonsense = 1\nuse_dora = true\n"))
    assert [1, 2, 3] == sorted(problem.line or 0 for problem in refused.value.problems)


def test_a_value_of_another_kind_is_refused_with_what_it_is_for(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"recipe.toml:1: epochs = 'many': .*it is passes over the rows"):
        load(write(tmp_path, 'epochs = "many"\n'))


def test_a_flag_has_no_line(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"recipe.toml: rank = -1"):
        load(write(tmp_path, "rank = 8\n"), {"rank": -1})


def test_a_preset_with_a_slip_is_guessed() -> None:
    with pytest.raises(BadRecipe, match=r"balancd: is no preset and no file .*did you mean balanced"):
        load("balancd")


def test_a_file_that_is_no_toml_is_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"recipe.toml:3: is not TOML"):
        load(write(tmp_path, "rank = 8\n\nepochs 3\n"))


def test_a_file_of_another_encoding_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"rank = 8\n# caf\xe9\n")
    with pytest.raises(BadRecipe, match=r"recipe.toml:2: is not UTF-8"):
        load(str(tmp_path / "recipe.toml"))


@pytest.mark.parametrize("key", sorted(VARIANTS))
def test_whatever_the_registry_refuses_a_recipe_is_refused_too(key: str) -> None:
    why = unserved.objection(key, True)
    assert why is not None and why.nearest, key


@pytest.mark.parametrize("init", ["pissa", "olora", "corda", "loftq", "lora_ga"])
def test_an_init_that_moves_the_base_is_refused_with_eva_as_the_nearest(init: str) -> None:
    with pytest.raises(BadRecipe, match=r"changes the base's weights.*init = \"eva\""):
        load("quick", {"init": init})


@pytest.mark.parametrize("init", ["default", "eva"])
def test_an_init_that_moves_the_adapter_alone_is_taken(init: str) -> None:
    assert init == load("quick", {"init": init}).init


@pytest.mark.parametrize("modules", [["lm_head"], ["q_proj"], "embed_tokens"])
def test_other_layers_than_all_linear_ones_are_refused(modules: object) -> None:
    with pytest.raises(BadRecipe, match="all-linear"):
        load("quick", {"modules": modules})


@pytest.mark.parametrize("value", [False, [], "", "none"])
def test_what_is_switched_off_is_no_reason_to_refuse_as_unserved(value: object) -> None:
    assert unserved.objection("bias", value) is None


def test_every_key_of_a_request_says_what_it_is() -> None:
    assert [] == [name for name, field in Request.model_fields.items() if not field.description]
