"""Signatures over an exported folder, by OpenSSF's `model-signing`, with keys of one's own: nothing is asked
of the network. Every file is covered, and a verifier without Hotswap needs only that tool:

    model_signing verify key FOLDER --signature FOLDER/model.sig --public_key KEY.pub --no-ignore-git-paths
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.recipe import TrainingError

FILE = "model.sig"


def sign(folder: Path, key: Path) -> Path:
    """Writes `model.sig` into the folder. `key` is an elliptic curve's private key, PEM.

    Raises `TrainingError` for a key that is none.
    """
    from model_signing import signing

    try:
        signer = signing.Config()  # type: ignore[no-untyped-call]
        signer.use_elliptic_key_signer(private_key=key)
        signer.set_hashing_config(_everything()).sign(folder, folder / FILE)
    except (ValueError, TypeError, OSError) as error:
        raise TrainingError(
            f"cannot sign with {key}: {error}. Make a key: openssl ecparam -name prime256v1 -genkey -noout "
            f"-out {key.name}; openssl ec -in {key.name} -pubout -out {key.name}.pub"
        ) from error
    return folder / FILE


def verify(folder: Path, public_key: Path) -> None:
    """Returns when every file of the folder is as it was signed. Raises `TrainingError` with what is not."""
    from model_signing import verifying

    if not (folder / FILE).is_file():
        raise TrainingError(f"{folder} has no {FILE}: it is not signed")
    try:
        verifier = verifying.Config()  # type: ignore[no-untyped-call]
        verifier.use_elliptic_key_verifier(public_key=public_key)
        verifier.set_hashing_config(_everything()).verify(folder, folder / FILE)
    except (ValueError, TypeError, OSError) as error:
        raise TrainingError(f"{folder} is not what was signed: {error}") from error


def _everything() -> Any:
    """All files but the signature; the library's default leaves git's out, too."""
    from model_signing import hashing

    everything = hashing.Config()  # type: ignore[no-untyped-call]
    return everything.set_ignored_paths(paths=[FILE], ignore_git_paths=False)
