"""Residency for Prometheus, in the registry that vLLM serves under /metrics.

A scrape cannot wait for the engine loop inside a collector, so `Gauges` shows the last listing, and the door
has it renewed before each scrape. The table is apart from prometheus_client, which only engines have: the
fake engine writes the same names as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

ADAPTER_GAUGES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "hotswap_adapter_resident": ("1 for an adapter in the CPU cache", lambda each: 1.0),
    "hotswap_adapter_slot": ("Slot of an active adapter", lambda each: each["slot"]),
    "hotswap_adapter_pinned": ("1 for an adapter that is never evicted", lambda each: float(each["pinned"])),
    "hotswap_adapter_bytes": ("Bytes of its weights in the CPU cache", lambda each: float(each["bytes"])),
}
"""By metric: what it is, and its value for one entry of the listing. None: it has none."""

PLAIN_GAUGES: Mapping[str, tuple[str, str]] = {
    "hotswap_slots": ("Adapters that one batch may mix (max_loras)", "max_loras"),
    "hotswap_cpu_slots": ("Adapters that the CPU cache holds (max_cpu_loras)", "max_cpu_loras"),
}
COUNTERS: Mapping[str, tuple[str, str]] = {
    "hotswap_disk_loads": ("Times that an adapter's files were read", "disk_loads"),
    "hotswap_activations": ("Times that an adapter was copied into a slot", "activations"),
    "hotswap_evictions": ("Adapters that the CPU cache dropped to make room", "evictions"),
    "hotswap_not_now": ("Requests that were told to come again", "not_now"),
}
"""Prometheus appends `_total`."""


class Gauges:
    """A collector. `listing` gives the body of `GET /hotswap/v1/adapters`, None while there is none."""

    def __init__(self, listing: Callable[[], Mapping[str, Any] | None]) -> None:
        self._listing = listing

    def describe(self) -> list[Any]:
        """Without it a registry would collect to find the names."""
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        listing = self._listing()
        if listing is None:
            return
        for name, (text, value_of) in ADAPTER_GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=["name"])
            for each in listing["adapters"]:
                value = value_of(each)
                if value is not None:
                    family.add_metric([each["name"]], value)
            yield family
        for name, (text, field) in PLAIN_GAUGES.items():
            yield GaugeMetricFamily(name, text, value=listing[field] or 0)
        for name, (text, field) in COUNTERS.items():
            yield CounterMetricFamily(name, text, value=listing["counters"][field])


def lines(listing: Mapping[str, Any]) -> Iterator[str]:
    """The same as text, without help."""
    for name, (_, value_of) in ADAPTER_GAUGES.items():
        for each in listing["adapters"]:
            value = value_of(each)
            if value is not None:
                yield f'{name}{{name="{each["name"]}"}} {value:.1f}'
    for name, (_, field) in PLAIN_GAUGES.items():
        yield f"{name} {listing[field] or 0:.1f}"
    for name, (_, field) in COUNTERS.items():
        yield f"{name}_total {listing['counters'][field]:.1f}"
