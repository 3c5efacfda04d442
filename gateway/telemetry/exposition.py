"""The tally in Prometheus's text format (version 0.0.4), and what the kernel knows of the process.

Written here, not by prometheus_client: importing that takes 86 ms, which is a tenth of the gateway's start,
or a stall of every stream when it is put off to the first scrape. The tests read it with its parser.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.telemetry.exchanges import (
    BYTES,
    DROPPED,
    EVENTS,
    FULL,
    HISTOGRAMS,
    IN_FLIGHT,
    LOAD_S,
    LOADS,
    OUTCOMES,
    PIECES,
    RECORDS,
    STATUSES,
)
from gateway.telemetry.tally import Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PLAIN = (
    ("hotswap_exchanges_in_flight", "gauge", "Requests on /v1 now.", IN_FLIGHT),
    ("hotswap_answer_pieces_total", "counter", "Pieces of answers passed on.", PIECES),
    ("hotswap_answer_bytes_total", "counter", "Bytes of answers passed on.", BYTES),
    ("hotswap_traffic_records_total", "counter", "Exchanges that the journal took.", RECORDS),
    ("hotswap_traffic_dropped_total", "counter", "Exchanges that it had no space or time for.", DROPPED),
    ("hotswap_traffic_journal_full", "gauge", "Processes whose journal drops records now: alert.", FULL),
    ("hotswap_cold_starts_total", "counter", "Requests that waited for their adapter's load.", LOADS),
    ("hotswap_cold_start_seconds_total", "counter", "Seconds that requests waited for loads.", LOAD_S),
)
_HISTOGRAMS = (
    (
        "gen_ai_server_request_duration_seconds",
        "From the head of a request that an engine answered to the end of the answer.",
        "duration",
    ),
    (
        "gen_ai_server_time_to_first_token_seconds",
        "From a request's head to the first byte of its answer, for event streams.",
        "first_byte",
    ),
)


def exposition(tally: Tally) -> bytes:
    """Everything that `tally`, and those beside it, have counted, and two figures of this process."""
    return ("\n".join(_lines(tally.total())) + "\n").encode()


def _lines(total: Mapping[str, float]) -> Iterator[str]:
    name = "hotswap_exchanges_total"
    yield from _about(name, "counter", "Requests on /v1 that are over; status none: no answer was begun.")
    for outcome in OUTCOMES:
        for status in STATUSES:
            count = total[f"exchanges {outcome} {status}"]
            yield f'{name}{{outcome="{outcome}",status="{status}"}} {count!r}'
    for name, kind, says, key in _PLAIN:
        yield from _about(name, kind, says)
        yield f"{name} {total[key]!r}"
    name = "hotswap_fleet_events_total"
    yield from _about(name, "counter", "What happened to engines and adapters, as each gateway saw it.")
    for kind in EVENTS:
        yield f'{name}{{kind="{kind}"}} {total[f"fleet {kind}"]!r}'
    for name, says, key in _HISTOGRAMS:
        yield from _about(name, "histogram", says)
        count = 0.0
        for bound in (*HISTOGRAMS[key], float("inf")):
            count += total[f"{key} {bound:g}"]
            yield f'{name}_bucket{{le="{"+Inf" if bound == float("inf") else f"{bound:g}"}"}} {count!r}'
        yield f"{name}_sum {total[f'{key} sum']!r}"
        yield f"{name}_count {count!r}"
    page = os.sysconf("SC_PAGE_SIZE")
    resident, shared = (int(pages) * page for pages in Path("/proc/self/statm").read_text().split()[1:3])
    yield from _about("process_resident_memory_bytes", "gauge", "Of the process that answers this.")
    yield f"process_resident_memory_bytes {resident}"
    name = "hotswap_process_private_memory_bytes"
    yield from _about(name, "gauge", "Resident, without pages of files, which the kernel takes back at will.")
    yield f"{name} {resident - shared}"
    yield from _about("process_cpu_seconds_total", "counter", "Of the process that answers this.")
    yield f"process_cpu_seconds_total {time.process_time()!r}"


def _about(name: str, kind: str, says: str) -> tuple[str, str]:
    return f"# HELP {name} {says}", f"# TYPE {name} {kind}"
