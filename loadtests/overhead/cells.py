"""What is measured: one cell is one kind of load, for some seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """A load. Closed loop over `connections`, or open loop at `rate` requests a second over at most as many.

    A stream has `chunks`, `delay_ms` apart, and begins within `stagger_ms` of the others. The first `warm_s`
    seconds are not measured. `prompt_bytes` is the length of the user's message.
    """

    name: str
    says: str
    connections: int
    seconds: float
    warm_s: float = 1.0
    rate: float | None = None
    chunks: int = 0
    delay_ms: float = 0.0
    stagger_ms: int = 0
    prompt_bytes: int = 100

    @property
    def streams(self) -> bool:
        return self.chunks > 0


CELLS = (
    Cell("saturation", "64 connections, as fast as it goes", 64, 5),
    Cell("sequential", "one request after the other", 1, 4),
    Cell("rate-100", "100 requests/s, from the scheduled instant", 16, 4, rate=100),
    Cell("rate-1000", "1,000 requests/s, from the scheduled instant", 64, 4, rate=1000),
    Cell("rate-5000", "5,000 requests/s, from the scheduled instant", 128, 4, rate=5000),
    Cell("streams-200", "200 streams, 10 ms between chunks", 200, 5, chunks=64, delay_ms=10, stagger_ms=640),
    Cell(
        "streams-2000",
        "2,000 streams, 100 ms between chunks",
        2000,
        10,
        warm_s=8,
        chunks=70,
        delay_ms=100,
        stagger_ms=7000,
    ),
    Cell("prompt-400k", "one 400 KB prompt after the other", 1, 3, prompt_bytes=400_000),
)
"""In the order in which they run. Answers that are not streams have about 600 bytes."""

BESIDE = Cell(
    "stall", "50 streams, 10 ms between chunks, beside 400 KB prompts", 50, 5, chunks=64, delay_ms=10
)
BESIDE_PROMPTS = Cell("stall", "the prompts", 4, 5, rate=10, prompt_bytes=400_000)


@dataclass(frozen=True, slots=True)
class Figures:
    """One cell of one system. Times in microseconds; None where the cell or the generator has no such figure.

    `late_*` is from the mock's write of a chunk to its arrival: what lies between the two, and nothing else.
    `cpu_us` is user and system time of the gateway's processes a request, or a chunk where there are streams.
    """

    answered: int
    errors: int
    per_s: float
    p50: float | None = None
    p99: float | None = None
    ttft_p50: float | None = None
    ttft_p99: float | None = None
    gap_p99: float | None = None
    late_p50: float | None = None
    late_p99: float | None = None
    late_max: float | None = None
    cpu_us: float | None = None
