"""How far a start has come, read from the engine's own log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """In the order in which they come. An engine that serves plain adapters on CPU skips the warm-up."""

    IMPORTING = "importing"
    LOADING = "loading weights"
    WARMING = "warming up"
    OPENING = "opening its port"
    LOADING_ADAPTERS = "loading adapters"
    READY = "ready"


_SIGNS = (
    ("Starting to load model", Stage.LOADING),
    ("Loading safetensors checkpoint shards", Stage.LOADING),
    # after the weights: profiling run, compilation, KV cache
    ("Loading weights took", Stage.WARMING),
    ("Model loading took", Stage.WARMING),
    ("punica_selector", Stage.WARMING),
    ("Warming up model", Stage.WARMING),
    ("KV cache size", Stage.WARMING),
    ("init engine (profile", Stage.OPENING),
    ("Application startup complete", Stage.OPENING),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of one engine's start; `elapsed_s` since its process was started."""

    engine: str
    stage: Stage
    elapsed_s: float

    def __str__(self) -> str:
        return f"engine {self.engine}: {self.stage} ({self.elapsed_s:.0f} s)"


def stage_of(line: str) -> Stage | None:
    """The stage that a line of vLLM 0.32's log announces, None for most lines."""
    for sign, stage in _SIGNS:
        if sign in line:
            return stage
    return None


def further(now: Stage, seen: Stage | None) -> bool:
    """Whether `seen` comes after `now`: a stage is never announced twice, nor one that is already past."""
    order = list(Stage)
    return seen is not None and order.index(seen) > order.index(now)


class Reader:
    """Reads one start's log, line by line."""

    def __init__(self) -> None:
        self.stage = Stage.IMPORTING
        self.error: str | None = None

    def line(self, line: str) -> Stage | None:
        """The stage that begins with this line, if one does. Remembers the last line that names an error."""
        if "WARNING " not in line and (match := _ERROR.search(line)):
            self.error = match[0].strip()[:300]
        seen = stage_of(line)
        if seen is not None and further(self.stage, seen):
            self.stage = seen
            return seen
        return None


_ERROR = re.compile(r"\b\w*(?:Error|Exception|Interrupt)\b: .+|\berror: .+|Address already in use.*")
