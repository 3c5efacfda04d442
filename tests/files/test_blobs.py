"""Blobs are whole or absent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gateway.files.blobs import Blobs


def staging(root: Path) -> list[str]:
    return [path.name for path in (root / "staging").iterdir() if path.name != ".lock"]


def test_a_published_blob_is_found_by_its_digest(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    with blobs.staging() as staged:
        staged.write(b"abc")
        digest = staged.seal()
        blobs.publish(staged, digest)
    assert hashlib.sha256(b"abc").hexdigest() == digest
    assert b"abc" == blobs.path(digest).read_bytes()


def test_what_was_not_published_is_gone(tmp_path: Path) -> None:
    with Blobs(tmp_path).staging() as staged:
        staged.write(b"abc")
    assert [] == staging(tmp_path)


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    (tmp_path / "staging" / "left").write_bytes(b"half")
    with blobs.staging() as staged:
        Blobs(tmp_path)
        assert [staged.path.name] == staging(tmp_path)


def test_a_digest_that_is_none_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sha256 digest"):
        Blobs(tmp_path).path("../../etc/passwd")
