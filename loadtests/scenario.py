"""What load is offered: one TOML file, checked before anything is sent.

    name = "steady"
    seconds = 60

    [arrivals]
    kind = "poisson"
    rate = 4

    [routes]
    mix = "weights"
    weights = {support = 3, base = 1}

Times are seconds, rates are requests a second (sessions a second where there are sessions). Paths are
relative to the folder that the command runs in.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from loadtests.arrivals import Arrivals, Closed, Trace
from loadtests.distributions import Distribution
from loadtests.mixes import Mix
from loadtests.prompts import Lengths, Prompts
from loadtests.section import ScenarioError, Section, explain, nearest
from loadtests.thresholds import Threshold

__all__ = [
    "RUN",
    "WARMUP",
    "Client",
    "Fault",
    "Phase",
    "Scenario",
    "ScenarioError",
    "Sessions",
    "Shipped",
    "Slo",
    "load",
    "parse",
    "shipped",
]

WARMUP, RUN = "warmup", "run"


class Slo(Section):
    """Seconds that a good request takes at most, from its scheduled send; `share` of them must meet every
    bound."""

    ttft_s: float | None = Field(None, gt=0)
    tpot_s: float | None = Field(None, gt=0)
    e2e_s: float | None = Field(None, gt=0)
    share: float = Field(0.99, gt=0, le=1)


class Phase(Section):
    """A named stretch of the measured window. What it does not give is the scenario's, begun anew."""

    name: str = Field(min_length=1)
    seconds: float = Field(gt=0)
    arrivals: Arrivals | None = None
    routes: Mix | None = None


class Sessions(Section):
    """Conversations of several turns, all on one route. `arrivals` are then of sessions.

    `think_s` is from one turn's scheduled send to the next one's, so it holds the answer's time too. History
    is planned: earlier turns come with answers made beforehand, or the list could not be frozen. Turns due
    after the end of the run are left out.
    """

    turns: Distribution
    think_s: Distribution
    history: Literal["planned"] = "planned"


class Client(Section):
    """The sending side. Above `max_open` requests in flight a send is dropped and counted, never queued."""

    max_open: int = Field(4096, ge=1)
    max_lag_s: float = Field(0.01, gt=0)
    timeout_s: float = Field(120.0, gt=0)
    drain_s: float = Field(30.0, ge=0)
    slow_share: float = Field(0.0, ge=0, le=1)
    slow_bytes_per_s: int = Field(200, ge=1)


class Fault(Section):
    """A signal to a process that the user names: by an environment variable, or a file, that holds its pid.

    `at_s` is seconds from the start of the run, warm-up included.
    """

    at_s: float = Field(ge=0)
    do: Literal["kill", "stop", "continue"]
    pid_env: str | None = None
    pid_file: str | None = None

    @model_validator(mode="after")
    def _who(self) -> Fault:
        if (self.pid_env is None) == (self.pid_file is None):
            raise ValueError("give either pid_env or pid_file, one of the two, for the process to signal")
        return self


class Scenario(Section):
    """A load, whole. `seconds` is the measured window; `warmup_s` comes before it and does not count.

    In closed loop `seconds` is the longest that the run may take, and there is no warm-up by time
    (`arrivals.warmup_requests` instead).
    """

    name: str = Field(min_length=1)
    says: str = ""
    seed: int = Field(1, ge=0)
    seconds: float = Field(gt=0)
    warmup_s: float = Field(0.0, ge=0)
    stream: bool = True
    api: Literal["chat", "completions"] = "chat"
    ignore_eos: bool = False
    temperature: float | None = Field(0.0, ge=0)
    arrivals: Arrivals
    routes: Mix
    phases: tuple[Phase, ...] = ()
    prompts: Prompts = Lengths()
    output: Distribution | None = Field(None, description="max_tokens; without it the trace's lengths, or 64")
    sessions: Sessions | None = None
    slo: Slo = Slo()
    client: Client = Client()
    faults: tuple[Fault, ...] = ()
    thresholds: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        """Seconds during which requests are due: the warm-up and the measured window."""
        return round(self.warmup_s + self.seconds, 6)

    @property
    def phase_seconds(self) -> dict[str, float]:
        """How long each phase lasts, the warm-up included where there is one."""
        warmup = {WARMUP: self.warmup_s} if self.warmup_s else {}
        named = {phase.name: phase.seconds for phase in self.phases}
        return warmup | (named or {RUN: self.seconds})

    @model_validator(mode="before")
    @classmethod
    def _sum(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "seconds" not in data and (total := _phases_sum(data)) is not None:
            return {**data, "seconds": total}
        return data

    @field_validator("thresholds")
    @classmethod
    def _readable(cls, thresholds: tuple[str, ...]) -> tuple[str, ...]:
        for text in thresholds:
            Threshold.parse(text)
        return thresholds

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        total = sum(phase.seconds for phase in self.phases)
        if self.phases and abs(total - self.seconds) > 1e-6:
            raise ValueError(
                f"seconds = {self.seconds:g}, but the phases last {total:g} together; leave seconds out"
            )
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names) or WARMUP in names:
            raise ValueError(f"phases {names}: names must differ from each other and from {WARMUP!r}")
        for fault in self.faults:
            if fault.at_s >= self.total_s:
                raise ValueError(
                    f"faults: at_s = {fault.at_s:g} is after the run's end at {self.total_s:g} s"
                )
        self._check_closed()
        self._check_trace()
        return self

    def _check_closed(self) -> None:
        if any(isinstance(phase.arrivals, Closed) for phase in self.phases):
            raise ValueError(
                "a phase cannot be closed: a closed loop has no times to divide; make it a run of its own"
            )
        if isinstance(self.arrivals, Closed):
            for key, given in (
                ("phases", self.phases),
                ("sessions", self.sessions),
                ("warmup_s", self.warmup_s),
            ):
                if given:
                    hint = "use arrivals.warmup_requests" if key == "warmup_s" else "use open-loop arrivals"
                    raise ValueError(f"closed arrivals have no times, so {key} cannot be kept; {hint}")

    def _check_trace(self) -> None:
        traced = any(
            isinstance(a, Trace) for a in (self.arrivals, *(phase.arrivals for phase in self.phases))
        )
        if traced and self.sessions:
            raise ValueError("a trace has requests, not sessions; leave [sessions] out or use other arrivals")


