"""`hotswap base prepare`: a base on this machine, checked, fingerprinted, with its licence and exact shapes.

Fetching is `adapters.base.sources`' part. torch and transformers are imported only when there is work to do.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.base.manifest import FILE, BaseError, BaseManifest, BaseMissing, canonical_config, fingerprint
from adapters.base.sources import DEFAULT_HUB_ID, Progress, Source, find

KNOWN_LICENCES = (
    ("Apache License", "apache-2.0"),
    ("MIT License", "mit"),
    ("Llama", "llama community licence"),
)
"""Read in the first lines of a LICENSE file, when no front matter names one."""


def prepare(source: str | None, into: Path, name: str, progress: Progress) -> BaseManifest:
    """Make `into` the folder of a prepared base that clients call `name`, and return its manifest.

    `source` is a folder, a hub id, or None for the default (SmolLM2-135M-Instruct from its PyPI wheel).
    A base that is already there is recognised and returned at once; work that was cut short is redone. The
    folder appears whole or not at all. `progress` gets a line of text for each thing that takes time.
    Raises `BaseError` with what was wrong and what to do.
    """
    into = Path(into).absolute()
    origin = find(source)
    into.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(into):
        if finished := _finished(into, origin, name):
            progress(f"base {name} is ready ({finished.fingerprint[:12]})")
            return finished
        part = into.with_name(f".{into.name}.part")
        if part.exists():
            progress("redoing a preparation that was cut short")
            shutil.rmtree(part)
        part.mkdir()
        try:
            origin.fetch(part, progress)
            manifest = describe(part, origin, name, progress)
            manifest.write(part)
            if into.exists():
                into.rmdir()  # empty, or `_finished` had refused it
            part.rename(into)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    progress(f"base {name} is ready ({manifest.fingerprint[:12]}), licence {manifest.licence}")
    return manifest


def describe(folder: Path, origin: Source, name: str, progress: Progress) -> BaseManifest:
    """The manifest of the model in `folder`. Raises `BaseError` for one that cannot be served."""
    config = json.loads(canonical_config(folder))
    if config.get("auto_map"):
        raise BaseError(
            f"{origin.label} needs code of its own (auto_map in config.json), which is never run here"
        )
    _check_chat(folder, progress)
    linears, hidden_size = shapes(folder)
    progress("fingerprinting")
    names = (name, *origin.hub_names, *(hub_name.rpartition("/")[2] for hub_name in origin.hub_names))
    return BaseManifest(
        name=name,
        fingerprint=fingerprint(folder),
        licence="apache-2.0" if DEFAULT_HUB_ID in origin.hub_names else licence(folder),
        source=origin.label,
        known_names=tuple(dict.fromkeys(names)),
        linears=linears,
        hidden_size=hidden_size,
        quantization=str((config.get("quantization_config") or {}).get("quant_method", "none")),
    )


def shapes(folder: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """Every linear layer's (out_features, in_features) by module path, and the hidden size.

    From the config alone, on torch's meta device: no weight is read, and it is exact for a
    quantized checkpoint too. The output head is left out: an engine serves no adapter on it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # plain layers, quantized or not
    except (ValueError, KeyError, OSError) as error:
        raise BaseError(f"transformers cannot build this model from its config.json: {error}") from error
    head = model.get_output_embeddings()
    linears = {
        path: (module.out_features, module.in_features)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    if not linears:
        raise BaseError(f"{type(model).__name__} has no linear layers that an adapter could change")
    return linears, int(config.get_text_config().hidden_size)


def licence(folder: Path) -> str:
    """From README.md's front matter, config.json, or a LICENSE file's first lines; else "unknown"."""
    readme = folder / "README.md"
    if readme.exists():
        front = re.match(r"---\n(.*?)\n---", readme.read_text(errors="replace"), re.DOTALL)
        named = front and re.search(r"^license(?:_name)?:\s*['\"]?([\w.+ -]+)", front[1], re.MULTILINE)
        if named:
            return named[1].strip().lower()
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    if "license" in config:
        return str(config["license"]).lower()
    for file in sorted(folder.glob("LICENSE*")):
        head = file.read_text(errors="replace")[:500]
        for phrase, known in KNOWN_LICENCES:
            if phrase in head:
                return known
    return "unknown"


def _check_chat(folder: Path, progress: Progress) -> None:
    """An answer must be able to end: the template's end-of-turn token has to be one that stops generation."""
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        progress("this base has no chat template: it serves /v1/completions only and cannot be trained here")
        return
    try:
        stops = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:  # no generation_config.json: engines stop at the tokenizer's own token
        stops = None
    ends = {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], tokenize=False
    )
    ids = tokenizer(turn, add_special_tokens=False)["input_ids"]
    if not ends & set(ids[-3:]):
        raise BaseError(
            f"the chat template ends an answer with {tokenizer.decode(ids[-3:])!r}, which holds none of the "
            f"tokens that stop generation ({sorted(ends)}); mend eos_token_id in generation_config.json"
        )


def _finished(into: Path, origin: Source, name: str) -> BaseManifest | None:
    try:
        manifest = BaseManifest.read(into)
    except BaseMissing:
        if into.exists() and any(into.iterdir()):
            raise BaseError(
                f"{into} is not empty and has no {FILE}: it is no base of ours, and is left alone. "
                "Name another place (base.path), or give this folder as the source"
            ) from None
        return None
    if (manifest.source, manifest.name) != (origin.label, name):
        raise BaseError(
            f"{into} already holds base {manifest.name!r} from {manifest.source}, not {name!r} from "
            f"{origin.label}; name another place (base.name or base.path), or remove that folder"
        )
    return manifest


@contextmanager
def _only_one(into: Path) -> Iterator[None]:
    """Two preparations of one base at once: the second waits, then finds it finished."""
    with into.with_name(f".{into.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
