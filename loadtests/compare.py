"""Whether run B differs from run A by more than chance.

Many figures are compared (`loadtests.differences`), so some would look different by chance. p is therefore
adjusted (Holm, 1979): over all the figures of a comparison, the chance of any false "better" or "worse" is at
most 5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadtests.differences import Difference, Side, figures, holm, judged, slo_bounds
from loadtests.figures import ms, number, percent, usd
from loadtests.sample import Sample
from loadtests.samples import read_samples
from loadtests.tables import Table

ROUTES = 20
"""Most routes compared: those with the most requests. More would leave each with less certainty."""

UNITS: Mapping[str, Callable[[float | None], str]] = {"s": ms, "share": percent, "1/s": number, "usd": usd}


class CompareError(ValueError):
    """Two runs that cannot be compared, or a folder without a run."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its report (report.json) and its samples."""

    name: str
    report: Mapping[str, Any]
    samples: Sequence[Sample]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run in `folder`. Raises `CompareError`, and `SamplesError` where the samples are broken."""
        try:
            report = msgspec.json.decode((folder / "report.json").read_bytes())
            samples = read_samples(folder / "samples.jsonl")
        except FileNotFoundError as error:
            raise CompareError(
                f"{folder} holds no run: {error.filename} is missing; give a run's folder"
            ) from error
        except msgspec.DecodeError as error:
            raise CompareError(
                f"{folder / 'report.json'} is not a report ({error}); make the run again"
            ) from error
        return cls(folder.name, report, samples)


@dataclass(frozen=True, slots=True)
class Comparison:
    a: str
    b: str
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(a: Run, b: Run, *, seed: int = 1) -> Comparison:
    """B against A: the whole run, the routes that both have, and the phases where there are several."""
    rng = np.random.default_rng(seed)
    sides = [Side(run.report, run.samples) for run in (a, b)]
    paired = a.report["plan_digest"] == b.report["plan_digest"]
    found = [
        figure
        for group, chosen in _groups(a, b).items()
        for figure in figures(group, *(side.cut(chosen) for side in sides), rng=rng, paired=paired)
    ]
    known = [(i, figure.p) for i, figure in enumerate(found) if figure.p is not None]
    for (i, _), p in zip(known, holm([p for _, p in known]), strict=True):
        found[i] = judged(found[i], p)
    return Comparison(a.name, b.name, tuple(found), tuple(_warnings(a.report, b.report)))


def tables(comparison: Comparison) -> list[Table]:
    """The warnings, then the differences; latencies in ms."""
    rows = []
    for d in comparison.differences:
        shown = UNITS[d.unit]
        between = "" if d.low is None else f"[{_signed(d.low, shown)}, {_signed(d.high, shown)}]"
        ratio = "" if d.ratio is None else f"{d.ratio:.3f}"
        rows.append(
            (
                d.group,
                d.metric,
                shown(d.a),
                shown(d.b),
                _signed(d.difference, shown),
                between,
                ratio,
                d.verdict,
            )
        )
    note = (
        "[low, high]: 95 % interval of the difference. Verdicts are adjusted for the number of figures "
        "(Holm), so an interval can leave out zero where the verdict is no difference."
    )
    header = ("group", "figure", "A", "B", "B - A", "interval", "B / A", "B is")
    title = f"A = {comparison.a}, B = {comparison.b} (latencies in ms)"
    warnings = Table("Careful", ("",), tuple((text,) for text in comparison.warnings), words=True)
    return [
        table for table in (warnings, Table(title, header, tuple(rows), (note,), words=True)) if table.rows
    ]


def _groups(a: Run, b: Run) -> dict[str, Callable[[Sample], bool]]:
    def route(name: str) -> Callable[[Sample], bool]:
        return lambda sample: sample.route == name

    def phase(name: str) -> Callable[[Sample], bool]:
        return lambda sample: sample.phase == name

    ours, theirs = a.report["measures"], b.report["measures"]
    routes = [name for name in ours["routes"] if name in theirs["routes"]]
    routes.sort(key=lambda name: (-ours["routes"][name]["requests"], name))
    phases = [name for name in ours["phases"] if name in theirs["phases"] and name != "warmup"]
    found: dict[str, Callable[[Sample], bool]] = {"all": lambda sample: True}
    if len(routes) > 1:
        found |= {f"route {name}": route(name) for name in routes[:ROUTES]}
    if len(phases) > 1:
        found |= {f"phase {name}": phase(name) for name in phases}
    return found


def _warnings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    said = []
    if a["plan_digest"] != b["plan_digest"]:
        said.append(
            f"The plans differ ({a['plan_digest'][:12]}, {b['plan_digest'][:12]}): the runs were asked for "
            "different things."
        )
    for name, report in (("A", a), ("B", b)):
        if report["verdict"] in ("saturated", "no_answers"):
            said.append(
                f"{name} is {report['verdict'].replace('_', ' ')} ({report['why']}); do not trust it."
            )
    if a["machine"] != b["machine"]:
        differ = ", ".join(
            f"{key} {a['machine'].get(key)} and {b['machine'].get(key)}"
            for key in dict.fromkeys((*a["machine"], *b["machine"]))
            if a["machine"].get(key) != b["machine"].get(key)
        )
        said.append(f"The generators ran on different machines: {differ}.")
    if slo_bounds(a) != slo_bounds(b):
        said.append("The SLOs differ: the share that met it is not compared.")
    return said


def _signed(value: float | None, shown: Callable[[float | None], str]) -> str:
    text = shown(value)
    return f"+{text}" if value is not None and value > 0 else text