def load(path_or_name: str | Path, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """The scenario in a file, or the shipped one of that name.

    `overrides` are dotted keys with values that replace the file's (`arrivals.rate`, `phases.0.seconds`), or
    whole tables (`arrivals`, `routes`); None values are ignored. `names` of routes takes the place of
    `count`, and the other way round. `seconds` shrinks or stretches phases, and the faults in them, in
    proportion. Raises `ScenarioError` with the file, the key, its value and the nearest that is known.
    """
    source, text = _read(path_or_name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{source} is not valid TOML: {error}") from error
    for key, value in (overrides or {}).items():
        if value is None:
            continue
        if key == "seconds" and isinstance(value, int | float) and (total := _phases_sum(table)):
            _stretch(table, value / total)
        else:
            _put(table, key, value, source)
    return parse(table, source)


def parse(table: Mapping[str, Any], source: str) -> Scenario:
    """A scenario from a table. `source` says where it is from in errors. Raises `ScenarioError`."""
    try:
        return Scenario.model_validate(table)
    except ValidationError as error:
        raise ScenarioError(explain(error, Scenario, source)) from error


@dataclass(frozen=True, slots=True)
class Shipped:
    """A scenario that comes with the package."""

    name: str
    says: str


def shipped() -> list[Shipped]:
    """The scenarios that come with the package, by name."""
    found = (tomllib.loads(file.read_text()) for file in _packaged().values())
    return sorted((Shipped(table["name"], table["says"]) for table in found), key=lambda one: one.name)


def _packaged() -> dict[str, Any]:
    folder = resources.files("loadtests") / "scenarios"
    return {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}


def _read(path_or_name: str | Path) -> tuple[str, str]:
    given = str(path_or_name)
    if given.endswith(".toml") or "/" in given or isinstance(path_or_name, Path):
        try:
            return given, Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ScenarioError(f"scenario file {given} cannot be read: {error}") from error
    packaged = _packaged()
    if given not in packaged:
        raise ScenarioError(
            f"no shipped scenario {given!r}{nearest(given, packaged)} (or give a path to a .toml)"
        )
    return given, packaged[given].read_text(encoding="utf-8")


def _phases_sum(table: Mapping[str, Any]) -> float | None:
    """Seconds that the phases of a raw table last together; None without phases, or where one has no
    number."""
    phases = table.get("phases")
    if not isinstance(phases, list | tuple) or not phases:
        return None
    total = 0.0
    for phase in phases:
        length = phase.get("seconds") if isinstance(phase, Mapping) else getattr(phase, "seconds", None)
        if not isinstance(length, int | float):
            return None
        total += length
    return total


def _stretch(table: Any, factor: float) -> None:
    """Make every phase `factor` times as long, and let faults happen where in their phase they did."""
    table.pop("seconds", None)
    for phase in table["phases"]:
        phase["seconds"] = round(phase["seconds"] * factor, 6)
    begin = table.get("warmup_s", 0.0)
    for fault in table.get("faults", []):
        if fault.get("at_s", 0.0) > begin:
            fault["at_s"] = round(begin + (fault["at_s"] - begin) * factor, 6)


def _put(table: Any, key: str, value: Any, source: str) -> None:
    *parents, last = key.split(".")
    try:
        for part in parents:
            table = table[int(part)] if isinstance(table, list) else table.setdefault(part, {})
        if isinstance(table, list):
            table[int(last)] = value
        else:
            table.pop({"names": "count", "count": "names"}.get(last), None)  # of a mix: either of the two
            table[last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ScenarioError(f"{source}: cannot set {key} = {value!r}: there is no such table") from error
