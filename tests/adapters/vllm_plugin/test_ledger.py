"""What is noted of a worker's adapters. The hooks sit in stand-ins for vLLM's classes, with vLLM's own cache;
the contract tests look at the same through a real engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.utils.cache import LRUCache

from adapters.vllm_plugin.ledger import Ledger

SLOTS, ROOM = 2, 4


class Cache(LRUCache):
    def __init__(self, capacity: int, on_remove: Any) -> None:
        super().__init__(capacity)
        self.on_remove = on_remove

    def _on_remove(self, key: int, value: Any) -> None:
        self.on_remove(key)


def stand_ins() -> tuple[type, type, type]:
    """New classes each time, because the hooks stay in them: vLLM 0.32's managers without a model."""

    class Manager:
        capacity, lora_slots = ROOM, SLOTS

        def __init__(self) -> None:
            self._registered_adapters = Cache(ROOM, self.deactivate)
            self.lora_index_to_id: list[int | None] = [None] * SLOTS
            self.breaks = False

        def __len__(self) -> int:
            return len(self._registered_adapters)

        def list_adapters(self) -> dict[int, Any]:
            return dict(self._registered_adapters.cache)

        def activate_adapter(self, lora_id: int) -> bool:
            self._registered_adapters.touch(lora_id)
            if lora_id in self.lora_index_to_id:
                return False
            if None not in self.lora_index_to_id:
                oldest = next(each for each in self.list_adapters() if each in self.lora_index_to_id)
                self.deactivate(oldest)
            self.lora_index_to_id[self.lora_index_to_id.index(None)] = lora_id
            if self.breaks:
                raise RuntimeError("The size of tensor a must match the size of tensor b")
            return True

        def deactivate(self, lora_id: int) -> None:
            if lora_id in self.lora_index_to_id:
                self.lora_index_to_id[self.lora_index_to_id.index(lora_id)] = None

        def remove_oldest_adapter(self) -> bool:
            self._registered_adapters.remove_oldest()
            return True

        def remove_adapter(self, lora_id: int) -> bool:
            return self._registered_adapters.pop(lora_id, None) is not None

    class Worker:
        def __init__(self) -> None:
            self._adapter_manager = Manager()

        def _load_adapter(self, request: Any) -> Any:
            parts = SimpleNamespace(lora_a=torch.zeros(8, 4), lora_b=[torch.zeros(4, 8), None])
            return SimpleNamespace(id=request.lora_int_id, rank=8, loras={"q_proj": parts})

        def remove_adapter(self, lora_id: int) -> bool:
            return self._adapter_manager.remove_adapter(lora_id)

    class LruWorker(Worker):
        def add_adapter(self, request: Any) -> bool:
            manager = self._adapter_manager
            if request.lora_int_id not in manager.list_adapters():
                adapter = self._load_adapter(request)
                if len(manager) + 1 > manager.capacity:
                    manager.remove_oldest_adapter()
                manager._registered_adapters[adapter.id] = adapter
            manager.activate_adapter(request.lora_int_id)
            return True

    return Worker, LruWorker, Manager


class House:
    def __init__(self, **ledger: Any) -> None:
        self.now = 50.0
        self.ledger = Ledger(clock=lambda: self.now, **ledger)
        worker, lru_worker, manager = stand_ins()
        self.ledger.follow(worker, lru_worker, manager)
        self.worker = lru_worker()
        self.manager = self.worker._adapter_manager

    def use(self, number: int, name: str | None = None) -> None:
        name = name or f"a{number}"
        self.worker.add_adapter(SimpleNamespace(lora_int_id=number, lora_name=name, lora_path="/x"))

    def residency(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.ledger.residency(self.manager)}

    def counted(self) -> tuple[int, int, int]:
        counters = self.ledger.counters
        return counters.disk_loads, counters.activations, counters.evictions


def test_a_loaded_adapter_is_told_with_slot_rank_bytes_and_age():
    house = House()
    house.use(1)
    house.now += 2.5
    assert {
        "name": "a1",
        "slot": 0,
        "pinned": False,
        "rank": 8,
        "bytes": 2 * 8 * 4 * 4,
        "last_used_s": 2.5,
    } == house.residency()["a1"]


