"""`adapter_config.json`: the kinds of LoRA that an engine serves exactly as they were trained, and no others.

vLLM's `PEFTHelper` reads a dozen keys and drops the rest without a word, so a variant that it has never
heard of would be served as a plain LoRA. Hence the rule here is the reverse: a key with a value that is not
"off" must be one that is known to change nothing at inference, or the adapter is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from adapters.archive import CONFIG
from adapters.errors import Refused
from adapters.strictjson import read_object, shown

_TRAINING_ONLY = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "velora_config",
}
"""Keys that may have any value: they steer training or loading in PEFT, not what the saved tensors do."""

_READ = {
    "alpha_pattern",
    "bias",
    "init_lora_weights",
    "lora_alpha",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
}

VARIANTS = {
    "use_dora": ("dora", "DoRA"),
    "alora_invocation_tokens": ("alora", "aLoRA (activated LoRA)"),
    "lora_bias": ("bias", "a bias on LoRA layers"),
    "modules_to_save": ("modules_to_save", "whole modules trained beside the LoRA layers"),
    "use_qalora": ("qalora", "QALoRA"),
    "use_bdlora": ("bdlora", "BD-LoRA"),
    "layer_replication": ("layer_replication", "replicated layers"),
    "fan_in_fan_out": ("fan_in_fan_out", "transposed (Conv1D) weights"),
    "trainable_token_indices": ("trainable_tokens", "trained token embeddings"),
    "target_parameters": ("target_parameters", "LoRA on bare parameters"),
}
"""PEFT's keys for what engines do not serve: the refusal's code, and what it is in words."""
INITS = ("gaussian", "eva", "orthogonal", "mica")
"""Inits that touch only the adapter. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA also move the base's weights."""

_PATTERN = re.compile(r"(?:[\w.|^-]|\\\.|\\d\+?)+", re.ASCII)
"""Keys of `rank_pattern` and `alpha_pattern` are regular expressions that we and the engine run, so they may
hold nothing that backtracks."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """`targets` is None when `target_modules` is a regular expression, which nobody but PEFT evaluates."""

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    targets: tuple[str, ...] | None
    all_linear: bool
    partial: bool
    base: str | None

    def rank_of(self, module: str) -> int:
        """PEFT's rule: the first pattern that matches `module`, or a tail of it that begins after a dot."""
        for pattern, rank in self.ranks.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return rank
        return self.rank

    @property
    def largest_rank(self) -> int:
        """What engines hold against their maximum, whether or not a module has it."""
        return max([self.rank, *self.ranks.values()])


def read(folder: Path) -> LoraConfig:
    """The configuration in `folder`. Raises `Refused`: `missing_file`, `bad_config`, or a variant's code."""
    path = folder / CONFIG
    if not path.is_file():
        raise Refused(
            f"{CONFIG} is missing; save the adapter with PEFT's save_pretrained", code="missing_file"
        )
    if path.stat().st_size > 1 << 20:
        raise Refused(f"{CONFIG} has {path.stat().st_size} bytes; at most 1048576", code="bad_config")
    table = read_object(path.read_bytes(), CONFIG, code="bad_config")
    check_kind(table)
    targets = table.get("target_modules")
    if isinstance(targets, list) and targets and all(isinstance(t, str) and t for t in targets):
        listed: tuple[str, ...] | None = tuple(targets)
    elif isinstance(targets, str) and targets:
        listed = None
    else:
        raise _bad("target_modules", targets, 'a list of module names, or "all-linear"')
    base = table.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise _bad("base_model_name_or_path", base, "the name of the base, or null")
    alpha = table.get("lora_alpha")
    if not _is_alpha(alpha):
        raise _bad("lora_alpha", alpha, "a finite number above 0")
    if type(table.get("use_rslora", False)) is not bool:
        raise _bad("use_rslora", table["use_rslora"], "true or false")
    _patterns(table, "alpha_pattern", _is_alpha, "finite numbers above 0")
    rank = table.get("r")
    if not _is_rank(rank):
        raise _bad("r", rank, "an integer of at least 1")
    return LoraConfig(
        rank=rank,
        alpha=float(alpha),
        ranks=_patterns(table, "rank_pattern", _is_rank, "integers of at least 1"),
        targets=listed,
        all_linear=targets == "all-linear",
        partial=any(table.get(k) for k in ("layers_pattern", "exclude_modules"))
        or table.get("layers_to_transform") is not None,
        base=base or None,
    )


def check_kind(table: Mapping[str, Any]) -> None:
    """Raises `Refused` when `table` (a config, or the part of one that is known) is no kind of LoRA that
    engines serve."""
    kind = table.get("peft_type")
    if kind != "LORA":
        raise Refused(
            f"peft_type is {shown(kind)}; only LORA is served. Retrain with peft.LoraConfig",
            code="not_lora",
        )
    for key, (code, noun) in VARIANTS.items():
        if table.get(key) not in (None, False, [], {}):
            raise Refused(
                f"{key} is {shown(table[key])}: engines do not serve {noun}. Retrain without it", code=code
            )
    if table.get("bias", "none") != "none":
        raise Refused(
            f"bias is {shown(table['bias'])}: engines do not serve trained biases. Retrain with bias='none'",
            code="bias",
        )
    init = table.get("init_lora_weights", True)
    if not (init is None or type(init) is bool or (isinstance(init, str) and init.lower() in INITS)):
        raise Refused(
            f"init_lora_weights is {shown(init)}, which also changes the base's weights: served on "
            "the plain base "
            "it would be wrong. Convert it with PEFT's path_initial_model_for_weight_conversion",
            code="unsupported_init",
        )
    for key in table.keys() - _TRAINING_ONLY - _READ - VARIANTS.keys():
        if table[key] not in (None, False, [], {}, ""):
            raise Refused(
                f"{CONFIG} has {shown(key)} = {shown(table[key])}, which engines would ignore; if it changes "
                "nothing at inference, remove it from the file",
                code="unknown_feature",
            )


def _patterns(
    table: dict[str, Any], key: str, valid: Callable[[object], bool], wanted: str
) -> dict[str, Any]:
    patterns = table.get(key) or {}
    if not isinstance(patterns, dict):
        raise _bad(key, patterns, f"an object of module names with {wanted}")
    for pattern, value in patterns.items():
        if len(pattern) > 256 or not _PATTERN.fullmatch(pattern):
            raise _bad(key, pattern, r"module names (letters, digits, . _ - ^ | \. \d+), written out")
        if not valid(value):
            raise _bad(f"{key}[{shown(pattern)}]", value, wanted)
    return patterns


def _is_rank(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 2**31


def _is_alpha(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e30


def _bad(key: str, value: object, wanted: str) -> Refused:
    return Refused(f"{key} is {shown(value)} in {CONFIG}; it must be {wanted}", code="bad_config")
