"""What a prepared base is: its identity, licence and the exact shapes an adapter for it must have.

Light on purpose: the gateway and the registry's preflight read it, so nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "base.json"
CHUNK = 4 * 2**20

TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
UNSTABLE_CONFIG_KEYS = ("_name_or_path", "transformers_version", "torch_dtype")
"""Written by the library, not properties of the model: two saves of one model differ in them."""


class BaseError(Exception):
    """Something about a base is wrong; the message says what, and what to do."""


class BaseMissing(BaseError, FileNotFoundError):
    """No prepared base in the folder that was named."""


@dataclass(frozen=True, slots=True)
class BaseManifest:
    """The base, as `hotswap base prepare` recorded it in `base.json`.

    `fingerprint` is 64 hex digits (see `fingerprint`). `known_names` are the hub ids and folder names by
    which an adapter's config may call this base. `linears` maps the module path of every linear layer in the
    HF model ("model.layers.0.self_attn.q_proj") to (out_features, in_features), embeddings and output head
    excluded. `quantization` is how the checkpoint itself is stored ("none" for plain weights), not how it is
    served.
    """

    name: str
    fingerprint: str
    licence: str
    source: str
    known_names: tuple[str, ...]
    linears: Mapping[str, tuple[int, int]]
    hidden_size: int
    quantization: str

    @classmethod
    def read(cls, folder: Path) -> BaseManifest:
        """Raises `BaseMissing` where there is none, `BaseError` for a file that is not one."""
        file = Path(folder) / FILE
        try:
            fields: dict[str, Any] = json.loads(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise BaseMissing(f"no prepared base at {folder}; run: hotswap base prepare") from None
        except ValueError as error:
            raise BaseError(f"{file} is not valid JSON ({error}); run: hotswap base prepare") from error
        try:
            return cls(
                name=str(fields["name"]),
                fingerprint=str(fields["fingerprint"]),
                licence=str(fields["licence"]),
                source=str(fields["source"]),
                known_names=tuple(fields["known_names"]),
                linears={path: (int(out), int(into)) for path, (out, into) in fields["linears"].items()},
                hidden_size=int(fields["hidden_size"]),
                quantization=str(fields["quantization"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BaseError(
                f"{file} is not a base manifest: {type(error).__name__} {error}; run: hotswap base prepare"
            ) from error

    def write(self, folder: Path) -> None:
        """Write `base.json` into `folder`, all or nothing."""
        fields = {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "licence": self.licence,
            "source": self.source,
            "known_names": list(self.known_names),
            "hidden_size": self.hidden_size,
            "quantization": self.quantization,
            "linears": {path: list(shape) for path, shape in self.linears.items()},
        }
        part = Path(folder) / (FILE + ".part")
        with part.open("w") as file:
            json.dump(fields, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(Path(folder) / FILE)


def fingerprint(folder: Path) -> str:
    """sha256, 64 hex digits, over all that decides what the base computes from a list of messages.

    The hash is fed with parts, in this order, each as `<label>\\n<length in bytes>\\n<bytes>`:

    - `config`: config.json without the keys that a library writes for itself (`UNSTABLE_CONFIG_KEYS`), as
      compact JSON with sorted keys. The checkpoint's own quantization is in it (`quantization_config`).
    - `quantization`: quantize_config.json or quant_config.json where an older checkpoint has one, as it is.
    - `weights/<name>`: every *.safetensors in the folder, by name, as it is.
    - `tokenizer/<name>`: each of `TOKENIZER_FILES` that is there, by name, as it is.
    - `template/<name>`: each of `TEMPLATE_FILES` that is there, by name, as it is.

    How the base is served (NF4, bf16) is not in it: an adapter fits the base under either.
    Raises `BaseError` when config.json or the weights are missing. Memory is constant.
    """
    digest = hashlib.sha256()

    def feed(label: str, size: int, chunks: Iterator[bytes]) -> None:
        digest.update(f"{label}\n{size}\n".encode())
        for chunk in chunks:
            digest.update(chunk)

    config = canonical_config(folder)
    feed("config", len(config), iter((config,)))
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BaseError(f"{folder} has no *.safetensors weights; a base must be saved as safetensors")
    named = [("quantization", folder / name) for name in ("quant_config.json", "quantize_config.json")]
    named += [(f"weights/{file.name}", file) for file in weights]
    named += [(f"tokenizer/{name}", folder / name) for name in TOKENIZER_FILES]
    named += [(f"template/{name}", folder / name) for name in TEMPLATE_FILES]
    for label, file in named:
        if file.exists():
            feed(label, file.stat().st_size, _chunks(file))
    return digest.hexdigest()


def canonical_config(folder: Path) -> bytes:
    """config.json as the fingerprint sees it. Raises `BaseError` when it is missing or not an object."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise BaseError(f"{folder} has no config.json; it is not a model in Hugging Face layout") from None
    except ValueError as error:
        raise BaseError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise BaseError(f"{file} holds {type(config).__name__}, not an object")
    stable = {key: value for key, value in config.items() if key not in UNSTABLE_CONFIG_KEYS}
    return json.dumps(stable, sort_keys=True, separators=(",", ":")).encode()


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk
