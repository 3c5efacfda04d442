"""`hotswap adapters export`: a version as a folder that runs elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.archive import CONFIG, MANIFEST, WEIGHTS
from adapters.base.manifest import BaseManifest
from training.export import gguf
from training.export.card import model_card
from training.export.merge import merge
from training.export.modelfile import modelfile
from training.export.signature import sign
from training.recipe import TrainingError

GGUF, MODELFILE, CARD = "model.gguf", "Modelfile", "README.md"
FORMS = {
    "merged": "The adapter merged into its base in bfloat16, as safetensors.",
    "gguf": "The adapter merged into its base in bfloat16, as GGUF for llama.cpp and Ollama "
    "(`ollama create NAME -f Modelfile`).",
    "adapter": "A LoRA adapter in PEFT's format; it needs its base.",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """`version` is as the admin API shows it, `card` its report card or None."""

    version: Mapping[str, Any]
    card: Mapping[str, Any] | None
    base: Path
    adapter: Path


def export(
    asked: Exported,
    out: Path,
    form: str,
    key: Path | None,
    say: Callable[[str], None],
    check: Callable[[Path], None],
) -> None:
    """Writes the folder `out`, whole or not at all. `form` is one of `FORMS`, `key` a private key to sign
    with. `check` looks at the folder before it is signed, and raises to refuse it.

    Raises `TrainingError` when the folder exists or the base cannot be written in that format.
    """
    if out.exists():
        raise TrainingError(f"{out} exists; give another folder, or remove it")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if form == "adapter":
            for name in (CONFIG, WEIGHTS, MANIFEST):
                if (asked.adapter / name).is_file():
                    shutil.copyfile(asked.adapter / name, part / name)
        else:
            say("merging the adapter into its base")
            merge(asked.base, asked.adapter, part)
        if form == "gguf":
            _to_gguf(part, asked.base, str(asked.version["name"]), say)
        base = BaseManifest.read(asked.base)
        (part / CARD).write_text(model_card(asked.version, asked.card, base.name, FORMS[form]))
        check(part)
        if key is not None:
            say("signing")
            sign(part, key)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _to_gguf(folder: Path, base: Path, name: str, say: Callable[[str], None]) -> None:
    say(f"writing {GGUF}")
    merged = folder / "merged"
    merged.mkdir()
    for file in folder.iterdir():
        if file != merged:
            file.rename(merged / file.name)
    gguf.write(merged, folder / GGUF, name)
    (folder / MODELFILE).write_text(modelfile(merged, GGUF))
    shutil.rmtree(merged)
    for licence in base.glob("LICENSE*"):
        shutil.copyfile(licence, folder / licence.name)
