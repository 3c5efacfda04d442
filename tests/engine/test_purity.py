"""What a request gets in a real vLLM does not depend on who is served beside it.

With vLLM's own CPU kernel the first two tests fail: base rows get the last slot's adapter.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.base.manifest import BaseManifest
from tests.engine.talk import Answer, Talk, distance
from tests.peft_folder import random_adapter

pytestmark = pytest.mark.engine

PROMPTS = [
    f"Question {number}: {text}\nAnswer:"
    for number, text in enumerate(
        (
            *("What is the capital of France?", "Name a colour.", "Who was Napoleon?", "Explain gravity."),
            *("List five fruits.", "What is 7 times 8?", "Tell me about dogs.", "How does rain form?"),
        )
    )
]
ROUNDING = 0.5
"""Nats by which batching alone may move a likely token: bfloat16 here moves it by up to 0.25."""


def beside(engine: Talk, model: str, others: list[str]) -> list[Answer]:
    """The answers of `model` to every prompt while `others` are answering too."""
    asked = [pair for prompt in PROMPTS for pair in [(model, prompt), *((other, prompt) for other in others)]]
    answers = engine.at_once(asked)
    return [answer for (name, _), answer in zip(asked, answers, strict=True) if name == model]


def differing(one: list[Answer], other: list[Answer]) -> int:
    return sum(a.text != b.text for a, b in zip(one, other, strict=True))


def test_base_answers_beside_adapters_differ_no_more_than_beside_base(engine: Talk, loud: list[str]) -> None:
    alone = [engine.answer(engine.base, prompt) for prompt in PROMPTS]
    beside_base = beside_twin(engine, len(loud))
    beside_adapters = beside(engine, engine.base, loud)
    # One more than beside base: batches never fall together twice in the same way.
    assert differing(alone, beside_adapters) <= differing(alone, beside_base) + 1


def beside_twin(engine: Talk, others: int) -> list[Answer]:
    asked = [(engine.base, prompt) for prompt in PROMPTS for _ in range(1 + others)]
    return engine.at_once(asked)[:: 1 + others]


def test_base_probabilities_beside_adapters_are_those_of_base_alone(engine: Talk, loud: list[str]) -> None:
    alone = [engine.answer(engine.base, prompt) for prompt in PROMPTS]
    crowded = beside(engine, engine.base, loud)
    assert ROUNDING > max(map(distance, alone, crowded))


def test_an_adapters_probabilities_beside_others_are_those_of_it_alone(engine: Talk, loud: list[str]) -> None:
    alone = [engine.answer(loud[0], prompt) for prompt in PROMPTS]
    crowded = beside(engine, loud[0], [engine.base, *loud[1:]])
    assert ROUNDING > max(map(distance, alone, crowded))


def test_every_adapter_changes_the_answer_in_its_own_way(engine: Talk, loud: list[str]) -> None:
    answers = {engine.answer(model, PROMPTS[0]).text for model in (engine.base, *loud)}
    assert 1 + len(loud) == len(answers)


@pytest.mark.parametrize("asked", [{"prompt_logprobs": 1}, {"echo": True, "logprobs": 1}], ids=str)
def test_concurrent_prompt_logprobs_are_right_and_leave_the_engine_alive(
    engine: Talk, loud: list[str], asked: dict[str, object]
) -> None:
    models = [engine.base, loud[0], engine.base, loud[-1]]
    prompts = [prompt * (1 + number) for number, prompt in enumerate(PROMPTS[:4])]

    def ask(model: str, prompt: str) -> list[float]:
        response = engine.complete(model, prompt, max_tokens=1, **asked)
        assert 200 == response.status_code, response.text
        return prompt_logprobs(response.json()["choices"][0])

    alone = [ask(*each) for each in zip(models, prompts, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, models, prompts))
    assert [len(each) for each in alone] == [len(each) for each in together]
    differences = [
        abs(a - b) for one, two in zip(alone, together, strict=True) for a, b in zip(one, two, strict=True)
    ]
    assert ROUNDING / 4 > sum(differences) / len(differences)
    assert 200 == engine.client.get("/health").status_code


def test_sixteen_concurrent_prompt_logprobs_do_no_harm(engine: Talk, loud: list[str]) -> None:
    models = [engine.base, *loud[:3]] * 4
    prompts = [prompt * (1 + number % 3) for number, prompt in enumerate(PROMPTS * 2)]
    with ThreadPoolExecutor(len(models) + 1) as pool:
        beside = pool.submit(engine.answer, engine.base, PROMPTS[0], 24)
        asked = [
            pool.submit(engine.complete, model, prompt, max_tokens=2, prompt_logprobs=1)
            for model, prompt in zip(models, prompts, strict=True)
        ]
        answers = [each.result() for each in asked]
        assert beside.result().text
    assert [200] * 16 == [answer.status_code for answer in answers], answers[0].text
    assert all(prompt_logprobs(answer.json()["choices"][0]) for answer in answers)
    assert 200 == engine.client.get("/health").status_code


def prompt_logprobs(choice: dict[str, object]) -> list[float]:
    """Of each prompt token but the first."""
    if listed := choice.get("prompt_logprobs"):
        return [next(iter(each.values()))["logprob"] for each in listed[1:]]
    return choice["logprobs"]["token_logprobs"][1:-1]


def test_an_adapter_loaded_under_way_answers_and_no_stream_breaks(
    engine: Talk, base: BaseManifest, loud: list[str], tmp_path
) -> None:
    folder = random_adapter(tmp_path, base, seed=77, scale=0.15)
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(engine.answer, engine.base, prompt, 48) for prompt in PROMPTS[:4]]
        engine.load("late@0123456789ab", folder)
        late = engine.answer("late@0123456789ab", PROMPTS[0])
        answers = [each.result() for each in running]
    engine.unload("late@0123456789ab")
    assert late.text != answers[0].text[: len(late.text)]
    assert all(each.text for each in answers)


def test_an_adapter_for_the_output_layer_is_refused_and_the_engine_lives(
    engine: Talk, base: BaseManifest, tmp_path
) -> None:
    folder = random_adapter(tmp_path, base, seed=78)
    weights = load_file(folder / "adapter_model.safetensors")
    vocabulary = 49152
    weights["base_model.model.lm_head.lora_A.weight"] = torch.ones(8, base.hidden_size, dtype=torch.float16)
    weights["base_model.model.lm_head.lora_B.weight"] = torch.ones(vocabulary, 8, dtype=torch.float16)
    save_file(weights, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"].append("lm_head")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    response = engine.client.post(
        "/v1/load_lora_adapter", json={"lora_name": "head", "lora_path": str(folder)}
    )
    assert response.status_code >= 400
    assert "lm_head" in response.text
    assert engine.answer(engine.base, PROMPTS[0]).text
