"""An adapter on the wire: a plain tar of a few known files. `Extractor` takes it in, `pack` writes one.

The parser is ours, and pushed: the upload arrives in chunks on the event loop, while `tarfile` pulls (it
would need a thread and a pipe in between), reads extension headers of any size into memory, and knows links,
sparse maps and devices, all of which must be refused anyway. Regular files with known names are what is left.

Codes of `Refused`: `absolute_path`, `path_escapes`, `link`, `device`, `sparse`, `unexpected_folder`,
`unexpected_file`, `pickle_weights`, `duplicate_file`, `file_too_large`, `compressed`, `truncated`,
`bad_archive`, `missing_file`. Too many bytes is `TooBig`, a full disk `StoreFull`.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from adapters.errors import AdapterError, Refused, StoreFull, TooBig
from adapters.strictjson import shown

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "hotswap.json"
README = "README.md"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

_SMALL = {CONFIG: 1 << 20, MANIFEST: 1 << 16, README: 1 << 20}
_BLOCK = 512
_PAX_LIMIT = 1 << 16
_SLACK = 4 << 20
"""Bytes of headers and padding that a tar may have beyond its files."""
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PK\x03\x04": "zip",
}
_KINDS = {
    b"1": ("link", "a hard link"),
    b"2": ("link", "a symbolic link"),
    b"3": ("device", "a character device"),
    b"4": ("device", "a block device"),
    b"6": ("device", "a named pipe"),
    b"S": ("sparse", "a sparse file"),
}


class Extractor:
    """Writes the files of a tar, fed in chunks of any size, into an empty `folder`.

    Memory is constant. Nothing is ever written outside `folder`, and after an error nothing that was written
    stays in it. `write` is `os.write` except in tests. Use as a context manager: leaving closes what is open.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        write: Callable[[int, memoryview], int] = os.write,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._write = write
        self._fed = 0
        self._claimed = 0
        self._seen: set[str] = set()
        self._written: list[Path] = []
        self._header = bytearray()
        self._pax: bytearray | None = None
        self._overrides: dict[str, str] = {}
        self._sink: int | None = None
        self._left = 0
        self._skip = 0
        self._end_blocks = 0
        self._failed: AdapterError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file that is being written, if any."""
        if self._sink is not None:
            os.close(self._sink)
            self._sink = None

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the tar. Raises `Refused`, `TooBig` or `StoreFull`, and again if called again."""
        if self._failed is not None:
            raise self._failed
        try:
            self._fed += len(chunk)
            if self._fed > self._max_bytes + _SLACK:
                raise self._too_big(self._fed)
            view = memoryview(chunk)
            while view:
                view = view[self._take(view) :]
        except AdapterError as error:
            self._abandon(error)
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                self._abandon(Refused(f"the upload could not be written: {error}", code="bad_archive"))
                raise
            full = StoreFull(
                "the disk under the adapter store is full; nothing was kept. Free space, or remove versions "
                "with `hotswap adapters rm`, and upload again"
            )
            self._abandon(full)
            raise full from error

    def finish(self) -> None:
        """The upload has ended. Raises `Refused` when the tar has not, or when a needed file is missing."""
        if self._failed is not None:
            raise self._failed
        try:
            if self._end_blocks < 2 or self._header:
                raise Refused(
                    f"the tar ends too early, after {self._fed} bytes; upload it whole", code="truncated"
                )
            for name in (CONFIG, WEIGHTS):
                if name not in self._seen:
                    raise Refused(
                        f"{name} is missing; the tar must hold {CONFIG} and {WEIGHTS} at its root",
                        code="missing_file",
                    )
        except Refused as error:
            self._abandon(error)
            raise

    def _take(self, view: memoryview) -> int:
        """Use some bytes of `view`; how many."""
        if self._left:
            part = view[: self._left]
            if self._pax is not None:
                self._pax += part
            elif self._sink is not None:
                done = 0
                while done < len(part):
                    done += self._write(self._sink, part[done:])
            self._left -= len(part)
            if not self._left:
                self._close_member()
            return len(part)
        if self._skip:
            taken = min(len(view), self._skip)
            self._skip -= taken
            return taken
        taken = min(len(view), _BLOCK - len(self._header))
        self._header += view[:taken]
        self._refuse_compressed()
        if len(self._header) == _BLOCK:
            block = bytes(self._header)
            self._header.clear()
            self._member(block)
        return taken

    def _refuse_compressed(self) -> None:
        for magic, kind in _COMPRESSED.items():
            if self._header.startswith(magic):
                raise Refused(
                    f"the upload is {kind} data; send a plain tar, not compressed", code="compressed"
                )

    def _member(self, block: bytes) -> None:
        if not any(block):
            self._end_blocks += 1
            return
        if self._end_blocks:
            raise Refused(
                "there are bytes after the end of the tar; send one tar and nothing else", code="bad_archive"
            )
        if _number(block[148:156]) not in _checksums(block):
            raise Refused(
                "a tar header has a wrong checksum; send a plain tar (ustar, pax or GNU)", code="bad_archive"
            )
        kind = block[156:157]
        size = _number(block[124:136])
        if kind in (b"x", b"g"):
            if size > _PAX_LIMIT:
                raise Refused(f"a pax header claims {size} bytes; at most {_PAX_LIMIT}", code="bad_archive")
            self._pax = bytearray()
            self._expect(size)
            return
        name = self._overrides.get("path", _member_name(block))
        if "size" in self._overrides:
            size = _decimal(self._overrides["size"])
        self._overrides = {}
        if kind in _KINDS:
            code, noun = _KINDS[kind]
            raise Refused(f"{shown(name)} is {noun}; only plain files are taken", code=code)
        if kind not in (b"0", b"\0", b"5"):
            raise Refused(
                f"{shown(name)} is a tar member of type {shown(kind)}; only plain files are taken",
                code="bad_archive",
            )
        self._open(_allowed(name, folder=kind == b"5" or name.endswith("/")), size)

    def _open(self, name: str, size: int) -> None:
        if not name:
            if size:
                raise Refused(f"the root folder claims {size} bytes", code="bad_archive")
            return
        if name in self._seen:
            raise Refused(f"{name} is there twice; send each file once", code="duplicate_file")
        self._seen.add(name)
        self._claimed += size
        if self._claimed > self._max_bytes:
            raise self._too_big(self._claimed)
        if size > _SMALL.get(name, size):
            raise Refused(f"{name} has {size} bytes; at most {_SMALL[name]}", code="file_too_large")
        if name != README:  # a model card is welcome in the tar, but nothing here reads it
            path = self._folder / name
            self._sink = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            self._written.append(path)
        self._expect(size)

    def _expect(self, size: int) -> None:
        self._left = size
        self._skip = -size % _BLOCK
        if not size:
            self._close_member()

    def _close_member(self) -> None:
        self.close()
        if self._pax is not None:
            self._overrides = _pax_records(bytes(self._pax))
            self._pax = None

    def _too_big(self, size: int) -> TooBig:
        return TooBig(
            f"the adapter has at least {size} bytes; at most {self._max_bytes} are taken. Use a lower "
            "rank or "
            "fewer modules, or raise registry.max_adapter_bytes"
        )

    def _abandon(self, error: AdapterError) -> None:
        self._failed = error
        self.close()
        for path in self._written:
            path.unlink(missing_ok=True)


