"""Training: what comes out, that it is the same again, and what must never come out."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.base.manifest import BaseManifest
from adapters.preflight import Limits, check
from training.quantized import load
from training.recipe import Recipe, Stopped, TrainingError
from training.rows import BadRows, chat
from training.run import train
from training.stop import Stop, on_signals
from training.watch import Progress

QUICK = Recipe(rank=8, alpha=16, learning_rate=1e-2, max_steps=6, batch_size=4)


def quiet(progress: Progress) -> None:
    """Progress that nobody watches."""


def digest(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    }


@pytest.fixture(scope="module")
def trained(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """One short run: its folder and all that it reported."""
    folder = tmp_path_factory.mktemp("run")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(chat(f"question {n}", "green")) + "\n" for n in range(40)))
    seen: list[Progress] = []
    train(small_base, file, QUICK, folder / "out", seen.append)
    return folder / "out", seen


def test_a_run_writes_the_files_of_an_adapter_and_no_others(trained: tuple[Path, Any]) -> None:
    assert {"adapter_config.json", "adapter_model.safetensors", "hotswap.json"} == {
        file.name for file in trained[0].iterdir()
    }


def test_the_registry_accepts_what_a_run_writes(trained: tuple[Path, Any], small_base: Path) -> None:
    claim = json.loads((trained[0] / "hotswap.json").read_text())["base_fingerprint"]
    inspection = check(trained[0], BaseManifest.read(small_base), Limits(max_rank=8, max_bytes=10**7), claim)
    assert 8 == inspection.rank


def test_the_loss_falls(trained: tuple[Path, list[Progress]]) -> None:
    assert trained[1][-1].loss < trained[1][0].loss - 0.3


def test_every_step_is_reported_with_the_time_left(trained: tuple[Path, list[Progress]]) -> None:
    assert [(step, 6) for step in range(1, 7)] == [(seen.step, seen.total) for seen in trained[1]]
    assert 0 == trained[1][-1].eta_s < trained[1][0].eta_s


def test_the_adapter_names_its_base_and_not_a_place_on_this_disk(
    trained: tuple[Path, Any], small_base: Path
) -> None:
    written = (trained[0] / "adapter_config.json").read_text() + (trained[0] / "hotswap.json").read_text()
    assert ("small", False) == (
        json.loads((trained[0] / "adapter_config.json").read_text())["base_model_name_or_path"],
        str(small_base.parent) in written,
    )


def test_every_linear_layer_is_trained_and_nothing_else(trained: tuple[Path, Any], small_base: Path) -> None:
    from safetensors import safe_open

    with safe_open(trained[0] / "adapter_model.safetensors", "np") as tensors:
        modules = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in tensors.keys()}  # noqa: SIM118
    assert set(BaseManifest.read(small_base).linears) == modules


def test_the_lineage_says_how_to_repeat_the_run(trained: tuple[Path, Any]) -> None:
    lineage = json.loads((trained[0] / "hotswap.json").read_text())["lineage"]
    assert (QUICK.record(), 40, 6) == (lineage["recipe"], lineage["rows"], lineage["steps"])
    assert {"torch", "transformers", "trl", "peft", "bitsandbytes"} == set(lineage["versions"])


def test_the_same_seed_gives_the_same_bytes(
    trained: tuple[Path, Any], small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    train(small_base, rows(), QUICK, tmp_path / "again", quiet)
    assert digest(trained[0]) == digest(tmp_path / "again")


def test_another_seed_gives_other_weights(
    trained: tuple[Path, Any], small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    other = Recipe(rank=8, alpha=16, learning_rate=1e-2, max_steps=6, batch_size=4, seed=1)
    train(small_base, rows(), other, tmp_path / "other", quiet)
    assert digest(trained[0]) != digest(tmp_path / "other")


def test_a_run_that_is_stopped_leaves_nothing(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    stop, steps = Stop(), []

    def watch(progress: Progress) -> None:
        steps.append(progress.step)
        stop.set()

    with pytest.raises(Stopped):
        train(small_base, rows(), QUICK, tmp_path / "out", watch, stop)
    assert (1, [tmp_path / "rows.jsonl"]) == (len(steps), list(tmp_path.iterdir()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_for_the_end_and_the_handler_from_before_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with on_signals() as stop:
        os.kill(os.getpid(), number)
        assert (True, before) == (stop.is_set(), signal.getsignal(number))
    assert before == signal.getsignal(number)


def test_bad_rows_are_refused_before_anything_is_loaded(
    small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "no"}\n')
    monkeypatch.setattr("training.run.load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(BadRows):
        train(small_base, tmp_path / "rows.jsonl", QUICK, tmp_path / "out", quiet)


def test_an_output_that_is_there_already_is_not_overwritten(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TrainingError, match="is there already; name another folder"):
        train(small_base, rows(), QUICK, tmp_path / "out", quiet)


def test_a_loss_that_is_no_number_is_an_error_and_no_adapter(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    wild = Recipe(rank=8, learning_rate=1e30, max_steps=4, batch_size=4, warmup=0.0, max_grad_norm=1e30)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(small_base, rows(), wild, tmp_path / "out", quiet)
    assert not (tmp_path / "out").exists()


def test_the_base_is_quantized_as_the_engine_quantizes_it(small_base: Path) -> None:
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from safetensors.torch import load_file

    path = "model.layers.1.mlp.down_proj"
    layer = load(small_base, BaseManifest.read(small_base)).get_submodule(path)
    plain = load_file(small_base / "model.safetensors")[f"{path}.weight"]
    # the call of vllm_bnb_plugin's loader
    served = dequantize_4bit(*quantize_4bit(plain, compress_statistics=True, quant_type="nf4"))
    assert torch.equal(served, dequantize_4bit(layer.weight.data, layer.weight.quant_state))


def test_bitsandbytes_cannot_repack_the_base_while_it_is_trained(
    small_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bitsandbytes

    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = load(small_base, BaseManifest.read(small_base))
    layers = [layer for layer in model.modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert (14, set()) == (len(layers), {layer for layer in layers if layer.support_avx512bf16_for_cpu})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
    ],
)
def test_an_impossible_recipe_is_refused_by_the_value(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        Recipe(**values)


def test_losses_are_there_for_tensorboard(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses: list[float] = []
    recipe = Recipe(rank=4, alpha=8, max_steps=3, batch_size=4)
    train(
        small_base,
        rows(),
        recipe,
        tmp_path / "out",
        lambda step: losses.append(step.loss),
        tensorboard=tmp_path / "board",
    )
    (run,) = (tmp_path / "board").iterdir()
    told = EventAccumulator(str(run)).Reload().Scalars("train/loss")
    assert [(step, pytest.approx(loss)) for step, loss in enumerate(losses, 1)] == [
        (each.step, each.value) for each in told
    ]
