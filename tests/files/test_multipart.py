"""An upload reads alike, however the network cuts it."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, TooLarge
from gateway.files.blobs import Blobs
from gateway.files.multipart import Upload

KIND = "multipart/form-data; boundary=cut"


def form(content: bytes, purpose: str = "fine-tune") -> bytes:
    return (
        b'--cut\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
        + purpose.encode()
        + b'\r\n--cut\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + content
        + b"\r\n--cut--\r\n"
    )


@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(0, 500), max_size=8))
def test_every_cut_gives_the_same_file(content: bytes, cuts: list[int]) -> None:
    if b"--cut" in content:
        return
    body = form(content)
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    with tempfile.TemporaryDirectory() as folder, Blobs(Path(folder)).staging() as staged:
        upload = Upload(KIND, staged, 1000)
        for begin, end in itertools.pairwise(places):
            upload.feed(body[begin:end])
        upload.finish()
        staged.seal()
        assert (content, {"purpose": "fine-tune"}, "a.jsonl") == (
            staged.path.read_bytes(),
            upload.fields,
            upload.filename,
        )


def test_a_file_above_the_bound_is_refused_before_all_of_it_is_there(tmp_path: Path) -> None:
    with Blobs(tmp_path).staging() as staged, pytest.raises(TooLarge, match="more than 10 bytes"):
        Upload(KIND, staged, 10).feed(form(b"x" * 100)[:-20])


def test_a_form_that_breaks_off_is_no_upload(tmp_path: Path) -> None:
    with Blobs(tmp_path).staging() as staged:
        upload = Upload(KIND, staged, 1000)
        upload.feed(form(b"abc")[:-10])
        with pytest.raises(BadRequest, match="ends before its last boundary"):
            upload.finish()
