"""Memory by formula, time from what was measured, money from a table that a person may edit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.training import light_base
from training.preflight import memory, prices
from training.preflight.duration import estimate, spoken
from training.preflight.machine import Machine, Speed, read_speeds, write_speed
from training.preflight.memory import Batch
from training.preflight.prices import Prices
from training.recipe import Recipe, TrainingError
from training.recipe.resolve import Tokens
from training.shape import Shape

TOKENS = Tokens(total=100_000, learned=20_000, longest=200, typical=150)


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Shape:
    return Shape.read(light_base.write(tmp_path_factory.mktemp("light") / "base"))


def test_a_weight_in_nf4_takes_what_the_paper_says() -> None:
    """4.127 bits (Dettmers et al., 2023, double quantization)."""
    assert 4.127 == pytest.approx(8 * memory.NF4, abs=0.001)


def test_the_sizes_of_the_default_base_are_its_own(base_folder: Path) -> None:
    base = Shape.read(base_folder)
    assert (134_479_872, 4_884_480) == (base.parameters, base.lora_parameters(16))


@given(rows=some.integers(1, 64), tokens=some.integers(1, 4_096), rank=some.integers(1, 128))
def test_more_of_anything_never_takes_less_memory(shape: Shape, rows: int, tokens: int, rank: int) -> None:
    def peak(rows: int, tokens: int, rank: int) -> int:
        return memory.estimate(shape, Recipe(rank=rank), Batch(rows, tokens, rows * tokens // 2)).peak

    least = peak(rows, tokens, rank)
    assert least <= min(
        peak(rows + 1, tokens, rank), peak(rows, tokens + 1, rank), peak(rows, tokens, rank + 1)
    )


def test_activations_that_are_computed_twice_take_less(shape: Shape) -> None:
    plain, twice = (
        memory.estimate(shape, Recipe(gradient_checkpointing=on), Batch(8, 4_096, 100)).peak
        for on in (False, True)
    )
    assert twice < plain


def test_the_largest_batch_is_the_longest_rows_padded(shape: Shape) -> None:
    assert Batch(2, 90, 15) == Batch.of([(10, 8), (90, 7), (50, 5)], 2)


def test_what_does_not_fit_is_an_error_with_a_way_out(shape: Shape) -> None:
    wanted = memory.estimate(shape, Recipe(), Batch(8, 512, 100))
    (found,) = memory.look(wanted, wanted.peak // 2)
    assert ("error", True) == (found.severity, "smaller batch_size" in found.fix)


def test_what_fits_barely_is_a_warning(shape: Shape) -> None:
    wanted = memory.estimate(shape, Recipe(), Batch(8, 512, 100))
    (found,) = memory.look(wanted, round(wanted.peak * 1.05))
    assert "warning" == found.severity


def test_what_fits_is_not_talked_about(shape: Shape) -> None:
    wanted = memory.estimate(shape, Recipe(), Batch(8, 512, 100))
    assert [] == list(memory.look(wanted, wanted.peak * 2))


def test_a_measured_speed_of_the_base_is_believed(shape: Shape) -> None:
    here = Machine(None, "cpu", (Speed("small", shape.parameters, "cpu", 460.0, "2026-11-30"),))
    found = estimate(shape, Recipe(epochs=1), TOKENS, 1_000, here, Prices())
    assert (True, 2.0) == (found.measured, pytest.approx(found.step_s, abs=0.01))


def test_another_bases_speed_is_scaled_by_its_size(shape: Shape) -> None:
    here = Machine(None, "cpu", (Speed("other", 2 * shape.parameters, "cpu", 230.0, "2026-11-30"),))
    found = estimate(shape, Recipe(epochs=1), TOKENS, 1_000, here, Prices())
    assert (False, 2.0) == (found.measured, pytest.approx(found.step_s, abs=0.01))


def test_without_any_measurement_the_estimate_says_that_it_is_a_guess(shape: Shape) -> None:
    found = estimate(shape, Recipe(), TOKENS, 1_000, Machine(None), Prices())
    assert (False, True) == (found.measured, "guessed" in found.summary)


def test_the_default_table_has_the_five_hosts(shape: Shape) -> None:
    found = estimate(shape, Recipe(), TOKENS, 1_000, Machine(None), prices.load(None))
    assert 5 == len(found.costs)
    assert {0.45, 0.28, 0.65, 0.55, 0.32} == {round(usd / hours, 2) for hours, usd in found.costs.values()}


def test_a_number_is_this_machines_price(shape: Shape) -> None:
    found = estimate(shape, Recipe(), TOKENS, 1_000, Machine(None), prices.load("3.60"))
    assert found.seconds * 0.001 == pytest.approx(found.here_usd)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[[machine]]\nname = "a"\n', "usd_per_hour: Field required"),
        ("[[machine]\n", "is not TOML"),
        ('[[machine]]\nname="a"\nusd_per_hour=-1\nbf16_tflops=1\nmemory_gib=1\n', "usd_per_hour"),
    ],
)
def test_a_table_that_is_none_is_refused_by_its_key(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(TrainingError, match=reason):
        prices.load(str(tmp_path / "prices.toml"))


@pytest.mark.parametrize("given", ["-1", "nan", "none.toml"])
def test_a_price_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(TrainingError, match=r"is no price|cannot read prices"):
        prices.load(given)


def test_speeds_are_kept_and_read_again_the_newest_last(tmp_path: Path) -> None:
    for number in range(25):
        write_speed(tmp_path, Speed("small", 1_000, "cpu", float(number), "2026-11-30"))
    assert (20, 24.0) == (len(read_speeds(tmp_path)), read_speeds(tmp_path)[-1].tokens_per_s)


def test_a_record_of_speed_that_is_broken_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "training-speed.json").write_text('[{"speed": 1}]')
    assert () == read_speeds(tmp_path)


def test_twice_the_rows_take_twice_the_steps(shape: Shape) -> None:
    half, whole = (
        estimate(shape, Recipe(), replace(TOKENS, total=100 * rows), rows, Machine(None), Prices())
        for rows in (800, 1_600)
    )
    assert (2 * half.steps, half.step_s) == (whole.steps, pytest.approx(whole.step_s))


@pytest.mark.parametrize(("seconds", "text"), [(12.2, "13 s"), (600, "10 min"), (9_000, "2.5 h")])
def test_durations_are_spoken(seconds: float, text: str) -> None:
    assert text == spoken(seconds)
