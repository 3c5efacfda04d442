"""What the plots need of a run's samples, small enough to keep in the report."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from loadtests.faults import Event
from loadtests.measure import LATENCIES, measured
from loadtests.percentiles import Floats, quantile
from loadtests.sample import Sample
from loadtests.window import Window, ended

MOST_STEPS = 600
"""Points on a time axis; a longer run has steps of several seconds."""

POINTS = 120
"""Points of a percentile curve, evenly spaced on its logarithmic axis."""

BOX = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}


def series(samples: Sequence[Sample], warmup: float = 0.0, events: Iterable[Event] = ()) -> dict[str, Any]:
    """The run by steps of `step_s` whole seconds from its start, warm-up included, until the last answer.

    `offered` counts by when requests were due, `answered` and `errors` by when they ended, `in_flight` at the
    end of each step those due and not ended. `tokens` are output tokens that came in
    the step. `ttft_p50` and `ttft_p99` (seconds, from the scheduled send) are of the good requests due in it,
    slow clients aside; None where there are none. `phases` are [name, from, to], `events` [at, what], those
    that were done.
    """
    moments = [ended(sample) for sample in samples]
    last = max([*(sample.at for sample in samples), *(m for m in moments if math.isfinite(m))], default=0.0)
    step = max(1, math.ceil((last + 1e-9) / MOST_STEPS))
    n = math.floor(last / step) + 1 if samples else 0
    offered, answered, errors = [0] * n, [0] * n, [0] * n
    ttfts: list[list[float]] = [[] for _ in range(n)]
    for sample, moment in zip(samples, moments, strict=True):
        due = int(sample.at // step)
        offered[due] += 1
        if math.isfinite(moment):
            (answered if sample.ok else errors)[int(moment // step)] += 1
        if sample.ok and sample.ttft is not None and not sample.slow:
            ttfts[due].append(sample.ttft)
    dues, ends = sorted(sample.at for sample in samples), sorted(moments)
    marks = [(i + 1) * step for i in range(n)]
    ordered = [np.sort(np.asarray(values)) for values in ttfts]
    return {
        "step_s": step,
        "warmup_s": warmup,
        "offered": offered,
        "answered": answered,
        "errors": errors,
        "in_flight": [bisect_right(dues, t) - bisect_right(ends, t) for t in marks],
        "tokens": _tokens(samples, step, n),
        "ttft_p50": [quantile(values, 0.5) if values.size else None for values in ordered],
        "ttft_p99": [quantile(values, 0.99) if values.size else None for values in ordered],
        "phases": _phases(samples),
        "events": [[event.at, event.do] for event in events if not event.failed],
    }


def curves(samples: Sequence[Sample]) -> dict[str, list[list[float]]]:
    """Latency -> [[share of samples at or below, seconds], ...] of good measured requests, as an HDR plot
    has them: evenly spaced in log10(1 / (1 - share)), up to the largest sample. Empty ones are left out."""
    found = {}
    for name, values in _columns(samples).items():
        n = values.size
        if n:
            shares = 1 - 10 ** -np.linspace(0, math.log10(2 * n), POINTS)
            ranks = np.unique(np.clip(np.ceil(np.round(shares * n, 9)), 1, n).astype(int))
            found[name] = [[(int(k) - 0.5) / n, float(values[k - 1])] for k in ranks]
    return found


def boxes(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Route -> p5, p25, p50, p75, p95 of TTFT (seconds, from the scheduled send) and n, where it has any."""
    routes: dict[str, list[float]] = {}
    for sample in samples:
        if sample.ok and measured(sample) and sample.ttft is not None:
            routes.setdefault(sample.route, []).append(sample.ttft)
    ordered = {route: np.sort(np.asarray(values)) for route, values in sorted(routes.items())}
    return {
        route: {**{name: quantile(values, q) for name, q in BOX.items()}, "n": values.size}
        for route, values in ordered.items()
    }


def _columns(samples: Sequence[Sample]) -> Mapping[str, Floats]:
    good = [sample for sample in samples if sample.ok and measured(sample)]
    values: dict[str, list[float]] = {name: [] for name in LATENCIES if name not in ("tpot", "gap")}
    for s in good:
        for name, end in (("ttft", s.first), ("e2e", s.last)):
            if end is not None:
                values[name].append(end - s.at)
                if s.sent is not None:
                    values[f"{name}_from_send"].append(end - s.sent)
    gaps = [np.diff(s.arrivals) for s in good if len(s.arrivals) > 1]
    columns = {name: np.sort(np.asarray(column, np.float64)) for name, column in values.items()}
    return columns | {"gap": np.sort(np.concatenate(gaps)) if gaps else np.zeros(0)}


def _tokens(samples: Sequence[Sample], step: int, n: int) -> list[int]:
    made = [0] * n
    for sample in samples:
        last = sample.arrivals[-1] if sample.arrivals else sample.last
        if last is None or not sample.output_tokens:
            continue
        first = sample.arrivals[0] if sample.arrivals else last
        for i in range(int(first // step), min(int(last // step), n - 1) + 1):
            made[i] += Window(i * step, step).output_tokens(sample)
    return made


def _phases(samples: Iterable[Sample]) -> list[list[Any]]:
    spans: dict[str, list[float]] = {}
    for sample in samples:
        span = spans.setdefault(sample.phase, [sample.at, sample.at])
        span[0], span[1] = min(span[0], sample.at), max(span[1], sample.at)
    return [[name, *span] for name, span in sorted(spans.items(), key=lambda item: item[1])]
