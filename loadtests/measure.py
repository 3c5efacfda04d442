"""Samples to numbers: one `Group` for the whole run, and one per route, version, phase, and route and phase.

What counts where:
- Latencies are of good requests only. A failed one counts against the error share and the goodput instead.
- Warm-up samples are in the phase group "warmup" and nowhere else.
- Slow clients read slowly on purpose: they are the group `slow`, and in no other.
- A version group holds the requests whose answer named that version; one that failed before that has none.
- `ttft` and `e2e` run from the scheduled send, so that a generator or a server that stalls counts against the
  result (coordinated omission; Tene, 2013). `..._from_send` run from the bytes on the socket.
- `gap` is the time between consecutive chunks with content of one answer, pooled over requests.
- `tpot` is of streams only: an answer that came whole has no time per token.
- `requests_per_s` and `tokens_per_s` count what came back while the window lasted, whichever phase it was due
  in (`loadtests.window`); every other figure is of the requests that were due in it.
- Intervals know that neighbours in time met the same queue: a run is cut into 20 blocks, and the turns of a
  session and the gaps of a request hang together besides (`loadtests.percentiles`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, Protocol

import numpy as np

from loadtests.percentiles import Floats, Ints, Spread, spread
from loadtests.sample import Outcome, Sample
from loadtests.window import Window

WARMUP = "warmup"
BLOCKS = 20
"""Stretches of time that a run is cut into for intervals: batch means, as is usual for queues (Law, 1983)."""

LATENCIES = ("ttft", "ttft_from_send", "tpot", "gap", "e2e", "e2e_from_send")


class Bounds(Protocol):
    """A service level objective: seconds, or None for no bound. `loadtests.scenario.Slo` is one."""

    @property
    def ttft_s(self) -> float | None: ...
    @property
    def tpot_s(self) -> float | None: ...
    @property
    def e2e_s(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Group:
    """What some of a run's requests did in `seconds`. Shares are 0..1; None: there is nothing to divide by.

    `requests` were due, `ok` were answered; `errors` counts the others by `Outcome`. `requests_per_s` is of
    good answers that ended in the window, `tokens_per_s` of output tokens that came in it, whatever became of
    their request.
    `usage_missing_share` is of the good requests: where it is not 0, tokens are chunks, a lower bound.
    `met` requests met every bound of the SLO; None without one. `cold_starts` waited for an adapter to load.
    """

    seconds: float
    requests: int
    ok: int
    errors: Mapping[str, int]
    error_share: float | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usage_missing_share: float | None
    offered_per_s: float | None
    requests_per_s: float | None
    tokens_per_s: float | None
    met: int | None
    goodput_per_s: float | None
    goodput_share: float | None
    cold_starts: int
    compressed: int
    cold_start: Spread
    ttft: Spread
    ttft_from_send: Spread
    tpot: Spread
    gap: Spread
    e2e: Spread
    e2e_from_send: Spread


@dataclass(frozen=True, slots=True)
class Measures:
    """A run in numbers. `route_phases` is route -> phase -> group; `slow` is None without slow clients."""

    all: Group
    slow: Group | None = None
    routes: Mapping[str, Group] = field(default_factory=dict)
    versions: Mapping[str, Group] = field(default_factory=dict)
    phases: Mapping[str, Group] = field(default_factory=dict)
    route_phases: Mapping[str, Mapping[str, Group]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it: no NaN, no infinity; None is null."""
        return asdict(self)


def met(sample: Sample, slo: Bounds) -> bool:
    """Whether the request was good and every given bound held, from the scheduled send.

    Without usage the chunks stand in for tokens, so that its time per token is at most what is compared. An
    answer of one token, or one that came whole, has no time per token to judge.
    """
    if not sample.ok or sample.last is None:
        return False
    first = sample.last if sample.first is None else sample.first
    tokens = sample.output_tokens if sample.usage_known else len(sample.arrivals)
    after = max(tokens - 1, 0) if sample.arrivals else 0
    return (
        (slo.ttft_s is None or first - sample.at <= slo.ttft_s)
        and (slo.e2e_s is None or sample.last - sample.at <= slo.e2e_s)
        and (slo.tpot_s is None or after == 0 or sample.last - first <= slo.tpot_s * after)
    )


def stated(slo: Bounds | None) -> Bounds | None:
    """The SLO, or None for one without any bound: it would be met by every good answer."""
    if slo is None or (slo.ttft_s is None and slo.tpot_s is None and slo.e2e_s is None):
        return None
    return slo


