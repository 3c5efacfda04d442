"""Thousands of registered versions, each as small as an adapter can be, put in over the admin API."""

from __future__ import annotations

import http.client
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from adapters.archive import pack
from adapters.base.manifest import BaseManifest
from tests.house import House
from tests.peft_folder import random_adapter

UPLOADS = 4
"""At once."""


def smallest(base: BaseManifest) -> BaseManifest:
    """`base` as if it had one linear layer: an adapter of that is a few kilobytes, and one of `base`."""
    name = min(base.linears, key=lambda module: (sum(base.linears[module]), module))
    return replace(base, linears={name: base.linears[name]})


def tars(base: BaseManifest, folder: Path, seeds: Sequence[int]) -> Iterator[bytes]:
    """One upload a seed, rank 1, over all linear layers of `base`, which may be `smallest`."""
    for seed in seeds:
        made = random_adapter(folder / str(seed), base, seed, rank=1, target_modules=sorted(base.linears))
        yield b"".join(pack(made))
        shutil.rmtree(made)


def register(house: House, base: BaseManifest, folder: Path, names: Sequence[str]) -> list[float]:
    """Registers one version of `names[i]` for each i, `UPLOADS` at once; what each took, in seconds.

    Versions of one adapter get their numbers in no order. Raises `AssertionError` with a refusal.
    """
    small = smallest(base)
    parts = [range(first, len(names), UPLOADS) for first in range(UPLOADS)]

    def upload(part: Sequence[int]) -> list[float]:
        link = Link(house)
        taken = []
        for seed, content in zip(part, tars(small, folder / f"part-{part[0]}", part), strict=True):
            began = time.monotonic()
            status, answer = link.send("POST", f"/admin/v1/adapters/{names[seed]}/versions", content)
            assert status == 201, answer
            taken.append(time.monotonic() - began)
        return taken

    with ThreadPoolExecutor(UPLOADS) as pool:
        return [second for taken in pool.map(upload, [part for part in parts if part]) for second in taken]


class Link:
    """One kept connection to a house, for one thread. Costs far less than what it measures."""

    def __init__(self, house: House) -> None:
        parts = urlsplit(house.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        self._headers = house.headers

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()
