"""Bounds that a run must hold, for CI: `ttft.p99>1.0`, `route[support]:errors.share>0.01`.

A threshold says when the run *fails*. It is read before anything is sent, so that a typing mistake costs no
run, and checked against a report as it was written. A figure that the run did not produce fails its
threshold: a gate that passes because nothing was measured is no gate.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.sample import Outcome

LATENCIES = ("ttft", "tpot", "gap", "e2e", "ttft_from_send", "e2e_from_send")
"""Seconds. All but the last two run from the scheduled send."""

STATISTICS = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
ERRORS = tuple(str(outcome) for outcome in Outcome if outcome is not Outcome.OK)
METRICS = (
    *(f"{latency}.{statistic}" for latency in LATENCIES for statistic in STATISTICS),
    "errors.share",
    *(f"errors.{outcome}" for outcome in ERRORS),
    "goodput.share",
    "goodput.per_s",
    "tokens_per_s",
    "requests_per_s",
    "cost.usd_per_mtok",
)
SCOPES = {"route": "routes", "phase": "phases", "version": "versions"}
"""What may stand before the brackets, and where its groups are in a report's measures."""

COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_SHAPE = re.compile(
    r"\s*(?:(?P<scope>\w+)\[(?P<name>[^\]]+)\]\s*:)?\s*(?P<metric>[\w.]+)\s*(?P<sign>[<>]=?)\s*(?P<bound>\S+)\s*"
)


class ThresholdError(ValueError):
    """A threshold that cannot be read. The message says how one looks, or which name was meant."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The run fails when `metric` of `scope` (kind, name; None: the whole run) `sign` `bound`."""

    metric: str
    sign: str
    bound: float
    scope: tuple[str, str] | None = None

    def __str__(self) -> str:
        where = f"{self.scope[0]}[{self.scope[1]}]:" if self.scope else ""
        return f"{where}{self.metric}{self.sign}{self.bound:g}"

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Raises `ThresholdError`."""
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise ThresholdError(
                f"{text!r} is not a threshold; write METRIC>BOUND or METRIC<BOUND, as in 'ttft.p99>1.0' or "
                "'route[support]:errors.share>0.01'"
            )
        scope = None
        if kind := found["scope"]:
            if kind not in SCOPES:
                raise ThresholdError(f"{text!r}: {_unknown('scope', kind, tuple(SCOPES))}")
            scope = (kind, found["name"])
        metric = found["metric"]
        if metric not in METRICS:
            raise ThresholdError(f"{text!r}: {_unknown('metric', metric, METRICS)}")
        if scope and metric.startswith("cost."):
            raise ThresholdError(f"{text!r}: {metric} is of the whole run; leave {kind}[…] out")
        try:
            bound = float(found["bound"])
        except ValueError:
            bound = math.nan
        if not math.isfinite(bound):
            raise ThresholdError(f"{text!r}: {found['bound']!r} is no number (seconds, shares of 1, counts)")
        return cls(metric, found["sign"], bound, scope)


@dataclass(frozen=True, slots=True)
class Miss:
    """A threshold that failed the run: by its value, or because there was none (then `why` says so)."""

    threshold: Threshold
    value: float | None
    why: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.threshold}: {self.why}, which counts as a failure"
        return f"{self.threshold}: it was {self.value:.4g}"

    def to_json(self) -> dict[str, Any]:
        return {"threshold": str(self.threshold), "value": self.value, "why": str(self)}


def check(thresholds: Iterable[Threshold], report: Mapping[str, Any]) -> list[Miss]:
    """Those that fail `report` (a run's report.json), in the order given."""
    misses = []
    for threshold in thresholds:
        value, why = _value(threshold, report)
        if value is None or COMPARE[threshold.sign](value, threshold.bound):
            misses.append(Miss(threshold, value, why if value is None else ""))
    return misses


def _value(threshold: Threshold, report: Mapping[str, Any]) -> tuple[float | None, str]:
    """The figure, or None and why there is none."""
    measures = report["measures"]
    if threshold.metric == "cost.usd_per_mtok":
        cost = report.get("cost")
        if cost is None:
            return None, "no cost was computed (give --usd-per-hour)"
        return _number(cost.get("usd_per_mtok")), "no tokens were made"
    if threshold.scope is None:
        group, where = measures["all"], "the run"
    else:
        kind, name = threshold.scope
        groups = measures[SCOPES[kind]]
        if name not in groups:
            return None, f"the run has no {kind} {name!r} (it has {', '.join(map(repr, groups)) or 'none'})"
        group, where = groups[name], f"{kind} {name!r}"
    return _in_group(group, threshold.metric), f"{where} has no value for {threshold.metric}"


def _in_group(group: Mapping[str, Any], metric: str) -> float | None:
    if not group["requests"]:
        return None
    family, _, field = metric.partition(".")
    if family == "errors":
        return _number(group["error_share"] if field == "share" else group["errors"].get(field, 0))
    if family == "goodput":
        return _number(group["goodput_share" if field == "share" else "goodput_per_s"])
    if family in LATENCIES:
        return _number(group[family][field])
    return _number(group[family])


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _unknown(what: str, given: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {what} {given!r}; {hint}"
