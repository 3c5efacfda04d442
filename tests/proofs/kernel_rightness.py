"""Whether a faster kernel is right: base rows untouched, log-probs PEFT's, prompt_logprobs harmless."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import httpx

from adapters.base.manifest import BaseManifest
from tests.engine.conftest import LOUD
from tests.engine.test_purity import PROMPTS
from tests.peft_folder import random_adapter
from tests.proofs.pair import BASE, Engine, Pair
from tests.proofs.result import Result
from tests.proofs.trained_beside_served import Text, gap, in_peft, served

TEXTS, TEXT_TOKENS = 8, 100
BATCHES, BATCH = 4, 16
LONG_PROMPT = 1900
VOCABULARY = 49152
LOUD_ADAPTERS = 8
"""As many as slots: the last one must be taken for stock to go wrong."""
NO_WORSE = 1.1
"""How many times stock's distance from PEFT ours may have: both round, in another order."""


def judge(result: Result, both: Pair, base: Path, folder: Path, adapters: Mapping[str, Path]) -> None:
    texts = _texts(base)
    trained = in_peft(base, adapters, texts, BASE)
    _agreement(result, both, texts, trained)
    loud = {
        f"loud{seed}": random_adapter(folder / f"loud{seed}", BaseManifest.read(base), seed=seed, scale=LOUD)
        for seed in range(LOUD_ADAPTERS)
    }
    for _, engine in both.each():
        engine.load(loud)
    _purity(result, both, list(loud))
    _prompt_logprobs(result, both, texts, trained)


def _agreement(result: Result, both: Pair, texts: Sequence[Text], trained: Mapping[str, list[float]]) -> None:
    for model, expected in trained.items():
        gaps = {
            name: gap([each for text in texts for each in served(engine, model, text)], expected)
            for name, engine in both.each()
        }
        told = f"mean |Δ| {gaps['ours']:.4f} nats a token; stock {gaps['stock']:.4f}"
        if model != BASE:
            told += f"; the adapter itself moves them by {gap(expected, trained[BASE]):.3f}"
        result.must(
            f"served log-probs of {model} agree with PEFT's as stock's do",
            gaps["ours"] <= NO_WORSE * gaps["stock"],
            told,
        )


def _texts(base: Path) -> list[list[int]]:
    """Token ids of texts that begin differently."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    turned = ("\n".join((*PROMPTS[at:], *PROMPTS[:at])) for at in range(TEXTS))
    return [tokenizer(text)["input_ids"][:TEXT_TOKENS] for text in turned]


def _purity(result: Result, both: Pair, loud: Sequence[str]) -> None:
    equal, every = {}, {}
    for (name, engine), batches in zip(both.each(), (1, BATCHES), strict=True):
        beside_base, beside_adapters = (
            [answer for batch in range(batches) for answer in _in_step(engine, batch, others)]
            for others in ([BASE], list(loud))
        )
        every[name] = len(beside_base)
        equal[name] = sum(one == other for one, other in zip(beside_base, beside_adapters, strict=True))
    result.must(
        "base answers beside adapters equal base answers beside base, tokens and log-probs to the bit",
        equal["ours"] == every["ours"],
        f"{equal['ours']} of {every['ours']}; stock {equal['stock']} of {every['stock']}",
    )


def _in_step(engine: Engine, batch: int, others: Sequence[str]) -> list[Any]:
    """The base's answers in a batch of which every second request goes to one of `others`.

    bfloat16 rounds by how a batch falls together, so the batch is made to fall together the same way each
    time: all of it arrives, in order, while the engine is in one long prefill, and starts in the next step.
    """
    asked = [_drawn(BATCH * batch + at, 12) for at in range(BATCH)]
    first = _drawn(time.monotonic_ns(), LONG_PROMPT)  # in no cache
    with ThreadPoolExecutor(1 + BATCH) as pool:
        long = pool.submit(engine.complete, BASE, first, max_tokens=1)
        time.sleep(0.3)
        answers = []
        for at, prompt in enumerate(asked):
            model = BASE if at % 2 == 0 else others[at // 2 % len(others)]
            answers.append(pool.submit(engine.complete, model, prompt, max_tokens=24, logprobs=1))
            time.sleep(0.02)
        assert not long.done(), "the long prefill was over before the batch had arrived"
        choices = [answer.result() for answer in answers][::2]
    return [(choice["text"], choice["logprobs"]["token_logprobs"]) for choice in choices]


def _prompt_logprobs(
    result: Result, both: Pair, texts: Sequence[Text], trained: Mapping[str, list[float]]
) -> None:
    """Every text of the base and of one adapter, all at once. Stock last, because it may end the engine."""
    models = [BASE, next(name for name in trained if name != BASE)]
    asked = [(model, text) for model in models for text in texts]
    alone = [served(both.ours, model, text) for model, text in asked]
    together = _at_once(both.ours, asked)
    assert together is not None, "a request with prompt_logprobs failed"
    gaps = {}
    for at, model in enumerate(models):
        mine = slice(at * len(texts), (at + 1) * len(texts))
        gaps[model] = [
            gap(list(chain.from_iterable(answers[mine])), trained[model]) for answers in (alone, together)
        ]
    result.must(
        f"{len(asked)} concurrent prompt_logprobs requests: all answered as one at a time, the engine lives",
        both.ours.healthy() and all(crowd <= NO_WORSE * one for one, crowd in gaps.values()),
        "mean |Δ| from PEFT: "
        + ", ".join(f"{model} {one:.4f} alone, {crowd:.4f} at once" for model, (one, crowd) in gaps.items()),
    )
    lived = _at_once(both.stock, asked) is not None and both.stock.healthy()
    result.figure(f"stock, the same {len(asked)} requests", "answered" if lived else "the engine ended")


def _at_once(engine: Engine, asked: Sequence[tuple[str, Text]]) -> list[list[float]] | None:
    """Answers in order, or None when one failed."""
    with ThreadPoolExecutor(len(asked)) as pool:
        jobs = [pool.submit(served, engine, model, text) for model, text in asked]
        try:
            return [job.result() for job in jobs]
        except (AssertionError, httpx.HTTPError):
            return None


def _drawn(seed: int, tokens: int) -> list[int]:
    dice = random.Random(seed)
    return [dice.randrange(100, VOCABULARY) for _ in range(tokens)]
