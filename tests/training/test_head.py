"""The head looks at learned positions only, and what is learned from them is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.base.manifest import BaseManifest
from training.methods import head
from training.methods.head import Learned, add_learned_head, has_plain_head
from training.quantized import load
from training.tokens import IGNORED


def batch(rows: int = 4, tokens: int = 24, learned: int = 6) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (rows, tokens), generator=draw)
    labels = torch.full_like(ids, IGNORED)
    labels[:, -learned:] = ids[:, -learned:]
    mask = torch.ones_like(ids)
    labels[0, -2:] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def lora() -> Any:
    """An adapter that does something before it is trained."""
    from peft import LoraConfig

    return LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)


@pytest.fixture
def model(small_base: Path) -> Any:
    """The small base with an adapter that trains, in float32 so that sums can be compared."""
    from peft import get_peft_model

    base = load(small_base, BaseManifest.read(small_base))
    add_learned_head(base)
    adapter = get_peft_model(base, lora())
    for name, weights in adapter.named_parameters():
        if "lora_" in name:
            weights.data = torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)) * 0.05
    return adapter


def gradients(model: Any, loss: Any) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([weights.grad.flatten() for weights in model.parameters() if weights.grad is not None])


def test_loss_and_gradient_are_those_of_the_whole_head(model: Any) -> None:
    given = batch()
    found: Learned = model(**given, learned_only=True)
    logits = (
        model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits[:, :-1].float()
    )
    labels = given["labels"][:, 1:]
    whole = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    right = int(((logits.argmax(-1) == labels) & (labels != IGNORED)).sum())
    assert (right, 22) == (found.right, found.tokens)
    torch.testing.assert_close(found.loss, whole, rtol=1e-3, atol=1e-3)
    ours, theirs = gradients(model, found.loss), gradients(model, whole)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.9999


def test_pieces_make_the_same_whole(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = batch()
    at_once: Learned = model(**given, learned_only=True)
    expected = gradients(model, at_once.loss)
    monkeypatch.setattr(head, "POSITIONS", 5)
    pieces: Learned = model(**given, learned_only=True)
    assert (at_once.right, at_once.tokens) == (pieces.right, pieces.tokens)
    torch.testing.assert_close(at_once.loss, pieces.loss)
    assert torch.nn.functional.cosine_similarity(expected, gradients(model, pieces.loss), dim=0) > 0.9999


def test_without_the_word_the_model_answers_as_before(model: Any) -> None:
    given = batch()
    assert (4, 24) == tuple(model(**given).logits.shape[:2])


@pytest.mark.parametrize("name", head.UNLIKE)
def test_a_head_that_is_more_than_a_matrix_is_left_to_trl(name: str, small_base: Path) -> None:
    base = load(small_base, BaseManifest.read(small_base))
    assert has_plain_head(base)
    setattr(base.config, name, 30.0)
    assert not has_plain_head(base)


def test_gradients_after_a_validation_are_those_of_a_fresh_model(small_base: Path) -> None:
    from peft import get_peft_model

    def adapter(validate: bool) -> torch.Tensor:
        torch.manual_seed(0)
        base = load(small_base, BaseManifest.read(small_base))
        add_learned_head(base)
        made = get_peft_model(base, lora())
        if validate:
            made.eval()
            with torch.no_grad():
                made(**batch(), learned_only=True)
            made.state_dict()
        made.train()
        return gradients(made, made(**batch(), learned_only=True).loss)

    fresh, after = adapter(False), adapter(True)
    assert torch.nn.functional.cosine_similarity(fresh, after, dim=0) >= 0.999
