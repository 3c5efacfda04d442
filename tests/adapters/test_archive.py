"""A tar from a stranger goes into its folder, or nowhere."""

from __future__ import annotations

import errno
import gzip
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.archive import CONFIG, MANIFEST, WEIGHTS, Extractor, pack
from adapters.errors import AdapterError, Refused, StoreFull, TooBig
from tests.adapters.conftest import tar

GOOD = ((CONFIG, b"{}"), (WEIGHTS, b"w" * 1000))


def extract(folder: Path, data: bytes, *, step: int = 700, max_bytes: int = 1_000_000) -> None:
    with Extractor(folder, max_bytes=max_bytes) as extractor:
        for start in range(0, len(data), step):
            extractor.feed(data[start : start + step])
        extractor.finish()


def refusal(folder: Path, data: bytes) -> str | None:
    """The code it is refused with; also asserts that nothing is left."""
    with pytest.raises(Refused) as caught:
        extract(folder, data)
    assert [] == list(folder.iterdir())
    return caught.value.code


def member(name: str, kind: bytes, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info, b""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The staging folder; its parent holds nothing else."""
    inner = tmp_path / "cell" / "staging"
    inner.mkdir(parents=True)
    return inner


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("step", [1, 511, 512, 100_000])
def test_a_plain_tar_is_extracted_however_it_is_cut(folder: Path, form: int, step: int) -> None:
    extract(folder, tar(*GOOD, (MANIFEST, b'{"licence":"MIT"}'), form=form), step=step)
    assert {CONFIG: b"{}", WEIGHTS: b"w" * 1000, MANIFEST: b'{"licence":"MIT"}'} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_a_tar_made_with_dot_slash_and_a_root_folder_is_extracted(folder: Path) -> None:
    extract(folder, tar(member("./", tarfile.DIRTYPE), ("./" + CONFIG, b"{}"), ("./" + WEIGHTS, b"w")))
    assert {CONFIG, WEIGHTS} == {path.name for path in folder.iterdir()}


def test_pax_times_as_python_writes_them_are_no_obstacle(folder: Path) -> None:
    info = tarfile.TarInfo(CONFIG)
    info.mtime, info.size = 1.5, 2
    extract(folder, tar((info, b"{}"), GOOD[1]))
    assert b"{}" == (folder / CONFIG).read_bytes()


def test_a_model_card_is_taken_and_not_kept(folder: Path) -> None:
    extract(folder, tar(*GOOD, ("README.md", b"# hello")))
    assert {CONFIG, WEIGHTS} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("path_escapes", ("../" + CONFIG, b"x")),
        ("path_escapes", ("a/../../" + CONFIG, b"x")),
        ("absolute_path", ("/tmp/" + CONFIG, b"x")),
        ("link", member(WEIGHTS, tarfile.SYMTYPE, linkname="/etc/passwd")),
        ("link", member(WEIGHTS, tarfile.LNKTYPE, linkname=CONFIG)),
        ("device", member(WEIGHTS, tarfile.CHRTYPE)),
        ("device", member(WEIGHTS, tarfile.BLKTYPE)),
        ("device", member(WEIGHTS, tarfile.FIFOTYPE)),
        ("unexpected_folder", member("adapter", tarfile.DIRTYPE)),
        ("sparse", member(WEIGHTS, tarfile.GNUTYPE_SPARSE)),
        ("sparse", member(WEIGHTS, b"0", pax_headers={"GNU.sparse.major": "1"})),
        ("duplicate_file", (CONFIG, b"{}")),
        ("duplicate_file", ("./" + CONFIG, b"{}")),
        ("pickle_weights", ("adapter_model.bin", b"x")),
        ("pickle_weights", ("adapter_model.pt", b"x")),
        ("pickle_weights", ("adapter_model.pth", b"x")),
        ("pickle_weights", ("weights.PKL", b"x")),
        ("pickle_weights", ("a/last.ckpt", b"x")),
        ("unexpected_file", ("tokenizer.json", b"x")),
        ("unexpected_file", ("adapter/" + CONFIG, b"x")),
        ("unexpected_file", ("n" * 300, b"x")),
        ("file_too_large", (MANIFEST, b" " * 70_000)),
        ("bad_archive", member(WEIGHTS, b"7")),
    ],
)
def test_what_is_no_plain_known_file_is_refused(folder: Path, code: str, bad: tuple[str, bytes]) -> None:
    assert code == refusal(folder, tar(GOOD[0], bad))


def test_nothing_is_written_outside_the_folder(folder: Path) -> None:
    refusal(folder, tar(("../escaped.json", b"x")))
    assert [folder] == list(folder.parent.iterdir())


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_ten_gigabytes_of_zeros_are_refused_on_their_header(folder: Path, form: int) -> None:
    info = tarfile.TarInfo(WEIGHTS)
    info.size = 10 * 2**30
    header = info.tobuf(form)
    with Extractor(folder, max_bytes=2 * 2**30) as extractor, pytest.raises(TooBig):
        extractor.feed(header)
    assert [] == list(folder.iterdir())


def test_files_that_are_too_big_only_together_are_refused(folder: Path) -> None:
    with pytest.raises(TooBig):
        extract(folder, tar((CONFIG, b" " * 600), (WEIGHTS, b"w" * 600)), max_bytes=1000)
    assert [] == list(folder.iterdir())


def test_endless_padding_after_the_end_is_refused(folder: Path) -> None:
    with pytest.raises(TooBig):
        extract(folder, tar(*GOOD) + bytes(8 << 20), step=1 << 20)


@pytest.mark.parametrize("keep", [0, 100, 512, 700, 1024, 1500, 2048, 2500])
def test_a_tar_that_ends_too_early_is_refused(folder: Path, keep: int) -> None:
    assert "truncated" == refusal(folder, tar(*GOOD)[:keep])


def test_a_tar_without_the_weights_is_refused(folder: Path) -> None:
    assert "missing_file" == refusal(folder, tar(GOOD[0]))


@pytest.mark.parametrize(
    "magic", [gzip.compress(b"x"), b"BZh91AY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\3\4"]
)
def test_compressed_data_is_refused_by_its_name(folder: Path, magic: bytes) -> None:
    assert "compressed" == refusal(folder, magic + bytes(1000))


def test_a_wrong_checksum_is_refused(folder: Path) -> None:
    data = bytearray(tar(*GOOD))
    data[0] ^= 1
    assert "bad_archive" == refusal(folder, bytes(data))


def test_a_size_that_is_no_number_is_refused(folder: Path) -> None:
    header = bytearray(tar(GOOD[0])[:512])
    header[124:136] = b"0000000009x\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert "bad_archive" == refusal(folder, bytes(header) + bytes(2048))


@pytest.mark.parametrize("size", ["", "x", "-1", "1" * 30, "\N{SUPERSCRIPT TWO}"])
def test_a_pax_size_that_is_no_number_is_refused(folder: Path, size: str) -> None:
    info = tarfile.TarInfo(CONFIG)
    info.pax_headers = {"size": size}
    assert "bad_archive" == refusal(folder, tar((info, b"")))


def test_a_second_tar_behind_the_first_is_refused(folder: Path) -> None:
    assert "bad_archive" == refusal(folder, tar(*GOOD) + tar((MANIFEST, b"{}")))


def test_a_pax_header_of_a_megabyte_is_refused(folder: Path) -> None:
    info = tarfile.TarInfo(CONFIG)
    info.pax_headers = {"comment": "x" * 2**20}
    with pytest.raises(Refused, match="claims 1048"):
        extract(folder, tar((info, b""))[:512])  # on its header, before any of it is kept


@pytest.mark.parametrize(
    "records", [b"x path=a\n", b"8 path=a\n", b"99 path=a\n", b"0 \n", b"10 path a\n\n", b"nothing"]
)
def test_a_pax_header_that_is_not_made_of_records_is_refused(folder: Path, records: bytes) -> None:
    header = member("pax", b"x", size=len(records))[0].tobuf(tarfile.USTAR_FORMAT)
    data = header + records.ljust(512, b"\0") + tar(*GOOD)
    with pytest.raises(Refused, match="not made of records"):
        extract(folder, data)


def test_a_root_folder_with_content_is_refused(folder: Path) -> None:
    with pytest.raises(Refused, match="root folder claims 512 bytes"):
        extract(folder, member("./", tarfile.DIRTYPE, size=512)[0].tobuf(tarfile.GNU_FORMAT))


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(folder: Path) -> None:
    written = 0

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal written
        if written > 300:
            raise OSError(errno.ENOSPC, "No space left on device")
        written += (count := os.write(descriptor, data[:100]))
        return count

    with Extractor(folder, max_bytes=10_000, write=write) as extractor, pytest.raises(StoreFull):
        extractor.feed(tar(*GOOD))
    assert [] == list(folder.iterdir())


def test_a_disk_that_breaks_is_not_called_full_and_leaves_nothing(folder: Path) -> None:
    def write(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with Extractor(folder, max_bytes=10_000, write=write) as extractor, pytest.raises(OSError, match="Input"):
        extractor.feed(tar(*GOOD))
    assert [] == list(folder.iterdir())


def test_short_writes_lose_nothing(folder: Path) -> None:
    with Extractor(folder, max_bytes=10_000, write=lambda fd, data: os.write(fd, data[:7])) as extractor:
        extractor.feed(tar(*GOOD))
        extractor.finish()
    assert b"w" * 1000 == (folder / WEIGHTS).read_bytes()


def test_after_a_refusal_nothing_more_is_taken(folder: Path) -> None:
    extractor = Extractor(folder, max_bytes=10_000)
    with pytest.raises(Refused, match="leads out of the archive"):
        extractor.feed(tar(("../x", b"")))
    with pytest.raises(Refused, match="leads out of the archive"):
        extractor.feed(tar(*GOOD))
    with pytest.raises(Refused, match="leads out of the archive"):
        extractor.finish()
    assert [] == list(folder.iterdir())


def test_memory_does_not_grow_with_the_adapter(folder: Path) -> None:
    info = tarfile.TarInfo(WEIGHTS)
    info.size = 64 << 20
    chunk = bytes(1 << 16)
    tracemalloc.start()
    with Extractor(folder, max_bytes=1 << 30) as extractor:
        extractor.feed(tar(GOOD[0])[:1024] + info.tobuf())
        for _ in range(info.size // len(chunk)):
            extractor.feed(chunk)
        extractor.feed(bytes(1024))
        extractor.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 64 << 20 == (folder / WEIGHTS).stat().st_size
    assert peak < 1 << 20


def test_what_pack_writes_extractor_takes(folder: Path, adapter: Callable[..., Path]) -> None:
    source = adapter()
    (source / "optimizer.pt").write_bytes(b"not to be sent")
    extract(folder, b"".join(pack(source, chunk_bytes=1000)), max_bytes=10_000_000)
    assert {name: (source / name).read_bytes() for name in (CONFIG, WEIGHTS, MANIFEST)} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_pack_sends_pickled_weights_so_that_the_server_says_why_not(folder: Path, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x02}.")
    assert "pickle_weights" == refusal(folder, b"".join(pack(tmp_path)))


def test_pack_says_what_a_folder_without_an_adapter_lacks(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"adapter_model\.safetensors are needed"):
        list(pack(tmp_path))


def test_pack_notices_a_file_that_grows_under_it(adapter: Callable[..., Path]) -> None:
    source = adapter()
    parts = pack(source, chunk_bytes=1000)
    next(parts)
    with (source / CONFIG).open("ab") as file:
        file.write(b" " * 2000)
    with pytest.raises(Refused, match="changed while it was read"):
        list(parts)


MEMBERS = st.builds(
    lambda name, kind, size, content: member(name, kind, size=size)[0].tobuf(tarfile.GNU_FORMAT) + content,
    st.sampled_from([CONFIG, WEIGHTS, MANIFEST, "../x", "/x", "x/y", "a.bin", "./", "\udcff"]),
    st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"x", b"g", b"L", b"K", b"?"]),
    st.sampled_from([0, 1, 5, 512, 513, 10**12]),
    st.sampled_from([b"", bytes(512), b"13 path=../x\n".ljust(512, b"\0"), b"9 size=9\n".ljust(512, b"\0")]),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=3000),
        st.lists(st.one_of(MEMBERS, st.binary(max_size=600)), max_size=6).map(b"".join),
        st.tuples(st.integers(0, 4095), st.integers(0, 255)).map(
            lambda change: bytes(
                change[1] if at == change[0] else byte for at, byte in enumerate(tar(*GOOD)[:4096])
            )
        ),
    ),
    step=st.integers(1, 2000),
)
def test_any_bytes_are_extracted_or_refused_and_never_leave_the_folder(
    folder: Path, data: bytes, step: int
) -> None:
    for path in folder.iterdir():
        path.unlink()
    try:
        extract(folder, data, step=step, max_bytes=100_000)
    except AdapterError:
        assert [] == list(folder.iterdir())
    else:
        assert {CONFIG, WEIGHTS} <= {path.name for path in folder.iterdir()}
    assert [folder] == list(folder.parent.iterdir())
