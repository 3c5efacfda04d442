"""What a recipe may ask for and no engine would serve: refused here with the reason and what works instead.

The reasons are the registry's own (`adapters.loraconfig`), so that a recipe is refused before the training
for what an adapter would be refused for after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.errors import Refused
from adapters.loraconfig import INITS, VARIANTS, check_kind


@dataclass(frozen=True, slots=True)
class Unserved:
    """`key` with `value` cannot be served: why, and the nearest thing that can."""

    key: str
    value: object
    reason: str
    nearest: str

    def __str__(self) -> str:
        return f"recipe: {self.reason}. Nearest that works: {self.nearest}"


_SPELLINGS = {
    "dora": "use_dora",
    "alora": "alora_invocation_tokens",
    "invocation_tokens": "alora_invocation_tokens",
    "qalora": "use_qalora",
    "bdlora": "use_bdlora",
    "trainable_tokens": "trainable_token_indices",
    "init_lora_weights": "init",
    "use_rslora": "rslora",
}
"""How else people write what PEFT calls by another name; the last two are ours and served."""

_NEAREST = {
    "use_dora": "rslora = true with twice the rank, which closes most of the gap",
    "alora_invocation_tokens": "a plain adapter, and a route of its own that only those requests name",
    "lora_bias": "a higher rank; a bias adds little to it",
    "bias": 'bias left out (it is "none"), and a higher rank',
    "modules_to_save": "rank 32 or more on every linear layer; output head and embeddings stay the base's",
    "use_qalora": "leave it out: the base is in NF4 already (QLoRA)",
    "use_bdlora": "leave it out; any rank up to the fleet's",
    "layer_replication": "a larger base (hotswap base prepare HUB-ID)",
    "fan_in_fan_out": "leave it out; it is for Conv1D layers, which cannot be served with adapters",
    "trainable_token_indices": "write new words with tokens the base has: it learns them from several "
    "hundred rows",
    "target_parameters": "a base whose layers are plain linear ones",
}

_WHOLE = {
    "full": "full fine-tuning",
    "full_finetuning": "full fine-tuning",
    "full_fine_tuning": "full fine-tuning",
    "freeze_layers": "full fine-tuning of some layers",
}
_NEW_WORDS = ("new_tokens", "add_tokens", "additional_special_tokens", "vocabulary", "vocab_size")
_NOT_TARGETS = ("lm_head", "embed_tokens", "wte", "embeddings")

_INIT_NEAREST = 'init = "eva" (begins from the rows too, and changes the adapter only), or "default"'


def objection(key: str, value: Any) -> Unserved | None:
    """Why no engine would serve a recipe in which `key` is `value`; None: this is no such key, or is off."""
    if value in (None, False, [], {}, ""):
        return None
    peft = _SPELLINGS.get(key, key)
    if key in _WHOLE:
        return Unserved(
            key,
            value,
            f"{key} is {value!r}: {_WHOLE[key]} gives a base of its own, and a fleet serves one base with "
            "adapters on it",
            "LoRA on every linear layer with the fleet's largest rank (preset = 'thorough')",
        )
    if key in _NEW_WORDS:
        return Unserved(
            key,
            value,
            f"{key} is {value!r}: new vocabulary needs new rows in the base's embedding, which engines share "
            "between all adapters",
            _NEAREST["trainable_token_indices"],
        )
    if peft == "bias" and value == "none":
        return None
    if peft == "init":
        return _init(key, value)
    if peft in VARIANTS or peft == "bias":
        try:
            check_kind({"peft_type": "LORA", peft: value})
        except Refused as refused:
            return Unserved(key, value, _first(refused), _NEAREST[peft])
    if key in ("modules", "target_modules"):
        return _modules(key, value)
    return None


def _init(key: str, value: Any) -> Unserved | None:
    if not isinstance(value, str) or value.lower() in (*INITS, "default"):
        return None
    try:
        check_kind({"peft_type": "LORA", "init_lora_weights": value})
    except Refused:
        return Unserved(
            key,
            value,
            f"{key} is {value!r}, which also changes the base's weights: served on the plain base it would "
            "be wrong",
            _INIT_NEAREST,
        )
    return None


def _modules(key: str, value: Any) -> Unserved | None:
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
    if names == ["all-linear"]:
        return None
    outside = [name for name in names if str(name).rpartition(".")[2] in _NOT_TARGETS]
    reason = (
        f"{key} names {outside[0]!r}: engines serve no adapter on the output head or the embeddings"
        if outside
        else f"{key} is {value!r}: this trainer adapts every linear layer, which is what the fleet serves "
        "and what learns most at a given size (Biderman et al., 2024)"
    )
    return Unserved(key, value, reason, f'{key} left out, or "all-linear"')


def rank(wanted: int, largest: int) -> Unserved | None:
    """A rank above what the fleet's engines were started with."""
    if wanted <= largest:
        return None
    return Unserved(
        "rank",
        wanted,
        f"rank is {wanted}; this fleet serves up to {largest}, and an engine answers 500 to more",
        f"rank = {largest} with rslora = true, or engines with engine.max_lora_rank = {_rounded(wanted)}",
    )


def _rounded(wanted: int) -> int:
    """vLLM's steps of --max-lora-rank."""
    return next((step for step in (1, 8, 16, 32, 64, 128, 256, 320, 512) if step >= wanted), 512)


def _first(refused: Refused) -> str:
    """The registry's reason without its advice, which is for adapters that are trained already."""
    return str(refused).partition(". ")[0]


def known() -> Mapping[str, str]:
    """Every key that is refused by name, with the nearest thing that works: for the documentation's test."""
    whole = dict.fromkeys(_WHOLE, "LoRA on every linear layer")
    words = dict.fromkeys(_NEW_WORDS, _NEAREST["trainable_token_indices"])
    return {**_NEAREST, **{s: _NEAREST[p] for s, p in _SPELLINGS.items() if p in _NEAREST}, **whole, **words}
