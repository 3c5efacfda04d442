"""What a key looks like, and how a caller shows one. The database and the memory hold only its sha256."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from gateway.errors import Unauthorized

SECRET_BYTES = 32
PREFIXES = {"admin": "hs-admin-", "inference": "hs-"}
MISSING = "missing_api_key"


def make(role: str) -> str:
    """A new secret: its role's prefix and 43 characters of base64url for 32 random bytes."""
    return PREFIXES[role] + secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: str) -> bytes:
    """The sha256 it is known by. Plain, since 256 random bits cannot be guessed: stretching buys nothing."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def masked(secret: str) -> str:
    """Enough of it to recognise one's own key, never enough to use it: `hs-abc***wxyz`."""
    shown = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in secret)
    return f"{shown[:6]}***{shown[-4:]}" if len(shown) >= 32 else "***"


def from_header(authorization: bytes | None) -> str:
    """The secret in an Authorization header. Raises `Unauthorized`, code `missing_api_key`, without one."""
    scheme, _, secret = (authorization or b"").strip().partition(b" ")
    secret = secret.strip()
    if scheme.lower() == b"bearer" and secret:
        return secret.decode("utf-8", "surrogateescape")
    if not authorization:
        wrong = "You didn't provide an API key."
    else:
        wrong = "The Authorization header holds no Bearer key."
    raise Unauthorized(
        f"{wrong} Send the header 'Authorization: Bearer YOUR_KEY'; `hotswap keys create` makes a key.",
        code=MISSING,
    )


def read_file(path: Path) -> str | None:
    """The secret kept in a file, or None when there is none."""
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None


def write_file(path: Path, secret: str) -> None:
    """Keep a secret in a file that only its owner reads, wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
