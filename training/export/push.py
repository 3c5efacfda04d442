"""`hotswap adapters push`: an exported folder to an OCI registry (`oci://HOST/NAME:TAG`) or to a Hugging Face
hub (`hf://ORG/NAME`).

In a registry it is an artifact of one layer a file, as `oras push` makes it: `oras pull` brings the folder
back. Who may push is looked up where docker and oras look (`docker login`), or in HF_TOKEN.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from training.recipe import TrainingError

OCI, HUB = "oci://", "hf://"
ARTIFACT = "application/vnd.hotswap.adapter.v1"

WHOLE_BYTES = 1 << 30
"""A larger file is not read whole."""

REACHED_S = 10.0

Say = Callable[[str], None]


def push(folder: Path, to: str, *, insecure: bool, public: bool, say: Say) -> str:
    """Where it is then, for good: a registry's name with the digest, or a hub's commit.

    `insecure`: over HTTP. `public`: a repository that is made on a hub is not private. Raises
    `TrainingError`.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    if not files:
        raise TrainingError(f"{folder} has no files; make it: hotswap adapters export REF --out {folder}")
    if to.startswith(OCI):
        return _registry(folder, files, to.removeprefix(OCI), insecure, say)
    if to.startswith(HUB):
        return _hub(folder, to.removeprefix(HUB), public, say)
    raise TrainingError(f"{to} names no place; write oci://HOST/NAME:TAG or hf://ORG/NAME")


def _registry(folder: Path, files: list[Path], target: str, insecure: bool, say: Say) -> str:
    import requests
    from oras.client import OrasClient

    if any(file.parent != folder for file in files):
        raise TrainingError(f"{folder} has folders in it; push what `hotswap adapters export` wrote")
    if "/" not in target or ":" not in target.rpartition("/")[2]:
        raise TrainingError(f"oci://{target}: write oci://HOST/NAME:TAG")
    say(f"pushing {len(files)} files to {target}")
    host = f"{'http' if insecure else 'https'}://{target.partition('/')[0]}"
    try:
        requests.get(f"{host}/v2/", timeout=REACHED_S)  # oras would try for two minutes before it says so
        client = OrasClient(insecure=insecure)
        done = client.push(
            target,
            files=[f"{file}:{_kind(file)}" for file in files],
            manifest_annotations={"org.opencontainers.artifact.type": ARTIFACT},
            disable_path_validation=True,
            do_chunked=max(file.stat().st_size for file in files) > WHOLE_BYTES,
            quiet=True,
        )
    except (requests.RequestException, ValueError, OSError) as error:
        raise TrainingError(
            f"{target} did not take it: {error}. Is `docker login` done, and does the name exist? A registry "
            "without TLS needs --insecure"
        ) from error
    body = done.request.body or b""
    digest = hashlib.sha256(body if isinstance(body, bytes) else body.encode()).hexdigest()
    return f"{OCI}{target.rpartition(':')[0]}@sha256:{digest}"


def _kind(file: Path) -> str:
    """The media type of a file's layer."""
    kinds = {".json": "application/json", ".md": "text/markdown"}
    return kinds.get(file.suffix, "application/octet-stream")


def _hub(folder: Path, name: str, public: bool, say: Say) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if name.count("/") != 1:
        raise TrainingError(f"hf://{name}: write hf://ORG/NAME")
    say(f"pushing to the hub, {name}")
    try:
        hub = HfApi()
        hub.create_repo(name, private=not public, exist_ok=True)
        done = hub.upload_folder(repo_id=name, folder_path=folder, commit_message="hotswap adapters push")
    except (HfHubHTTPError.__bases__[0], ValueError, OSError) as error:  # the first: its HTTP client's
        raise TrainingError(
            f"the hub did not take {name}: {error}. A token that may write is looked for in HF_TOKEN, "
            "another hub in HF_ENDPOINT"
        ) from error
    return str(done.commit_url)
