"""Group relative policy optimisation (Shao et al., 2024): of several answers to one question the better ones
become likelier. Rows are those of sft; their last answer is what rewards compare with.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from training.methods.setup import Data, Setup
from training.recipe import Recipe, TrainingError
from training.rewards import Reward, reward
from training.rows import Row

GROUP = 4
"""Answers to one question. trl's default of 8 takes twice the time; two tell too little."""


def prepare(tokenizer: Any, rows: Sequence[Row], stops: frozenset[int], recipe: Recipe) -> Data:
    """Questions, and what is expected. Raises `TrainingError` with the line of a row that has neither."""
    if recipe.batch_size % GROUP:
        raise TrainingError(
            f"batch_size is {recipe.batch_size}; grpo answers each question {GROUP} times, so it must be a "
            f"multiple of {GROUP}"
        )
    for name in recipe.rewards:
        reward(name)
    asked, expected, lengths = [], [], []
    for row in rows:
        *before, last = row.messages
        if not last.learn or not before:
            raise TrainingError(
                f"line {row.line}: grpo needs a question and, last, the answer to compare with"
            )
        messages = [message.as_dict() for message in before]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if length >= recipe.max_tokens:
            raise TrainingError(
                f"line {row.line} is {length} tokens long before its answer, the recipe's max_tokens is "
                f"{recipe.max_tokens}; shorten it, or raise max_tokens up to the base's context"
            )
        asked.append(messages)
        expected.append(last.content)
        lengths.append(length)
    return Data({"prompt": asked, "expected": expected}, lengths, 0)


def trainer(setup: Setup, data: Data, validation: Data | None) -> Any:
    """trl's GRPO trainer; answers are sampled with transformers, on the machine that trains."""
    with warnings.catch_warnings():
        # It wants older vLLMs for sampling; here transformers samples.
        warnings.filterwarnings("ignore", "TRL currently supports vLLM")
        from trl import GRPOConfig, GRPOTrainer

    recipe = setup.recipe
    arguments = GRPOConfig(
        **setup.arguments,
        num_generations=GROUP,
        max_completion_length=min(256, recipe.max_tokens - max(data.lengths)),
        temperature=1.0,
        beta=0.0,
        disable_dropout=recipe.dropout == 0,
    )
    return GRPOTrainer(
        model=setup.model,
        reward_funcs=[_as_trl(name, reward(name)) for name in recipe.rewards],
        args=arguments,
        train_dataset=data.dataset(),
        eval_dataset=validation.dataset() if validation is not None else None,
        processing_class=setup.tokenizer,
        peft_config=setup.lora(),
        callbacks=list(setup.callbacks),
    )


def _as_trl(name: str, figures: Reward) -> Any:
    """As trl calls it: with conversations, and the data's other columns by name."""

    def function(prompts: Any, completions: Any, expected: Any, **_: Any) -> list[float]:
        return figures([answer[0]["content"] or "" for answer in completions], expected)

    function.__name__ = name
    return function
