"""The lines in /metrics, read as Prometheus reads them."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from adapters.vllm_plugin.gauges import Gauges, lines

LISTING = {
    "max_loras": 2,
    "max_cpu_loras": 4,
    "adapters": [
        {"name": "a@1", "slot": 1, "pinned": True, "bytes": 4884480},
        {"name": "b@2", "slot": None, "pinned": False, "bytes": 100},
    ],
    "counters": {"disk_loads": 3, "activations": 5, "evictions": 1, "not_now": 7},
}
EXPECTED = {
    ("hotswap_adapter_resident", "a@1"): 1,
    ("hotswap_adapter_resident", "b@2"): 1,
    ("hotswap_adapter_slot", "a@1"): 1,
    ("hotswap_adapter_pinned", "a@1"): 1,
    ("hotswap_adapter_pinned", "b@2"): 0,
    ("hotswap_adapter_bytes", "a@1"): 4884480,
    ("hotswap_adapter_bytes", "b@2"): 100,
    ("hotswap_slots", None): 2,
    ("hotswap_cpu_slots", None): 4,
    ("hotswap_disk_loads_total", None): 3,
    ("hotswap_activations_total", None): 5,
    ("hotswap_evictions_total", None): 1,
    ("hotswap_not_now_total", None): 7,
}


def read(text: str) -> dict[tuple[str, str | None], float]:
    return {
        (sample.name, sample.labels.get("name")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(listing: Any) -> str:
    registry = CollectorRegistry()
    registry.register(Gauges(lambda: listing))
    return generate_latest(registry).decode()


def test_every_adapter_and_counter_is_there_and_one_without_a_slot_has_none():
    assert EXPECTED == read(scraped(LISTING))


def test_before_the_first_listing_there_are_no_lines():
    assert "" == scraped(None)


def test_every_metric_says_what_it_is():
    text = scraped(LISTING)
    names = {name.removesuffix("_total") for name, _ in EXPECTED}
    told = {line.split()[2].removesuffix("_total") for line in text.splitlines() if line.startswith("# HELP")}
    assert names == told


def test_the_fake_engines_text_has_the_same_values():
    assert EXPECTED == read("\n".join([*lines(LISTING), ""]))
