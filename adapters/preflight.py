"""Accept or refuse an adapter before any engine sees it. No torch: headers are read, values scanned by numpy.

vLLM takes an adapter of another base without a word, leaks a slot on a failed load and answers 500 to a rank
above its maximum; so everything that can be known from the files is decided here, by name:

- adapters.loraconfig: `missing_file` `bad_config` `not_lora` `dora` `alora` `bias` `modules_to_save` `qalora`
  `bdlora` `layer_replication` `fan_in_fan_out` `trainable_tokens` `target_parameters` `unsupported_init`
  `unknown_feature`
- adapters.weights: `truncated` `pickle_weights` `bad_header` `bad_dtype` `not_finite`
- here: `other_base` `rank_too_high` `unknown_tensor` `unknown_module` `missing_tensor` `untargeted_module`
  `wrong_shape` `wrong_rank` `bad_manifest`
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import loraconfig, weights
from adapters.archive import CONFIG, MANIFEST, WEIGHTS
from adapters.errors import Refused, TooBig
from adapters.loraconfig import LoraConfig
from adapters.strictjson import read_object, shown
from adapters.weights import Tensor

if TYPE_CHECKING:
    from adapters.base.manifest import BaseManifest

PREFIX = "base_model.model."
_SUFFIX = {".lora_A.weight": "A", ".lora_B.weight": "B"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the fleet serves (`max_rank`) and the registry takes (`max_bytes`)."""

    max_rank: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """The largest rank, the kinds of modules ("q_proj"), the dtypes joined by "+", the values in all."""

    rank: int
    target_modules: tuple[str, ...]
    dtype: str
    parameters: int


def check(
    folder: Path, base: BaseManifest, limits: Limits, claim: str | None, assume_base: bool = False
) -> Inspection:
    """What the adapter in `folder` is, when `base` can serve it exactly. Reads every byte once; blocks.

    `claim` is the fingerprint of the base it was trained on, as its manifest says. Without a claim, the name
    in `adapter_config.json` must be one of `base.known_names`, unless `assume_base`. Raises `Refused` and
    `TooBig`.
    """
    config = loraconfig.read(folder)
    _check_base(config, base, claim, assume_base)
    if config.largest_rank > limits.max_rank:
        raise Refused(
            f"the adapter has rank {config.largest_rank}; this fleet serves up to {limits.max_rank}. Retrain "
            f"with r<={limits.max_rank} or start engines with a larger engine.max_lora_rank",
            code="rank_too_high",
        )
    path = folder / WEIGHTS
    if not path.is_file():
        raise Refused(
            f"{WEIGHTS} is missing; save the adapter with safe_serialization=True", code="missing_file"
        )
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.max_bytes:
            raise TooBig(
                f"{WEIGHTS} has {size} bytes; at most {limits.max_bytes} are taken. Use a lower rank "
                "or fewer "
                "modules, or raise registry.max_adapter_bytes"
            )
        tensors = weights.read_header(file, size, limit=(1 << 20) + 1024 * len(base.linears))
        modules = _check_tensors(tensors, config, base)
        weights.check_finite(file, tensors)
    return Inspection(
        rank=max(config.rank_of(module) for module in modules),
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in modules})),
        dtype="+".join(sorted({tensor.dtype for tensor in tensors})),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The uploader's `hotswap.json`, {} when there is none. Raises `Refused` (code `bad_manifest`)."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    if path.stat().st_size > 1 << 16:
        raise Refused(f"{MANIFEST} has {path.stat().st_size} bytes; at most 65536", code="bad_manifest")
    manifest = read_object(path.read_bytes(), MANIFEST, code="bad_manifest")
    for key in ("base_fingerprint", "licence"):
        if not isinstance(manifest.get(key), str | None):
            raise Refused(f"{key} is {shown(manifest[key])} in {MANIFEST}; write text", code="bad_manifest")
    return manifest


def _check_base(config: LoraConfig, base: BaseManifest, claim: str | None, assume_base: bool) -> None:
    if claim is not None:
        if claim != base.fingerprint:
            raise Refused(
                f"the adapter was trained on a base with fingerprint {shown(claim[:16])}; this fleet serves "
                f"{base.name}, {base.fingerprint[:16]}. Retrain on this base, or serve that one",
                code="other_base",
            )
        return
    if assume_base or (config.base is not None and _names(config.base, base.known_names)):
        return
    raise Refused(
        f"{CONFIG} names the base {shown(config.base)}; this fleet serves {base.name}, known as "
        f"{', '.join(base.known_names) or 'nothing else'}. If it is the same, say so (--assume-base), "
        "or give its "
        f"fingerprint as base_fingerprint in {MANIFEST}",
        code="other_base",
    )


