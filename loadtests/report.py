"""One run as one JSON document: everything that the tables, the page and `compare` show.

Nothing secret is in it: URLs lose user names, passwords and queries; the values of options and headers that
hold keys, and every given secret wherever it was echoed, become `***`. Nothing in it is NaN or infinite.

The verdict, the first that applies:

- `no_answers`: no request was answered as it should be.
- `saturated`: the generator was late or dropped sends: the figures are of the generator, not of the server.
- `missed`: a threshold failed the run, or fewer requests met the SLO than its share asks for.
- `ok`.
"""

from __future__ import annotations

import math
import os
import platform
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from loadtests.cost import Cost
from loadtests.faults import Event
from loadtests.figures import percent
from loadtests.measure import WARMUP, Bounds, Measures, stated
from loadtests.sample import Outcome, Sample
from loadtests.search import Found
from loadtests.series import boxes, curves, series
from loadtests.thresholds import Threshold, check

VERSION = 1
HIDDEN = "***"
EXAMPLES = 3
"""Messages kept of each kind of error."""

SECRET = re.compile(r"(?i)key|token(?!s)|secret|passw|authorization|header|cookie|credential")
BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\"]+")
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"]+")


def build(
    *,
    scenario: Mapping[str, Any],
    plan_digest: str,
    target: str,
    command: Sequence[str],
    started: float,
    samples: Sequence[Sample],
    measures: Measures,
    generator: Mapping[str, Any],
    starts: float | None = None,
    slo: Bounds | None = None,
    slo_share: float = 0.99,
    thresholds: Sequence[Threshold] = (),
    cost: Cost | None = None,
    metrics: Mapping[str, Any] | None = None,
    found: Found | None = None,
    events: Sequence[Event] = (),
    machine: Mapping[str, Any] | None = None,
    secrets: Iterable[str] = (),
) -> dict[str, Any]:
    """The report, ready for JSON.

    `scenario` is a scenario as JSON holds it (name, says, seed, seconds, warmup_s). `generator` says
    at least `saturated` and `why`. `started` is the unix time of the run's start; the measured window begins
    `starts` seconds later (None: after the scenario's warm-up). `machine` is where the
    generator ran (None: this one). `secrets` are hidden wherever they appear.
    """
    slo = stated(slo)
    starts = float(scenario.get("warmup_s", 0.0)) if starts is None else starts
    report: dict[str, Any] = {
        "report": VERSION,
        "name": scenario["name"],
        "says": scenario.get("says", ""),
        "when": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "command": shlex.join(public_command(command)),
        "target": public_url(target),
        "machine": this_machine() if machine is None else machine,
        "seed": scenario.get("seed"),
        "plan_digest": plan_digest,
        "scenario": scenario,
        "starts": starts,
        "seconds": measures.all.seconds,
        "generator": generator,
        "measures": measures.to_json(),
        "cost": None if cost is None else cost.to_json(),
        "metrics": metrics,
        "slo": None if slo is None else _slo(slo, slo_share, measures),
        "search": None if found is None else found.to_json(),
        "series": series(samples, starts, events),
        "events": [asdict(event) for event in events],
        "curves": curves(samples),
        "boxes": boxes(samples),
        "errors": _examples(samples),
    }
    missed = check(thresholds, report)
    report["thresholds"] = {
        "asked": [str(t) for t in thresholds],
        "missed": [miss.to_json() for miss in missed],
    }
    report["verdict"], report["why"] = verdict(report)
    clean = _clean(report, [secret for secret in secrets if secret])
    assert isinstance(clean, dict)
    return clean


def verdict(report: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict and why, of a report that holds measures, generator, slo and thresholds."""
    measures, generator = report["measures"], report["generator"]
    groups = [measures["all"], *([measures["slow"]] if measures["slow"] else [])]
    if not any(group["ok"] for group in groups):
        errors = {name: n for group in groups for name, n in group["errors"].items()}
        said = ", ".join(f"{n} {name}" for name, n in errors.items()) or "none was due"
        return "no_answers", f"no request was answered as it should be: {said}"
    if generator["saturated"]:
        return "saturated", str(generator["why"] or "the generator could not keep up")
    reasons = [str(miss["why"]) for miss in report["thresholds"]["missed"]]
    if report["slo"] and report["slo"]["held"] is False:
        slo = report["slo"]
        reasons.append(f"{percent(slo['reached'])} of requests met the SLO, {percent(slo['share'])} must")
    return ("missed", "; ".join(reasons)) if reasons else ("ok", "")


def public_url(url: str) -> str:
    """`url` without user name, password, query and fragment: any of them may be a secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def public_command(command: Sequence[str]) -> list[str]:
    """An argument list that can be shown: options and variables that hold secrets have `***` for a value."""
    shown: list[str] = []
    hide = False
    for word in command:
        name, equals, value = word.partition("=")
        if hide:
            shown.append(HIDDEN)
        elif equals and value and SECRET.search(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(URL.sub(lambda found: public_url(found[0]), BEARER.sub(rf"\1 {HIDDEN}", word)))
        hide = (
            not hide and not equals and word.startswith("-") and (word == "-H" or bool(SECRET.search(word)))
        )
    return shown


def this_machine() -> dict[str, Any]:
    """Where the generator runs: host, system, processor, cores, Python."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _slo(slo: Bounds, share: float, measures: Measures) -> dict[str, Any]:
    reached = measures.all.goodput_share
    return {
        "ttft_s": slo.ttft_s,
        "tpot_s": slo.tpot_s,
        "e2e_s": slo.e2e_s,
        "share": share,
        "reached": reached,
        "held": None if reached is None else reached >= share,
    }


def _examples(samples: Iterable[Sample]) -> dict[str, list[dict[str, Any]]]:
    """The first few of each kind of error, for people: what was said, by which route, when."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        if sample.outcome is Outcome.OK or sample.phase == WARMUP:
            continue
        kept = kinds.setdefault(str(sample.outcome), [])
        if len(kept) < EXAMPLES and sample.detail not in [example["detail"] for example in kept]:
            kept.append(
                {"at": sample.at, "route": sample.route, "status": sample.status, "detail": sample.detail}
            )
    return kinds


def _clean(value: Any, secrets: Sequence[str]) -> Any:
    """As JSON holds it: plain containers, no NaN, no infinity, no secret."""
    if isinstance(value, Mapping):
        return {_clean(str(name), secrets): _clean(inner, secrets) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner, secrets) for inner in value]
    if isinstance(value, str):
        text = BEARER.sub(rf"\1 {HIDDEN}", str(value))
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        return text
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return asdict(value) if hasattr(value, "__dataclass_fields__") else str(value)