def pack(folder: Path, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """A tar of the adapter in `folder`, in chunks: only the files that a server takes.

    Where there are no safetensors but pickled weights, those are sent, so that it is the server that says why
    it does not take them. Raises `Refused` (code `missing_file`) when `folder` holds no adapter.
    """
    names = [name for name in (CONFIG, MANIFEST, README, WEIGHTS) if (folder / name).is_file()]
    if WEIGHTS not in names:
        names += sorted(p.name for p in folder.glob("adapter_model*") if p.suffix in PICKLES)
    if CONFIG not in names or names[-1] in _SMALL:
        raise Refused(
            f"{folder} holds no adapter: {CONFIG} and {WEIGHTS} are needed, as PEFT's save_pretrained writes",
            code="missing_file",
        )
    for name in names:
        with (folder / name).open("rb") as file:
            member = tarfile.TarInfo(name)
            member.size = left = os.fstat(file.fileno()).st_size
            yield member.tobuf(tarfile.GNU_FORMAT)
            while left:
                chunk = file.read(min(chunk_bytes, left))
                if not chunk:
                    _changed(folder / name)
                left -= len(chunk)
                yield chunk
            if file.read(1):
                _changed(folder / name)
            yield bytes(-member.size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _changed(path: Path) -> NoReturn:
    raise Refused(
        f"{path} changed while it was read; wait until it is written, then try again", code="truncated"
    )


def _allowed(name: str, *, folder: bool) -> str:
    """The known file that `name` means, "" for the root folder; else `Refused`."""
    if name.startswith("/"):
        raise Refused(f"{shown(name)} is an absolute path; pack the files at the root", code="absolute_path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused(
            f"{shown(name)} leads out of the archive; pack the files at the root", code="path_escapes"
        )
    if folder:
        if parts:
            raise Refused(
                f"{shown(name)} is a folder; pack the files themselves at the root (tar -C FOLDER -cf X .)",
                code="unexpected_folder",
            )
        return ""
    if parts and parts[-1].lower().endswith(PICKLES):
        raise Refused(
            f"{shown(name)} is a pickle, which can run code when it is loaded; save the weights as "
            f"{WEIGHTS} (PEFT: save_pretrained(..., safe_serialization=True)) and leave pickles out",
            code="pickle_weights",
        )
    if len(parts) != 1 or parts[0] not in (CONFIG, WEIGHTS, MANIFEST, README):
        raise Refused(
            f"{shown(name)} is not part of an adapter; send {CONFIG}, {WEIGHTS} and, if you have them, "
            f"{MANIFEST} and {README}, at the root",
            code="unexpected_file",
        )
    return parts[0]


def _member_name(block: bytes) -> str:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":  # the GNU format keeps other things where ustar has its prefix
        prefix = block[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode("utf-8", "surrogateescape")


def _checksums(block: bytes) -> tuple[int, int]:
    """The header's checksum, over unsigned bytes as POSIX has it and over signed ones as old tars do."""
    blank = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(blank)
    return unsigned, unsigned - 256 * sum(byte > 127 for byte in blank)


def _number(field: bytes) -> int:
    """Octal text, or GNU's base-256 for what does not fit. Negative numbers are no sizes."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise Refused(f"a tar header has the number {shown(field)}; it must be octal", code="bad_archive")
    return int(digits, 8) if digits else 0


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise Refused(f"a pax header gives the size {shown(text)}", code="bad_archive")
    return int(text)


def _pax_records(raw: bytes) -> dict[str, str]:
    """The records that matter (`path`, `size`) of a pax header: "LENGTH KEY=VALUE\\n" each."""
    found: dict[str, str] = {}
    while raw:
        length, _, _ = raw.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 6 else 0
        record = raw[len(length) + 1 : end]
        if end <= len(length) + 1 or end > len(raw) or not record.endswith(b"\n") or b"=" not in record:
            raise Refused("a pax header is not made of records; send a plain tar", code="bad_archive")
        key, _, value = record[:-1].partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise Refused("a member is a sparse file; only plain files are taken", code="sparse")
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        raw = raw[end:]
    return found