def measured(sample: Sample) -> bool:
    """Whether the sample is part of the headline: not warm-up, not a slow client."""
    return sample.phase != WARMUP and not sample.slow


def measure(
    samples: Sequence[Sample],
    slo: Bounds | None,
    seconds: float,
    *,
    starts: float | None = None,
    phase_seconds: Mapping[str, float] | None = None,
    seed: int = 1,
) -> Measures:
    """Every group of `samples`.

    The measured window is `seconds` long and begins at `starts`, where the warm-up ends (None: when its first
    request was due). `phase_seconds` gives the lengths of the phases in their order from `starts`; one that
    it does not name lasts from its first due request to its last answer. `seed` seeds the intervals.
    """
    starts = opening(samples) if starts is None else starts
    table = _Table(samples, stated(slo), seed)
    hasty = [i for i, sample in enumerate(samples) if not sample.slow]
    late = [i for i, sample in enumerate(samples) if sample.slow]
    whole = Window(starts, seconds)
    by_phase = _split(hasty, lambda i: samples[i].phase)
    windows = {name: _extent(samples, members) for name, members in by_phase.items()}
    if set(by_phase) - {WARMUP} == {"run"}:
        windows["run"] = whole
    for name, length in (phase_seconds or {}).items():
        if name != WARMUP:
            windows[name] = Window(starts, length)
            starts += length
    routes = _split(hasty, lambda i: samples[i].route)
    versions = _split((i for i in hasty if samples[i].version is not None), lambda i: str(samples[i].version))

    def due(members: Iterable[int]) -> list[int]:
        return [i for i in members if samples[i].phase != WARMUP]

    def groups(named: Mapping[str, list[int]]) -> dict[str, Group]:
        return {
            name: table.group(inside, whole, rows) for name, rows in named.items() if (inside := due(rows))
        }

    return Measures(
        all=table.group(due(hasty), whole, hasty),
        slow=table.group(due(late), whole, late) if due(late) else None,
        routes=groups(routes),
        versions=groups(versions),
        phases={name: table.group(members, windows[name], hasty) for name, members in by_phase.items()},
        route_phases={
            route: {
                phase: table.group(inside, windows[phase], members)
                for phase, inside in _split(due(members), lambda i: samples[i].phase).items()
            }
            for route, members in routes.items()
            if due(members)
        },
    )


def opening(samples: Iterable[Sample]) -> float:
    """When the first request after the warm-up was due; 0 where there is none."""
    return min((sample.at for sample in samples if sample.phase != WARMUP), default=0.0)


def blocks(at: Floats) -> Ints:
    """Which of `BLOCKS` equal stretches of time each moment of `at` [n] falls in."""
    if at.size == 0:
        return np.zeros(0, np.int64)
    length = float(np.ptp(at)) / BLOCKS or 1.0
    return np.asarray(np.minimum((at - at.min()) / length, BLOCKS - 1), np.int64)


def sessions(samples: Sequence[Sample]) -> Ints | None:
    """The number of each sample's session, of its own for one without; None where there are no sessions."""
    if all(sample.session is None for sample in samples):
        return None
    numbers: dict[Hashable, int] = {}
    names = (i if sample.session is None else sample.session for i, sample in enumerate(samples))
    return np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int64)


def _split(indices: Iterable[int], key: Callable[[int], str]) -> dict[str, list[int]]:
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for i in indices:
        groups[key(i)].append(i)
    return dict(groups)


def _extent(samples: Sequence[Sample], members: Sequence[int]) -> Window:
    start = min(samples[i].at for i in members)
    ends = (samples[i].at if (last := samples[i].last) is None else last for i in members)
    return Window(start, max(ends) - start)