def test_loads_activations_and_evictions_are_counted_apart():
    house = House()
    for number in range(1, ROOM + 2):
        house.use(number)
    assert (ROOM + 1, ROOM + 1, 1) == house.counted()
    house.use(2)  # resident without a slot
    assert (ROOM + 1, ROOM + 2, 1) == house.counted()
    house.use(2)  # in its slot
    assert (ROOM + 1, ROOM + 2, 1) == house.counted()


def test_the_least_recently_used_is_told_first():
    house = House()
    for number in (1, 2, 3, 1):
        house.use(number)
    assert ["a2", "a3", "a1"] == list(house.residency())


def test_dummies_that_vllm_warms_up_with_are_not_counted():
    house = House()
    house.manager._registered_adapters[9] = SimpleNamespace()
    house.manager.activate_adapter(9)
    assert (0, 0, 0) == house.counted()
    assert ["#9"] == list(house.residency())


def test_a_name_that_was_loaded_twice_is_told_once_and_removed_twice():
    house = House()
    house.use(1, "same")
    house.use(3)
    house.use(2, "same")
    told = house.ledger.residency(house.manager)
    assert [("a3", 1), ("same", 0)] == [(each["name"], each["slot"]) for each in told]
    assert 2 == house.ledger.remove(house.manager, "same")
    assert ["a3"] == list(house.residency())


def test_a_removed_adapter_is_in_no_slot():
    house = House()
    house.use(1)
    assert 1 == house.ledger.remove(house.manager, "a1")
    assert [None] * SLOTS == house.manager.lora_index_to_id
    assert 0 == house.ledger.remove(house.manager, "a1")


def test_a_load_that_fails_after_it_took_a_slot_gives_it_back():
    house = House()
    house.manager.breaks = True
    with pytest.raises(RuntimeError, match="size of tensor"):
        house.use(1)
    assert [None] * SLOTS == house.manager.lora_index_to_id
    assert {} == house.residency()


def test_an_adapter_that_was_there_before_a_failure_stays():
    house = House()
    house.use(1)
    house.manager.lora_index_to_id[0] = None
    house.manager.breaks = True
    with pytest.raises(RuntimeError, match="size of tensor"):
        house.use(1)
    assert ["a1"] == list(house.residency())


def test_what_is_refused_after_reading_is_neither_held_nor_counted():
    def refuse(name: str, modules: Any) -> None:
        raise ValueError(f"{name} has {sorted(modules)}")

    house = House(check=refuse)
    with pytest.raises(ValueError, match=r"a1 has \['q_proj'\]"):
        house.use(1)
    assert ({}, (0, 0, 0)) == (house.residency(), house.counted())


def test_a_pinned_adapter_is_not_evicted_and_an_unpinned_one_is():
    house = House()
    house.use(1)
    assert "" == house.ledger.pin(house.manager, "a1", True)
    for number in range(2, 2 + ROOM):
        house.use(number)
    assert True is house.residency()["a1"]["pinned"]
    assert "" == house.ledger.pin(house.manager, "a1", False)
    house.use(9)
    assert "a1" not in house.residency()


def test_pins_leave_room_for_a_whole_batch_of_others():
    house = House()
    for number in (1, 2, 3):
        house.use(number)
    assert ["", "", "full"] == [house.ledger.pin(house.manager, f"a{number}", True) for number in (1, 2, 3)]
    assert "" == house.ledger.pin(house.manager, "a1", True)  # again is no more
    for number in (4, 5):  # as many as there are slots
        house.use(number)


def test_what_is_not_there_cannot_be_pinned():
    assert "gone" == House().ledger.pin(House().manager, "a1", True)


def test_pinning_takes_no_slot():
    house = House()
    house.use(1)
    house.ledger.pin(house.manager, "a1", True)
    house.use(2)
    house.use(3)
    assert None is house.residency()["a1"]["slot"]


def test_another_vllm_without_these_methods_is_noticed():
    with pytest.raises(AttributeError):
        Ledger().follow(object, object, object)
