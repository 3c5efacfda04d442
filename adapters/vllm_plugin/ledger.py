"""What a worker holds of adapters, and what it took: kept by hooks in vLLM's LoRA managers.

vLLM keeps adapters by number and forgets names, times and counts. A *disk load* is one reading of an
adapter's files; an *activation* is one copy of resident weights into a slot; an *eviction* is one adapter
that the CPU cache dropped to make room for another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any

log = logging.getLogger("vllm.hotswap")


@dataclass(slots=True)
class Counters:
    """Since the worker started."""

    disk_loads: int = 0
    activations: int = 0
    evictions: int = 0


@dataclass(slots=True)
class Held:
    """One adapter in the CPU cache. `used_at` is monotonic seconds, None before its first use."""

    name: str
    rank: int
    bytes: int
    used_at: float | None = None


class Ledger:
    """One per worker. `check` may refuse an adapter that was just read; it raises ValueError."""

    def __init__(
        self,
        check: Callable[[str, Any], None] = lambda name, modules: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = Counters()
        self._held: dict[int, Held] = {}
        self._check = check
        self._clock = clock

    def follow(
        self, worker_manager: type[Any], lru_worker_manager: type[Any], lru_manager: type[Any]
    ) -> None:
        """Put the hooks in vLLM's classes. Raises `AttributeError` where another vLLM has not got them."""
        self._follow_loads(worker_manager)
        self._follow_use(lru_manager)
        self._clean_up_after_failures(lru_worker_manager)

    def _follow_loads(self, worker_manager: type[Any]) -> None:
        load = worker_manager._load_adapter

        @wraps(load)
        def load_known(manager: Any, lora_request: Any) -> Any:
            adapter = load(manager, lora_request)
            self._check(lora_request.lora_name, adapter.loras)
            self.counters.disk_loads += 1
            size = sum(tensor.nbytes for tensor in _tensors(adapter))
            self._held[lora_request.lora_int_id] = Held(lora_request.lora_name, adapter.rank, size)
            return adapter

        worker_manager._load_adapter = load_known

    def _follow_use(self, lru_manager: type[Any]) -> None:
        activate, evict = lru_manager.activate_adapter, lru_manager.remove_oldest_adapter

        @wraps(activate)
        def activate_counted(manager: Any, lora_id: int) -> Any:
            copied = activate(manager, lora_id)
            held = self._held.get(lora_id)
            if held is not None:  # not one of the dummies that vLLM warms up with
                held.used_at = self._clock()
                self.counters.activations += bool(copied)
            return copied

        @wraps(evict)
        def evict_counted(manager: Any) -> Any:
            dropped = evict(manager)
            self.counters.evictions += bool(dropped)
            return dropped

        lru_manager.activate_adapter = activate_counted
        lru_manager.remove_oldest_adapter = evict_counted

    def _clean_up_after_failures(self, lru_worker_manager: type[Any]) -> None:
        """vLLM 0.32 takes a slot and a place in the cache before it copies weights, and keeps both when
        that fails; a later request for the name would then be served with half of it."""
        add = lru_worker_manager.add_adapter

        @wraps(add)
        def add_or_clean_up(manager: Any, lora_request: Any) -> Any:
            lora_id = lora_request.lora_int_id
            known = lora_id in manager._adapter_manager._registered_adapters  # asked at every step
            try:
                return add(manager, lora_request)
            except Exception:
                if not known and manager.remove_adapter(lora_id):
                    log.warning("adapter %s failed to load; its slot is free again", lora_request.lora_name)
                raise

        lru_worker_manager.add_adapter = add_or_clean_up

    def residency(self, manager: Any) -> list[dict[str, Any]]:
        """Plain data about every adapter in `manager`'s CPU cache, least recently used first.

        `slot` is None for one that is in no slot, `last_used_s` is an age. A name that vLLM was told to
        forget and to load again is there twice; the newer one is told.
        """
        ids = [int(each) for each in manager.list_adapters()]
        self._held = {each: self._held[each] for each in ids if each in self._held}
        slot_of = {held: slot for slot, held in enumerate(manager.lora_index_to_id) if held is not None}
        pinned = manager._registered_adapters.pinned_items
        now = self._clock()
        told: dict[str, dict[str, Any]] = {}
        for each in ids:
            held = self._held.get(each) or Held(f"#{each}", 0, 0)
            told.pop(held.name, None)
            told[held.name] = {
                "name": held.name,
                "slot": slot_of.get(each),
                "pinned": each in pinned,
                "rank": held.rank,
                "bytes": held.bytes,
                "last_used_s": None if held.used_at is None else round(now - held.used_at, 3),
            }
        return list(told.values())

    def counted(self) -> dict[str, int]:
        return asdict(self.counters)

    def remove(self, manager: Any, name: str) -> int:
        """Takes every adapter that was loaded as `name` out of its slot and the CPU cache; how many."""
        found = [each for each, held in self._held.items() if held.name == name]
        return sum(bool(manager.remove_adapter(each)) for each in found)

    def pin(self, manager: Any, name: str, pinned: bool) -> str:
        """Keeps `name` in the CPU cache, or lets it go again; "" when done, else `gone` or `full`.

        Slots are left alone. vLLM's own pin takes one too, and then a batch of `max_loras` other adapters
        finds too few: it ends the engine (KeyError in convert_mapping, 0.32). For the same reason there must
        be room for `max_loras` more beside the pinned ones.
        """
        cache = manager._registered_adapters
        lora_id = self.find(manager, name)
        if lora_id is None:
            return "gone"
        if not pinned:
            cache.pinned_items.discard(lora_id)
        elif lora_id not in cache.pinned_items:
            if len(cache.pinned_items) >= manager.capacity - manager.lora_slots:
                return "full"
            cache.pin(lora_id)
        return ""

    def find(self, manager: Any, name: str) -> int | None:
        """The number of the newest adapter in the CPU cache that was loaded as `name`."""
        held = self._held
        found = [each for each in manager.list_adapters() if each in held and held[each].name == name]
        return int(found[-1]) if found else None


def _tensors(adapter: Any) -> Iterator[Any]:
    for module in adapter.loras.values():
        for part in (module.lora_a, module.lora_b):
            yield from (each for each in (part if isinstance(part, list) else [part]) if each is not None)
