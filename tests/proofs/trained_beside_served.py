"""Log-probabilities of a text: as PEFT computes them on the base of training, as an engine serves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.base.manifest import BaseManifest
from tests.proofs.pair import Engine
from training.quantized import load

Text = Sequence[int]
"""Token ids."""


def in_peft(
    base: Path, adapters: Mapping[str, Path], texts: Sequence[Text], base_name: str
) -> dict[str, list[float]]:
    """For the base and each adapter: every token's log-probability after those before it, texts in a row."""
    import torch
    from peft import PeftModel

    torch.set_num_threads(1)  # beside two engines, two threads wait for each other longer than they work
    model = load(base, BaseManifest.read(base))
    peft: Any = None
    for name, folder in adapters.items():
        if peft is None:
            peft = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
        else:
            peft.load_adapter(str(folder), adapter_name=name)
    peft.eval()

    def logprobs(text: Text) -> list[float]:
        ids = torch.tensor([list(text)])
        with torch.no_grad():
            every = peft(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        return [float(every[at, token]) for at, token in enumerate(text[1:])]

    found = {}
    for name in adapters:
        peft.set_adapter(name)
        found[name] = [each for text in texts for each in logprobs(text)]
    with peft.disable_adapter():
        found[base_name] = [each for text in texts for each in logprobs(text)]
    return found


def served(engine: Engine, model: str, text: Text) -> list[float]:
    """The same from an engine, by `prompt_logprobs`."""
    listed = engine.complete(model, text, max_tokens=1, prompt_logprobs=0)["prompt_logprobs"][1:]
    return [entry[str(token)]["logprob"] for entry, token in zip(listed, text[1:], strict=True)]


def gap(one: Sequence[float], other: Sequence[float]) -> float:
    """Mean absolute difference, nats a token."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)
