"""One run from end to end: a plan, driven, measured, and kept in a folder.

plan.jsonl      what was sent, and when: the same scenario and seed give the same bytes
samples.jsonl   one request a line, as it went; `compare` reads these
metrics.jsonl   what the engine and the gateway said meanwhile
report.json     everything that was computed; report.md, report.csv and report.html show it
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from loadtests import report as reports
from loadtests.arrivals import Closed
from loadtests.cost import Cost, Price, Rates, cost
from loadtests.drive import Driven, Progress, drive
from loadtests.measure import Measures, measure, opening
from loadtests.plan import Plan, plan
from loadtests.processes import drive_in_processes
from loadtests.samples import save_samples
from loadtests.scenario import Scenario
from loadtests.scrape import Metrics, Source, scraping
from loadtests.search import Found, Probe, Search, judge, search
from loadtests.tables import markdown, tables, tidy
from loadtests.target import Target
from loadtests.thresholds import Threshold
from loadtests.window import ended

SCRAPE_S = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run needs besides its scenario. `command` is what the user typed; it goes into the report.

    `rates` make the bill, `api` is what it is compared with. `thresholds` come on top of the scenario's.
    """

    target: Target
    command: Sequence[str] = ()
    processes: int = 1
    sources: Sequence[Source] = ()
    thresholds: Sequence[str] = ()
    rates: Rates | None = None
    api: Price | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over."""

    plan: Plan
    driven: Driven
    measures: Measures
    metrics: Metrics
    report: dict[str, Any]


def run(scenario: Scenario, asked: Asked, tell: Callable[[Progress], None] | None = None) -> Run:
    """Plans, drives and measures. Blocks until it is over, whatever the server does.

    Raises what `plan` and `drive` raise: `ScenarioError`, `TargetError`, `FaultError`, `ProcessDied`,
    `ThresholdError`.
    """
    thresholds = [Threshold.parse(text) for text in (*scenario.thresholds, *asked.thresholds)]
    made = plan(scenario)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        driven, metrics = runner.run(_drive(made, asked, tell))
    starts, seconds = window(scenario, driven)
    measures = measure(
        driven.samples,
        scenario.slo,
        seconds,
        starts=starts,
        phase_seconds=_phases(scenario),
        seed=scenario.seed,
    )
    report = reports.build(
        scenario=msgspec.to_builtins(scenario.model_dump(mode="json")),
        plan_digest=made.digest,
        target=asked.target.url,
        command=asked.command,
        started=driven.started,
        samples=driven.samples,
        measures=measures,
        generator=asdict(driven.generator),
        slo=scenario.slo,
        slo_share=scenario.slo.share,
        thresholds=thresholds,
        cost=_cost(scenario, asked, driven, starts, seconds),
        metrics=metrics.summary(since=driven.started),
        starts=starts,
        events=driven.events,
        secrets=[asked.target.key or "", *(source.key or "" for source in asked.sources)],
    )
    return Run(made, driven, measures, metrics, report)


def find_rate(
    scenario: Scenario,
    asked: Asked,
    options: Search,
    tell: Callable[[Probe], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Found, Run]:
    """The highest rate of `scenario` that holds, and the last run, whose report tells of the search.

    Each probe has a seed of its own: with the same prompts again the server would answer from its prefix
    cache. Without an SLO a request is good that was answered. Raises `ValueError` for arrivals without a
    rate, and what `run` raises.
    """
    rate_of = getattr(scenario.arrivals, "rate", None)
    if rate_of is None or scenario.phases:
        raise ValueError(
            f"scenario {scenario.name!r} has {'phases' if scenario.phases else 'arrivals without a rate'}; a "
            "search needs one rate to change: use constant, poisson or gamma arrivals and no phases"
        )
    runs: list[Run] = []

    def probe(rate: float) -> Probe:
        arrivals = scenario.arrivals.model_copy(update={"rate": rate})
        tried = scenario.model_copy(update={"arrivals": arrivals, "seed": scenario.seed + len(runs)})
        one = run(tried, asked, progress)
        runs.append(one)
        group = one.measures.all
        return judge(
            rate,
            one.driven.samples,
            1.0 - (group.error_share or 0.0) if group.goodput_share is None else group.goodput_share,
            saturated=one.driven.generator.saturated,
            seconds=scenario.seconds,
            warmup=scenario.warmup_s,
            slo_share=options.slo_share,
            figures={
                "ttft_p99": group.ttft.p99,
                "e2e_p99": group.e2e.p99,
                "goodput_per_s": group.goodput_per_s,
            },
        )

    found = search(probe, options, tell)
    chosen = next((one for one in reversed(runs) if _rate(one) == found.rate), runs[-1])
    chosen.report["search"] = found.to_json()
    return found, chosen


def keep(done: Run, folder: Path) -> None:
    """Writes everything about a run into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    done.plan.save(folder / "plan.jsonl")
    save_samples(folder / "samples.jsonl", done.driven.samples)
    done.metrics.save(folder / "metrics.jsonl")
    write_report(done.report, folder)


def write_report(report: dict[str, Any], folder: Path) -> None:
    """report.json, and what is made from it alone."""
    from loadtests.page import page  # matplotlib takes a second to import

    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    (folder / "report.md").write_text(markdown(tables(report)))
    (folder / "report.csv").write_text(tidy(report))
    (folder / "report.html").write_text(page(report))


def window(scenario: Scenario, driven: Driven) -> tuple[float, float]:
    """(start, seconds) of what is measured, from the start of the run.

    Planned, where the plan has times. A closed loop has none: from its first measured request to its last
    answer.
    """
    if not isinstance(scenario.arrivals, Closed):
        return scenario.warmup_s, scenario.total_s - scenario.warmup_s
    starts = opening(driven.samples)
    ends = [end for sample in driven.samples if math.isfinite(end := ended(sample))]
    return starts, max(max(ends, default=starts) - starts, 1e-9)


async def _drive(made: Plan, asked: Asked, tell: Callable[[Progress], None] | None) -> tuple[Driven, Metrics]:
    async with scraping(asked.sources, every_s=SCRAPE_S) as metrics:
        if asked.processes == 1:
            driven = await drive(made, asked.target, tell=tell)
        else:
            driven = await asyncio.to_thread(drive_in_processes, made, asked.target, asked.processes, tell)
    return driven, metrics


def _phases(scenario: Scenario) -> dict[str, float] | None:
    return scenario.phase_seconds if scenario.phases else None


def _cost(scenario: Scenario, asked: Asked, driven: Driven, starts: float, seconds: float) -> Cost | None:
    if asked.rates is None:
        return None
    return cost(driven.samples, asked.rates, seconds, starts=starts, slo=scenario.slo, api=asked.api)


def _rate(one: Run) -> float | None:
    return getattr(one.plan.scenario.arrivals, "rate", None)


def folder_for(scenario: Scenario, under: Path) -> Path:
    """A folder of its own for a run that starts now: `<under>/<name>-<UTC>`, with a number when taken."""
    wanted = under / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    folder, number = wanted, 1
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
