"""What a safetensors file holds, read without torch: its header checked in full, its values scanned for NaN.

Layout (https://github.com/huggingface/safetensors): 8 bytes little-endian header length N, N bytes of JSON,
then the tensors' bytes, which the offsets in the header must cover exactly, without gap or overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from adapters.errors import Refused
from adapters.strictjson import read_object, shown

HEADER_LIMIT = 100_000_000
"""safetensors' own limit, in bytes; callers give a tighter one."""

_EXPONENT = {
    "F32": (4, 0x7F800000),
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
}
"""Of each dtype that engines serve: its width in bytes, and the bits that NaN and Inf have all set."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """`begin` and `end` are byte positions in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: BinaryIO, size: int, *, limit: int = HEADER_LIMIT) -> tuple[Tensor, ...]:
    """The tensors of a safetensors file of `size` bytes, in file order.

    Raises `Refused`: `truncated`, `pickle_weights`, `bad_header`, `bad_dtype`.
    """
    start = file.read(8)
    if len(start) < 8:
        raise Refused(
            f"adapter_model.safetensors has {size} bytes, not even a header; upload it whole",
            code="truncated",
        )
    length = int.from_bytes(start, "little")
    if length > min(size - 8, limit, HEADER_LIMIT):
        _implausible(start, length, size, limit)
    raw = file.read(length)
    if not raw.startswith(b"{"):
        raise Refused(
            "adapter_model.safetensors does not begin with a JSON header; save it with safetensors",
            code="bad_header",
        )
    table = read_object(raw, "the header of adapter_model.safetensors", code="bad_header")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise Refused(
            "__metadata__ in the safetensors header must map text to text; save it again", code="bad_header"
        )
    tensors = sorted((_tensor(name, entry, 8 + length) for name, entry in table.items()), key=_position)
    _check_cover(tensors, 8 + length, size)
    return tuple(tensors)


def check_finite(file: BinaryIO, tensors: Iterable[Tensor], *, chunk_bytes: int = 1 << 22) -> None:
    """Raises `Refused` (code `not_finite`) naming the first NaN or infinite value. Memory: one chunk."""
    import numpy as np  # here: 15 MB that a gateway which only serves does not need

    for tensor in tensors:
        width, mask = _EXPONENT[tensor.dtype]
        kind: type[np.unsignedinteger[Any]] = np.uint32 if width == 4 else np.uint16
        file.seek(tensor.begin)
        at = tensor.begin
        while at < tensor.end:
            chunk = file.read(min(chunk_bytes, tensor.end - at))
            if not chunk or len(chunk) % width:
                raise Refused(
                    f"adapter_model.safetensors ends inside {shown(tensor.name)}; upload it whole",
                    code="truncated",
                )
            bits = np.frombuffer(chunk, dtype=kind)
            wrong = (bits & kind(mask)) == mask
            if wrong.any():
                index = (at - tensor.begin) // width + int(wrong.argmax())
                raise Refused(
                    f"{shown(tensor.name)} has a NaN or infinite value at index {index}; the training "
                    "diverged. "
                    "Retrain with a lower learning rate, or use an earlier checkpoint",
                    code="not_finite",
                )
            at += len(chunk)


def _position(tensor: Tensor) -> tuple[int, int]:
    return tensor.begin, tensor.end


def _implausible(start: bytes, length: int, size: int, limit: int) -> NoReturn:
    # Looked at only now: 0x80 0x02 is also how an honest header of 640 bytes begins.
    if start.startswith(b"PK\x03\x04") or (start[0] == 0x80 and start[1] in range(2, 6)):
        raise Refused(
            "adapter_model.safetensors is a pickle with another name, which can run code when it is loaded; "
            "save it with safetensors (PEFT: save_pretrained(..., safe_serialization=True))",
            code="pickle_weights",
        )
    if length > size - 8:
        raise Refused(
            f"the safetensors header claims {length} bytes and the file has {size}; upload it whole",
            code="truncated",
        )
    raise Refused(
        f"the safetensors header has {length} bytes; the modules of this base need at most {limit}. "
        "Save only the adapter's own tensors",
        code="bad_header",
    )


def _tensor(name: str, entry: object, data: int) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused(
            f"the header entry of {shown(name)} must have dtype, shape and data_offsets; save it again",
            code="bad_header",
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _EXPONENT:
        raise Refused(
            f"{shown(name)} has dtype {shown(dtype)}; engines serve {', '.join(_EXPONENT)}. Convert "
            "it before saving",
            code="bad_dtype",
        )
    if not _is_sizes(shape) or not _is_sizes(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise Refused(
            f"{shown(name)} has shape {shown(shape)} and data_offsets {shown(offsets)}; save it again",
            code="bad_header",
        )
    width, _ = _EXPONENT[dtype]
    if math.prod(shape) * width != offsets[1] - offsets[0]:
        raise Refused(
            f"{shown(name)} of shape {shown(shape)} in {dtype} does not fill its data_offsets "
            f"{shown(offsets)}",
            code="bad_header",
        )
    return Tensor(name, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _is_sizes(value: object) -> bool:
    """Whether it is a short list of numbers that can be sizes (True is an int to Python, not to us)."""
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(type(number) is int and 0 <= number < 2**48 for number in value)
    )


def _check_cover(tensors: list[Tensor], begin: int, size: int) -> None:
    at = begin
    for tensor in tensors:
        if tensor.begin != at:
            raise Refused(
                f"the bytes of {shown(tensor.name)} begin at {tensor.begin - begin} and should at "
                f"{at - begin}; "
                "tensors must follow each other without gap or overlap. Save it again",
                code="bad_header",
            )
        at = tensor.end
    if at > size:
        raise Refused(
            f"the tensors need {at} bytes and adapter_model.safetensors has {size}; upload it whole",
            code="truncated",
        )
    if at < size:
        raise Refused(
            f"{size - at} bytes of adapter_model.safetensors belong to no tensor; save it again",
            code="bad_header",
        )
