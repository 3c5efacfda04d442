"""Every method moves the adapter the way its rows say, and its adapter can be served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.base.manifest import BaseManifest
from adapters.preflight import Limits, check
from training.recipe import Recipe, TrainingError
from training.rows import chat, write_rows
from training.run import train
from training.watch import Progress

QUICK = {"rank": 8, "alpha": 16, "learning_rate": 1e-2, "epochs": 4.0, "batch_size": 8, "warmup": 0.0}


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {
            "input": {"messages": [{"role": "user", "content": f"question {n}"}]},
            "preferred_output": [{"role": "assistant", "content": "green"}],
            "non_preferred_output": [{"role": "assistant", "content": "red"}],
        }
        for n in range(count)
    ]


def judged(count: int) -> list[dict[str, Any]]:
    return [chat(f"question {n}", "green" if n % 2 else "red") | {"label": bool(n % 2)} for n in range(count)]


ROWS = {"sft": [chat(f"question {n}", "green") for n in range(40)], "dpo": pairs(40), "kto": judged(40)}


def preference(base: Path, adapter: Path) -> float:
    """By how many nats "green" is likelier than "red" as an answer, with the adapter less without it."""
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    from training.quantized import load

    tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    model = PeftModel.from_pretrained(load(base, BaseManifest.read(base)), str(adapter)).eval()

    def likely(word: str) -> float:
        asked = {"role": "user", "content": "question 7"}
        before = tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
        first = len(tokenizer(before, add_special_tokens=False)["input_ids"])
        ids = torch.tensor([tokenizer(before + word, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            logs = model(ids).logits.float().log_softmax(-1)[0, first - 1 : -1]
        return float(logs.gather(1, ids[0, first:, None]).sum())

    with_it = likely("green") - likely("red")
    with model.disable_adapter():
        return with_it - (likely("green") - likely("red"))


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_a_method_makes_the_wanted_answer_likelier(method: str, small_base: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS[method])
    seen: list[Progress] = []
    train(small_base, tmp_path / "rows.jsonl", Recipe(method=method, **QUICK), tmp_path / "out", seen.append)  # type: ignore[arg-type]
    assert 20 == len(seen)
    assert preference(small_base, tmp_path / "out") > 0.5
    lineage = json.loads((tmp_path / "out" / "hotswap.json").read_text())
    assert method == lineage["lineage"]["method"]
    check(
        tmp_path / "out",
        BaseManifest.read(small_base),
        Limits(max_rank=8, max_bytes=10**7),
        lineage["base_fingerprint"],
    )


def test_a_method_that_is_not_known_is_refused() -> None:
    with pytest.raises(TrainingError, match="method is 'ppo'; known are sft, dpo, kto, grpo"):
        Recipe(method="ppo")  # type: ignore[arg-type]


def test_grpo_answers_and_learns_from_what_answers_earn(small_base: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS["sft"])
    recipe = Recipe(**{**QUICK, "max_tokens": 80}, method="grpo", rewards=("regex:.*e.*",), max_steps=3)  # type: ignore[arg-type]
    seen: list[Progress] = []
    done = train(small_base, tmp_path / "rows.jsonl", recipe, tmp_path / "out", seen.append)
    assert ([1, 2, 3], 3) == ([each.step for each in seen], done.steps)
    lineage = json.loads((tmp_path / "out" / "hotswap.json").read_text())["lineage"]
    assert ("grpo", ["regex:.*e.*"]) == (lineage["method"], lineage["recipe"]["rewards"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_size": 6}, "a multiple of 4"),
        ({"rewards": ("praise",)}, "there is no reward 'praise'; known are exact"),
        ({"max_tokens": 4}, "tokens long before its answer"),
    ],
)
def test_grpo_says_what_it_needs(
    change: dict[str, Any], reason: str, small_base: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS["sft"])
    recipe = Recipe(**{"method": "grpo", "rewards": ("exact",)} | change)
    with pytest.raises(TrainingError, match=reason):
        train(small_base, tmp_path / "rows.jsonl", recipe, tmp_path / "out", lambda _: None)


def first_a(folder: Path) -> Any:
    from safetensors.torch import load_file

    return next(
        each
        for name, each in load_file(folder / "adapter_model.safetensors").items()
        if "layers.0.mlp.down_proj.lora_A" in name
    )


def test_eva_begins_where_the_rows_are_and_ends_with_an_adapter_like_others(
    small_base: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.jsonl", ROWS["sft"])
    for init in ("default", "eva"):
        recipe = Recipe(rank=8, learning_rate=1e-9, max_steps=1, init=init, rslora=True)  # type: ignore[arg-type]
        train(small_base, tmp_path / "rows.jsonl", recipe, tmp_path / init, lambda _: None)
    plain, eva = first_a(tmp_path / "default"), first_a(tmp_path / "eva")
    # Directions of largest variance are orthogonal to each other; what is drawn by chance is not.
    gram = (eva / eva.norm(dim=1, keepdim=True)) @ (eva / eva.norm(dim=1, keepdim=True)).T
    assert plain.shape == eva.shape and float((gram - gram.diag().diag()).abs().max()) < 0.05
    config = json.loads((tmp_path / "eva" / "adapter_config.json").read_text())
    assert (True, True) == (config["init_lora_weights"], config["use_rslora"])


@pytest.mark.parametrize(
    ("rows", "size", "reason"),
    [
        (judged(8), 1, "kto needs at least 2"),
        ([row for row in judged(8) if row["label"]], 4, "all answers are judged alike"),
    ],
)
def test_kto_needs_rows_to_compare(
    rows: list[dict[str, Any]], size: int, reason: str, small_base: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(TrainingError, match=reason):
        train(
            small_base,
            tmp_path / "rows.jsonl",
            Recipe(method="kto", batch_size=size),
            tmp_path / "out",
            lambda _: None,
        )
