"""What a run will send, decided beforehand: a seeded pure function from a scenario to a frozen list.

Same scenario and seed, same plan, byte for byte. Arrivals, routes, prompts, output lengths, sessions and slow
clients each have a random stream of their own, so that changing one leaves the others as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadtests.arrivals import Closed
from loadtests.scenario import WARMUP, Scenario, ScenarioError, Sessions, parse
from loadtests.schedule import phase_at, phases, starts
from loadtests.streams import stream
from loadtests.texts import Messages
from loadtests.traces import Row
from loadtests.words import texts

VERSION = 1

MAX_TOKENS = 64
"""Of an answer, where neither the scenario nor a trace says."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to send. `at` is seconds from the start of the run, warm-up included, to the
    microsecond."""

    index: int  # its position in the plan, which is in order of `at`
    at: float
    route: str
    phase: str  # "warmup", "run", or a phase's name
    messages: tuple[Mapping[str, str], ...]  # role and content
    max_tokens: int
    session: str | None = None
    turn: int = 0
    slow: bool = False  # this client reads slowly on purpose

    @property
    def text(self) -> str:
        """The messages as one prompt, for the completions API: their contents, a blank line between."""
        return "\n\n".join(message["content"] for message in self.messages)


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests of a run, and the scenario they came from."""

    scenario: Scenario
    requests: tuple[Request, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes that `save` writes, in hex."""
        digest = sha256()
        for line in self._lines():
            digest.update(line)
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write it as JSON lines: a header with the scenario, then one line a request."""
        with path.open("wb") as file:
            file.writelines(self._lines())

    @classmethod
    def read(cls, path: Path) -> Plan:
        """A plan that `save` wrote. Raises `ScenarioError` where it is not one."""
        requests: list[Request] = []
        scenario = None
        try:
            with path.open("rb") as file:
                scenario = _header(next(file, b""), path)
                decoder = msgspec.json.Decoder(Request)
                requests.extend(decoder.decode(line) for line in file)
        except OSError as error:
            raise ScenarioError(f"plan {path} cannot be read: {error}") from error
        except msgspec.MsgspecError as error:
            line = len(requests) + 2 if scenario else 1
            raise ScenarioError(
                f"plan {path}, line {line}: {error}; make it again from its scenario"
            ) from error
        return cls(scenario, tuple(requests))

    def _lines(self) -> Iterator[bytes]:
        encoder = msgspec.json.Encoder()
        yield encoder.encode({"plan": VERSION, "scenario": self.scenario.model_dump(mode="json")}) + b"\n"
        for request in self.requests:
            yield encoder.encode(request) + b"\n"


def _header(line: bytes, path: Path) -> Scenario:
    header: Any = msgspec.json.decode(line)
    if not isinstance(header, dict) or header.get("plan") != VERSION or "scenario" not in header:
        raise ScenarioError(f"{path} is not a plan of version {VERSION}: its first line is not the header")
    return parse(header["scenario"], str(path))


def plan(scenario: Scenario) -> Plan:
    """Every request of a run of `scenario`. Raises `ScenarioError` for a file that is missing or wrong."""
    made = _single(scenario) if scenario.sessions is None else _conversations(scenario, scenario.sessions)
    return Plan(scenario, tuple(made))


def _single(scenario: Scenario) -> Iterator[Request]:
    """One request for each start."""
    begun = starts(scenario)
    parts = _Parts(scenario, len(begun), [start.row for start in begun])
    begins, names = phases(scenario)
    warmup = scenario.arrivals.warmup_requests if isinstance(scenario.arrivals, Closed) else 0
    for i, (start, user, max_tokens, slow) in enumerate(zip(begun, *parts.each(), strict=True)):
        phase = WARMUP if i < warmup else phase_at(start.at, begins, names)
        yield Request(i, start.at, start.route, phase, parts.opening + user, max_tokens, slow=slow)


def _conversations(scenario: Scenario, sessions: Sessions) -> Iterator[Request]:
    """The turns of every session, in order of time. Each carries the turns before it, with planned
    answers."""
    begun, seed = starts(scenario), scenario.seed
    turns = sessions.turns.whole(stream(seed, "sessions"), len(begun)).tolist()
    parts = _Parts(scenario, sum(turns))
    pauses = sessions.think_s.draw(stream(seed, "think"), sum(turns)).tolist()
    answers = texts(stream(seed, "answers"), parts.counts)
    drawn = zip(*parts.each(), pauses, answers, strict=True)
    begins, names = phases(scenario)
    made: list[Request] = []
    for number, (start, length) in enumerate(zip(begun, turns, strict=True)):
        messages, at = parts.opening, start.at
        for turn, (user, max_tokens, slow, pause, answer) in enumerate(islice(drawn, length)):
            at = round(at + pause, 6) if turn else at
            messages += user
            if at < scenario.total_s:
                phase = phase_at(at, begins, names)
                made.append(
                    Request(0, at, start.route, phase, messages, max_tokens, f"s{number}", turn, slow)
                )
            messages += ({"role": "assistant", "content": answer},)
    made.sort(key=lambda request: request.at)  # stable: ties stay in order of making
    return (replace(request, index=i) for i, request in enumerate(made))


class _Parts:
    """What is drawn for each of n requests, whenever it is sent."""

    def __init__(self, scenario: Scenario, n: int, rows: Sequence[Row | None] = ()) -> None:
        seed, output = scenario.seed, scenario.output
        recorded = [row for row in rows if row is not None]
        traced = recorded if len(recorded) == n and n else None
        self.opening = scenario.prompts.opening(seed)
        self.users = scenario.prompts.turns(seed, n, traced)
        if output is not None:
            self.counts = output.whole(stream(seed, "output"), n)
        elif traced is not None:
            self.counts = np.array([row.output_tokens for row in traced])
        else:
            self.counts = np.full(n, MAX_TOKENS)
        self.slow = (stream(seed, "slow").random(n) < scenario.client.slow_share).tolist()

    def each(self) -> tuple[Iterator[Messages], list[int], list[bool]]:
        return self.users, self.counts.tolist(), self.slow
