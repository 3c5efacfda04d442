"""What the gateway says to an engine's plugin, to the fake engine on a real socket."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.store import Store
from gateway.api.enginefiles import EngineFiles
from gateway.fleet.client import Address, Client, InUse, LoadFailed, Lost, NoAnswer
from gateway.fleet.fake_engine import FakeEngine
from tests.relay.serving import serving

KEY = "engine-key"


@dataclass(frozen=True)
class House:
    """An engine with one slot and room for two, and versions in a store."""

    engine: FakeEngine
    client: Client
    store: Store
    source: str
    http: httpx.AsyncClient

    def version(self, number: int) -> tuple[str, str]:
        with self.store.staging() as staged:
            (staged / "adapter_config.json").write_text(json.dumps({"r": 8, "number": number}))
            (staged / "adapter_model.safetensors").write_bytes(bytes(512))
            digest = self.store.commit(staged)
        return f"a{number}@{digest[:12]}", digest

    async def put(self, number: int, *, path: bool = True) -> tuple[str, bool]:
        name, digest = self.version(number)
        folder = self.store.path(digest) if path else None
        return name, (await self.client.put_adapter(name, digest, self.source, folder)).fetched


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    engine = FakeEngine(key=KEY, max_loras=1, max_cpu_loras=2)
    store = Store(tmp_path / "store")
    files = EngineFiles(store, lambda: {KEY})
    async with serving(engine) as port, serving(files) as source_port:
        address = Address("127.0.0.1", port, KEY)
        client = Client(address, probe_timeout_s=1, load_timeout_s=5)
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=address.url, headers=headers, trust_env=False) as http:
            yield House(engine, client, store, f"http://127.0.0.1:{source_port}", http)
        await client.close()


async def test_a_version_is_put_from_a_shared_folder_or_fetched(house: House) -> None:
    assert (False, True) == ((await house.put(1))[1], (await house.put(2, path=False))[1])
    assert 2 == len(house.engine.loras.paths)


async def test_a_second_put_is_success(house: House) -> None:
    name, _ = await house.put(1)
    assert (name, False) == await house.put(1)
    assert 1 == house.engine.loras.counters["disk_loads"]


async def test_a_refused_put_tells_the_engines_words_without_paths(house: House) -> None:
    name, digest = house.version(1)
    with pytest.raises(LoadFailed) as failure:
        await house.client.put_adapter(name, digest, house.source, Path(f"/gone/sha256/{digest}"))
    assert "No adapter found" in str(failure.value) and "/gone" not in str(failure.value)


async def test_a_failed_fetch_has_its_code(house: House) -> None:
    name, digest = house.version(1)
    shutil.rmtree(house.store.path(digest))
    with pytest.raises(LoadFailed) as failure:
        await house.client.put_adapter(name, digest, house.source)
    assert "unknown_version" == failure.value.code


async def test_a_removed_adapter_is_gone_and_an_unknown_one_is_success(house: House) -> None:
    name, _ = await house.put(1)
    await house.client.remove_adapter(name)
    await house.client.remove_adapter(name)
    assert {} == house.engine.loras.paths
    assert () == (await listing(house)).adapters


async def test_an_adapter_in_use_is_not_removed(house: House) -> None:
    name, _ = await house.put(1)
    body = {"model": name, "prompt": "x", "stream": True, "max_tokens": 900, "ignore_eos": True}
    house.engine.faults.token_delay_s = 0.01
    async with house.http.stream("POST", "/v1/completions", json=body) as answer:
        parts = answer.aiter_bytes()
        await anext(parts)
        with pytest.raises(InUse, match="1 requests use"):
            await house.client.remove_adapter(name)


async def listing(house: House) -> Any:
    told = await house.client.adapters()
    assert told is not None
    return told


async def test_the_listing_tells_who_is_resident_least_recently_used_first(house: House) -> None:
    names = [(await house.put(number))[0] for number in range(3)]
    told = await listing(house)
    assert names[1:] == [each.name for each in told.adapters]
    assert [None, 0] == [each.slot for each in told.adapters]
    assert (1, 2, 1) == (told.max_loras, told.max_cpu_loras, told.counters["evictions"])


async def test_pin_and_unpin(house: House) -> None:
    name, _ = await house.put(1)
    await house.client.pin(name)
    assert [True] == [each.pinned for each in (await listing(house)).adapters]
    await house.client.unpin(name)
    assert [False] == [each.pinned for each in (await listing(house)).adapters]


async def test_an_unknown_adapter_cannot_be_pinned(house: House) -> None:
    with pytest.raises(LoadFailed) as failure:
        await house.client.pin("nobody@000000000000")
    assert "unknown_adapter" == failure.value.code


async def test_a_full_house_of_pins_has_its_code(house: House) -> None:
    first, second = (await house.put(1))[0], (await house.put(2))[0]
    await house.client.pin(first)
    with pytest.raises(LoadFailed) as failure:
        await house.client.pin(second)
    assert "no_room" == failure.value.code


async def test_a_dead_engine_is_lost_whatever_it_is_asked(house: House) -> None:
    name, _ = await house.put(1)
    house.engine.faults.dead = True
    with pytest.raises(Lost, match="answered 503"):
        await house.client.adapters()
    with pytest.raises(Lost, match="is dead"):
        await house.put(2)
    with pytest.raises(Lost, match="is dead"):
        await house.client.remove_adapter(name)
    with pytest.raises(Lost, match="is dead"):
        await house.client.pin(name)


async def test_an_engine_without_the_plugin_has_no_listing(tmp_path: Path) -> None:
    async with serving(FakeEngine(plugin=False)) as port:
        client = Client(Address("127.0.0.1", port, None), probe_timeout_s=1, load_timeout_s=1)
        assert await client.adapters() is None
        assert await client.plugin() is None
        await client.close()


@pytest.mark.parametrize("garbage", ["bytes", "html"])
async def test_an_engine_that_talks_garbage_is_lost_whatever_it_is_asked(house: House, garbage: Any) -> None:
    house.engine.faults.garbage, house.engine.faults.everywhere = garbage, True
    for ask in (house.client.health, house.client.models, house.client.plugin, house.client.adapters):
        with pytest.raises(Lost):
            await ask()
    with pytest.raises((Lost, LoadFailed)):
        await house.put(1)


async def test_an_engine_that_hangs_after_its_head_gives_no_answer(house: House) -> None:
    house.engine.faults.hang_after_head, house.engine.faults.everywhere = True, True
    client = Client(
        Address("127.0.0.1", house.http.base_url.port or 0, KEY), probe_timeout_s=0.2, load_timeout_s=0.2
    )
    for ask in (client.health, client.models, client.plugin, client.adapters):
        with pytest.raises(NoAnswer):
            await ask()
    await client.close()
