"""Signatures over an exported folder, by OpenSSF's `model-signing`, with keys of one's own: nothing is asked
of the network. Every file is covered, and a verifier without Hotswap needs only that tool:

    model_signing verify key FOLDER --signature FOLDER/model.sig --public_key KEY.pub
"""

from __future__ import annotations

from pathlib import Path

from training.recipe import TrainingError

FILE = "model.sig"


def sign(folder: Path, key: Path) -> Path:
    """Writes `model.sig` into the folder. `key` is an elliptic curve's private key, PEM.

    Raises `TrainingError` for a key that is none.
    """
    from model_signing import hashing, signing

    signature = folder / FILE
    hashed = hashing.Config().set_ignored_paths(paths=[signature])  # type: ignore[no-untyped-call]
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=key)  # type: ignore[no-untyped-call]
        signer.set_hashing_config(hashed).sign(folder, signature)
    except (ValueError, TypeError, OSError) as error:
        raise TrainingError(
            f"cannot sign with {key}: {error}. Make a key: openssl ecparam -name prime256v1 -genkey -noout "
            f"-out {key.name}; openssl ec -in {key.name} -pubout -out {key.name}.pub"
        ) from error
    return signature


def verify(folder: Path, public_key: Path) -> None:
    """Returns when every file of the folder is as it was signed. Raises `TrainingError` with what is not."""
    from model_signing import verifying

    signature = folder / FILE
    if not signature.is_file():
        raise TrainingError(f"{folder} has no {FILE}: it is not signed")
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public_key).verify(folder, signature)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, OSError) as error:
        raise TrainingError(f"{folder} is not what was signed: {error}") from error