def _names(text: str, known: Iterable[str]) -> bool:
    """Whether `text` is a known name, or a path that ends with one. Hub ids ignore case."""
    path = "/" + text.rstrip("/").casefold()
    return any(path.endswith("/" + name.casefold()) for name in known)


def _check_tensors(tensors: tuple[Tensor, ...], config: LoraConfig, base: BaseManifest) -> set[str]:
    halves: dict[str, set[str]] = {}
    for tensor in tensors:
        module, half = _parse(tensor.name)
        if module not in base.linears:
            raise Refused(
                f"{shown(tensor.name)} is for the module {shown(module)}, which {base.name} does not "
                "have as a "
                "linear layer. Retrain on this base, without the output layer and the embeddings",
                code="unknown_module",
            )
        _check_shape(tensor, module, half, config.rank_of(module), base)
        halves.setdefault(module, set()).add(half)
    for module, found in halves.items():
        if len(found) != 2:
            raise Refused(
                f"{shown(module)} has lora_{found.pop()} only; both lora_A and lora_B are needed. "
                "Save it again",
                code="missing_tensor",
            )
    _check_targets(set(halves), config, base)
    return set(halves)


def _parse(name: str) -> tuple[str, str]:
    for suffix, half in _SUFFIX.items():
        if name.startswith(PREFIX) and name.endswith(suffix):
            return name[len(PREFIX) : -len(suffix)], half
    raise Refused(
        f"the tensor {shown(name)} is not a plain LoRA weight: {PREFIX}MODULE.lora_A.weight or "
        ".lora_B.weight. "
        "Save the adapter with PEFT's save_pretrained, without other trained parts",
        code="unknown_tensor",
    )


def _check_shape(tensor: Tensor, module: str, half: str, rank: int, base: BaseManifest) -> None:
    outputs, inputs = base.linears[module]
    wanted = (rank, inputs) if half == "A" else (outputs, rank)
    if tensor.shape == wanted:
        return
    side = 1 if half == "A" else 0
    if len(tensor.shape) == 2 and tensor.shape[side] == wanted[side]:
        raise Refused(
            f"{shown(tensor.name)} has rank {tensor.shape[1 - side]}; {CONFIG} says {rank}, which "
            "engines would "
            "scale by. Save both from the same run",
            code="wrong_rank",
        )
    raise Refused(
        f"{shown(tensor.name)} has shape {list(tensor.shape)}; on {base.name} it must be {list(wanted)}. "
        "It was trained on another base: retrain on this one",
        code="wrong_shape",
    )


def _check_targets(modules: set[str], config: LoraConfig, base: BaseManifest) -> None:
    """Tensors and `target_modules` must agree: PEFT drops tensors not targeted, engines apply them."""
    if not modules:
        raise Refused(f"{WEIGHTS} holds no tensors; save the trained adapter", code="missing_tensor")
    if config.targets is None and not config.all_linear:
        return  # a regular expression; to run a stranger's is to hand him the processor
    targeted = set(base.linears)
    if config.targets is not None:
        targeted = set()
        for target in config.targets:
            of_target = {m for m in base.linears if m == target or m.endswith("." + target)}
            if not of_target:
                raise Refused(
                    f"target_modules names {shown(target)}, which {base.name} does not have as a "
                    "linear layer. "
                    "Retrain on this base, without the output layer and the embeddings",
                    code="unknown_module",
                )
            if not of_target & modules:
                raise Refused(
                    f"target_modules names {shown(target)}, but {WEIGHTS} has no tensors for it. Save "
                    "it again",
                    code="missing_tensor",
                )
            targeted |= of_target
    if extra := modules - targeted:
        raise Refused(
            f"{WEIGHTS} has tensors for {shown(min(extra))}, which target_modules does not name: PEFT would "
            "leave them out, engines would not. Save both from the same run",
            code="untargeted_module",
        )
    if (missing := targeted - modules) and not config.partial:
        raise Refused(
            f"{WEIGHTS} has no tensors for {shown(min(missing))} ({len(missing)} modules in all), which "
            "target_modules names. Save it again",
            code="missing_tensor",
        )
