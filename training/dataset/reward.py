"""A reward model as a scorer of generated rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from training.dataset.candidate import Candidate
from training.dataset.plan import DatasetError, RewardModel
from training.dataset.synthetic import Scorer


def scorer(wanted: RewardModel) -> Scorer:
    """Scores 1 / (1 + exp(-r)) of the model's reward r: under the Bradley-Terry model that it was trained by,
    how likely the answer is preferred to one of reward 0. Conversations are written by the model's own chat
    template; what is longer than it reads is cut from the left, so that the answer stays.

    Raises `DatasetError` for what is no reward model.
    """
    model, tokenizer = _load(wanted.model)

    def scores(candidates: Sequence[Candidate]) -> list[float]:
        found: list[float] = []
        for at in range(0, len(candidates), wanted.batch):
            found += _rewards(model, tokenizer, candidates[at : at + wanted.batch])
        return [1 / (1 + math.exp(-max(-700.0, reward))) for reward in found]

    return scores


def _load(name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, truncation_side="left")
        model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise DatasetError(f"reward_model.model = {name!r} cannot be loaded: {error}") from error
    if model.config.num_labels != 1:
        raise DatasetError(
            f"{name} has {model.config.num_labels} outputs; a reward model has one. Name another, or a judge"
        )
    if tokenizer.chat_template is None:
        raise DatasetError(f"{name} has no chat template, so it cannot be shown a conversation")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _rewards(model: Any, tokenizer: Any, candidates: Sequence[Candidate]) -> list[float]:
    import torch

    texts = [
        tokenizer.apply_chat_template(
            [{"role": each.role, "content": each.content} for each in candidate.messages], tokenize=False
        )
        for candidate in candidates
    ]
    longest = getattr(model.config, "max_position_embeddings", None)
    inputs = tokenizer(
        texts,
        padding=True,
        truncation=longest is not None,
        max_length=longest,
        add_special_tokens=False,  # the template has them
        return_tensors="pt",
    ).to(model.device)
    with torch.inference_mode():
        return [float(each) for each in model(**inputs).logits[:, 0]]
