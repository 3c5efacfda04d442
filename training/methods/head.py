"""The output head, for learned positions only.

trl (1.16, `add_fused_lm_head`) scores every position of a batch where there is no Triton, as on a CPU; with
answers that are short beside their questions that is a third and more of a step. On a GPU trl does what this
does, in less memory.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

from training.tokens import IGNORED

POSITIONS = 1024
"""Looked at in one piece. Their logits take `POSITIONS` x vocabulary x 4 bytes, a few times over."""
UNLIKE = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
)
"""What a base's config has when its head is more than a matrix."""


@dataclass(frozen=True, slots=True)
class Learned:
    """Over the learned tokens of a batch: the sum of their losses in nats (a tensor that has a gradient), how
    many of them were the first choice, and how many there are."""

    loss: Any
    right: int
    tokens: int


def has_plain_head(model: Any) -> bool:
    """Whether the base's logits are its head's product and nothing more."""
    config = model.config.get_text_config()
    return all(getattr(config, name, None) in (None, 1, 1.0) for name in UNLIKE)


def add_learned_head(model: Any) -> None:
    """Let `model(..., labels=labels, learned_only=True)` return a `Learned`; all else is as it was.

    `model` is a causal language model of transformers that peft has not wrapped yet.
    """
    original = model.forward

    def forward(self: Any, *args: Any, learned_only: bool = False, **kwargs: Any) -> Any:
        if not learned_only:
            return original(*args, **kwargs)
        labels = kwargs.pop("labels")[:, 1:]
        hidden = self.base_model(*args, **kwargs, use_cache=False).last_hidden_state[:, :-1]
        wanted = labels != IGNORED
        return _losses(self.get_output_embeddings(), hidden[wanted], labels[wanted])

    model.forward = types.MethodType(forward, model)


def learned_only(trainer: type[Any]) -> type[Any]:
    """The SFT trainer's class, for a model that has a learned head."""

    class LearnedOnly(trainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            found: Learned = model(**inputs, learned_only=True)
            loss = found.loss / (found.tokens if num_items_in_batch is None else num_items_in_batch)
            if num_items_in_batch is not None and self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes  # whose gradients are averaged
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["mean_token_accuracy"].append(found.right / max(1, found.tokens))
            return (loss, None) if return_outputs else loss

    return LearnedOnly


def _losses(head: Any, hidden: Any, targets: Any) -> Learned:
    """Piece by piece; the logits of a piece are made anew for its gradient when there are several."""
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint

    def piece(states: Any, wanted: Any) -> tuple[Any, Any]:
        logits = head(states).float()
        right = (logits.detach().argmax(-1) == wanted).sum()
        return cross_entropy(logits, wanted, reduction="sum"), right

    if len(targets) <= POSITIONS:
        pieces = [piece(hidden, targets)]
    else:
        pieces = [
            checkpoint(piece, states, wanted, use_reentrant=False)
            for states, wanted in zip(hidden.split(POSITIONS), targets.split(POSITIONS), strict=True)
        ]
    losses, right = zip(*pieces, strict=True)
    return Learned(sum(losses), sum(int(each) for each in right), len(targets))