class _Table:
    """The samples as columns (NaN: no such value), made once and cut into groups."""

    def __init__(self, samples: Sequence[Sample], slo: Bounds | None, seed: int) -> None:
        self.samples, self.slo, self.seed = samples, slo, seed
        self.met = np.fromiter((slo is not None and met(sample, slo) for sample in samples), np.bool_)
        at, sent, first, last, tpot, loaded = (
            np.fromiter((_number(getattr(s, name)) for s in samples), np.float64)
            for name in ("at", "sent", "first", "last", "tpot", "loaded_s")
        )
        tpot[[not sample.arrivals for sample in samples]] = np.nan
        self.columns: dict[str, Floats] = {
            "ttft": first - at,
            "ttft_from_send": first - sent,
            "e2e": last - at,
            "e2e_from_send": last - sent,
            "tpot": tpot,
            "cold_start": loaded,
        }
        bad = [not sample.ok for sample in samples]
        for column in self.columns.values():
            column[bad] = np.nan
        self.at = at
        self.sessions = sessions(samples)
        lengths = np.fromiter((len(s.arrivals) if s.ok else 0 for s in samples), np.int64)
        flat = np.fromiter(chain.from_iterable(s.arrivals for s in samples if s.ok), np.float64)
        self.gap_counts = np.maximum(lengths - 1, 0)
        self.gap_starts = np.cumsum(self.gap_counts) - self.gap_counts
        inside = np.ones(max(flat.size - 1, 0), np.bool_)
        inside[np.cumsum(lengths[lengths > 0])[:-1] - 1] = False  # from one answer to the next is no gap
        self.gaps = np.diff(flat)[inside]
        self.output: dict[Window, Ints] = {}
        self.made: dict[tuple[bytes, Window, bytes], Group] = {}

    def group(self, members: Sequence[int], window: Window, around: Sequence[int]) -> Group:
        """The group of the samples at positions `members`, whose rates count what of `around` came back in
        `window`. Equal groups (one phase, one version) are made once."""
        rows, near = np.asarray(members, np.int64), np.asarray(around, np.int64)
        key = (rows.tobytes(), window, near.tobytes())
        if key not in self.made:
            self.made[key] = self._group(rows, window, near)
        return self.made[key]

    def _group(self, rows: Ints, window: Window, near: Ints) -> Group:
        chosen = [self.samples[i] for i in rows]
        outcomes = Counter(sample.outcome for sample in chosen)
        requests, ok = len(chosen), outcomes.pop(Outcome.OK, 0)
        seconds = window.seconds
        good = None if self.slo is None else int(self.met[rows].sum())
        ended = sum(self.samples[i].ok and window.holds(self.samples[i].last) for i in near)
        return Group(
            seconds=seconds,
            requests=requests,
            ok=ok,
            errors={str(outcome): n for outcome, n in outcomes.most_common()},
            error_share=_share(requests - ok, requests),
            input_tokens=sum(sample.input_tokens for sample in chosen),
            cached_tokens=sum(sample.cached_tokens for sample in chosen),
            output_tokens=sum(sample.output_tokens for sample in chosen),
            usage_missing_share=_share(sum(s.ok and not s.usage_known for s in chosen), ok),
            offered_per_s=_share(requests, seconds),
            requests_per_s=_share(ended, seconds),
            tokens_per_s=_share(int(self._output(window)[near].sum()), seconds),
            met=good,
            goodput_per_s=None if good is None else _share(good, seconds),
            goodput_share=None if good is None else _share(good, requests),
            cold_starts=sum(bool(sample.loaded_s) for sample in chosen),
            compressed=sum(sample.compressed for sample in chosen),
            cold_start=self._spread("cold_start", rows),
            ttft=self._spread("ttft", rows),
            ttft_from_send=self._spread("ttft_from_send", rows),
            tpot=self._spread("tpot", rows),
            gap=self._gap(rows),
            e2e=self._spread("e2e", rows),
            e2e_from_send=self._spread("e2e_from_send", rows),
        )

    def _output(self, window: Window) -> Ints:
        """Output tokens of each sample that came in `window`."""
        if window not in self.output:
            self.output[window] = np.fromiter(map(window.output_tokens, self.samples), np.int64)
        return self.output[window]

    def _spread(self, name: str, rows: Ints) -> Spread:
        values = self.columns[name][rows]
        there = ~np.isnan(values)
        clusters = [blocks(self.at[rows])[there]]
        if self.sessions is not None:
            clusters.append(self.sessions[rows][there])
        return spread(values[there], *clusters, seed=self.seed)

    def _gap(self, rows: Ints) -> Spread:
        counts = self.gap_counts[rows]
        before = np.cumsum(counts) - counts
        positions = np.repeat(self.gap_starts[rows] - before, counts)
        positions += np.arange(positions.size)
        units = rows if self.sessions is None else self.sessions[rows]
        clusters = (np.repeat(codes, counts) for codes in (blocks(self.at[rows]), units))
        return spread(self.gaps[positions], *clusters, seed=self.seed)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
