"""Bad uploads through the real edge: a clear error, nothing kept, and the engine never asked."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adapters.archive import pack
from tests.conftest import TINY, FakeEngine
from tests.house import House
from tests.peft_folder import random_adapter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return random_adapter(tmp_path / "adapter", TINY, seed=int.from_bytes(os.urandom(4)))


def post(house: House, name: str, body: Any, **params: str) -> httpx.Response:
    url = f"{house.url}/admin/v1/adapters/{name}/versions"
    return httpx.post(url, content=body, params=params, headers=house.headers, timeout=60)


def engine_loads(engine: FakeEngine) -> int:
    """How many loads the engine was ever asked for."""
    headers = {"authorization": f"Bearer {engine.key}"}
    counted: int = httpx.get(engine.url + "/fake/state", headers=headers).json()["loads"]
    return counted


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def a_pickle(folder: Path) -> bytes:
    return tar((member("adapter_model.bin"), b"\x80\x04."))


def parent_path(folder: Path) -> bytes:
    return tar((member("../adapter_config.json"), b"{}"))


def absolute_path(folder: Path) -> bytes:
    return tar((member("/tmp/adapter_config.json"), b"{}"))


def symlink(folder: Path) -> bytes:
    return tar((member("adapter_model.safetensors", tarfile.SYMTYPE, "/etc/passwd"), b""))


def device(folder: Path) -> bytes:
    return tar((member("adapter_model.safetensors", tarfile.CHRTYPE), b""))


def ten_gigabytes(folder: Path) -> bytes:
    info = member("adapter_model.safetensors")
    info.size = 10 * 2**30
    return info.tobuf() + bytes(64 * 1024)


def not_a_tar(folder: Path) -> bytes:
    return b"hello" * 1000


def truncated(folder: Path) -> bytes:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return b"".join(pack(folder))


def long_header(folder: Path) -> bytes:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes((2**40).to_bytes(8, "little") + weights.read_bytes()[8:])
    return b"".join(pack(folder))


def not_finite(folder: Path) -> bytes:
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2:] = b"\x00\x7e"  # a NaN in float16
    weights.write_bytes(bytes(content))
    return b"".join(pack(folder))


def high_rank(folder: Path) -> bytes:
    return b"".join(pack(random_adapter(folder, TINY, seed=1, rank=64)))


def wrong_shape(folder: Path) -> bytes:
    wider = {module: (out, into + 1) for module, (out, into) in TINY.linears.items()}
    return b"".join(pack(random_adapter(folder, _like(linears=wider), seed=1)))


def other_base(folder: Path) -> bytes:
    return b"".join(pack(random_adapter(folder, _like(fingerprint="8" * 64), seed=1)))


def unknown_module(folder: Path) -> bytes:
    return b"".join(pack(random_adapter(folder, _like(linears={"model.layers.9.x": (16, 16)}), seed=1)))


def config_with(**settings: Any) -> Callable[[Path], bytes]:
    def build(folder: Path) -> bytes:
        return b"".join(pack(random_adapter(folder, TINY, seed=1, **settings)))

    return build


def _like(**changes: Any) -> Any:
    from dataclasses import replace

    return replace(TINY, **changes)


BAD: dict[str, Callable[[Path], bytes]] = {
    "pickle": a_pickle,
    "parent path": parent_path,
    "absolute path": absolute_path,
    "symlink": symlink,
    "device": device,
    "not a tar": not_a_tar,
    "truncated": truncated,
    "long header": long_header,
    "not finite": not_finite,
    "high rank": high_rank,
    "wrong shape": wrong_shape,
    "other base": other_base,
    "unknown module": unknown_module,
    "dora": config_with(use_dora=True),
    "alora": config_with(alora_invocation_tokens=[1, 2]),
    "bias": config_with(bias="all"),
    "lora bias": config_with(lora_bias=True),
    "modules to save": config_with(modules_to_save=["lm_head"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_adapter_is_refused_and_the_engine_never_asked(
    fake_house: House, fake_engine: FakeEngine, folder: Path, kind: str
) -> None:
    before = engine_loads(fake_engine)
    answer = post(fake_house, "bad", BAD[kind](folder))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error"), error
    assert error["code"]
    assert len(error["message"]) > 20
    assert httpx.get(fake_house.url + "/admin/v1/adapters/bad", headers=fake_house.headers).status_code == 404
    assert engine_loads(fake_engine) == before
    assert not list((fake_house.state / "adapters").glob("staging/[!.]*"))


def test_an_adapter_over_the_limit_is_413(fake_house: House, folder: Path) -> None:
    assert post(fake_house, "big", ten_gigabytes(folder)).status_code == 413


@pytest.mark.parametrize("name", ["a%2Fb", "a:b", "a@b", "a b", "x" * 300, "Upper"])
def test_a_bad_name_is_refused(fake_house: House, folder: Path, name: str) -> None:
    answer = post(fake_house, name, pack(folder))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_name")


def test_the_same_content_twice_is_the_same_version(fake_house: House, folder: Path) -> None:
    one, two = (post(fake_house, "twice", pack(folder)).json() for _ in range(2))
    assert one["name"] == two["name"]
    assert [one["created"], two["created"]] == [True, False]


def test_two_registrations_of_one_name_at_once_get_two_numbers(fake_house: House, tmp_path: Path) -> None:
    folders = [random_adapter(tmp_path / str(seed), TINY, seed) for seed in (31, 32)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda folder: fake_house.add("atonce", folder), folders))
    assert {1, 2} == {version["number"] for version in made}


def test_a_large_adapter_does_not_sit_in_memory(fake_house: House) -> None:
    """300 MB of a member that is refused only at its end: the gateway grows by less than a tenth of it."""
    info = member("adapter_model.safetensors")
    info.size = 300 * 2**20
    header = (2**62).to_bytes(8, "little")

    def chunks() -> Any:
        yield info.tobuf()
        yield header + bytes(2**20 - 8)
        for _ in range(299):
            yield bytes(2**20)
        yield bytes(10240)

    assert fake_house.process is not None
    process = psutil.Process(fake_house.process.pid)
    before = process.memory_info().rss
    peak = 0
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, fake_house, "large", chunks())
        while not answer.done():
            peak = max(peak, process.memory_info().rss)
    assert answer.result().status_code == 400, answer.result().text
    assert peak - before < 30 * 2**20


def test_a_tar_that_breaks_off_leaves_nothing(fake_house: House, folder: Path) -> None:
    whole = b"".join(pack(folder))
    assert post(fake_house, "broken", whole[: len(whole) // 2]).status_code == 400
    assert not list((fake_house.state / "adapters").glob("staging/[!.]*"))


def test_errors_have_openai_s_shape(fake_house: House, folder: Path) -> None:
    error = json.loads(post(fake_house, "a:b", pack(folder)).text)["error"]
    assert {"message", "type", "param", "code"} == set(error)
