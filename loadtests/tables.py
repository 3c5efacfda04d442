"""A report as tables: for a terminal, as Markdown for a pull request, and as tidy CSV.

`tables` decides what is shown, in which order and with how many digits; the three formats only lay it out.
Latencies are shown in milliseconds and written to CSV in seconds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.figures import NONE, count, ms, number, percent, quantiles, usd
from loadtests.measure import LATENCIES
from loadtests.proc import CPU, RSS

MB = 1e6
CLOCKS = {
    "ttft": "first token",
    "tpot": "per output token",
    "gap": "between chunks",
    "e2e": "whole answer",
    "ttft_from_send": "first token, from send",
    "e2e_from_send": "whole answer, from send",
    "cold_start": "wait for an adapter",
}
FEW = "* too few samples for this percentile (p99 needs 100, p99.9 needs 1,000): it is the largest of them."
RANGE = "[a, b]: 95 % interval; …: the samples do not bound it on this side."


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text: the first column left, the others right, or all left (`words`). Notes stand below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    words: bool = False


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Every table of a report, the headline first."""
    return [table for table in _all(report) if table.rows]


def terminal(shown: Iterable[Table]) -> str:
    """Aligned columns, for people."""
    return "\n".join(_aligned(table) for table in shown)


def markdown(shown: Iterable[Table]) -> str:
    """Pipe tables, as GitHub shows them."""
    return "\n".join(_piped(table) for table in shown)


def tidy(report: Mapping[str, Any]) -> str:
    """CSV, one figure a row: group, name, phase, metric, unit, value. Empty where there is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("group", "name", "phase", "metric", "unit", "value"))
    for kind, name, phase, group in groups(report["measures"]):
        for metric, unit, value in _figures(group):
            writer.writerow((kind, name, phase, metric, unit, "" if value is None else value))
    cost = report["cost"]
    for metric in _COST if cost else ():
        writer.writerow(("all", "", "", metric, "usd", "" if cost[metric] is None else cost[metric]))
    for kind in ("routes", "versions") if cost else ():
        for name, share in cost[kind].items():
            writer.writerow((kind.removesuffix("s"), name, "", "nanousd", "1e-9 usd", share["nanousd"]))
    return out.getvalue()


def groups(measures: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Every group of a report's measures: kind, name, phase, group."""
    yield "all", "", "", measures["all"]
    if measures["slow"]:
        yield "slow", "", "", measures["slow"]
    for kind in ("route", "version", "phase"):
        for name, group in measures[f"{kind}s"].items():
            yield kind, name, "", group
    for route, phases in measures["route_phases"].items():
        for phase, group in phases.items():
            yield "route_phase", route, phase, group


_COST = ("usd", "usd_per_mtok", "usd_per_m_input", "usd_per_m_output", "usd_per_mtok_met")
_COUNTS = (
    "requests",
    "ok",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "met",
    "cold_starts",
    "compressed",
)
_SHARES = ("error_share", "usage_missing_share", "goodput_share")
_RATES = ("offered_per_s", "requests_per_s", "tokens_per_s", "goodput_per_s")


def _figures(group: Mapping[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    yield "seconds", "s", group["seconds"]
    for names, unit in ((_COUNTS, "count"), (_SHARES, "share"), (_RATES, "1/s")):
        for name in names:
            yield name, unit, group[name]
    for name, n in group["errors"].items():
        yield f"errors.{name}", "count", n
    for name in (*LATENCIES, "cold_start"):
        for statistic, value in group[name].items():
            yield f"{name}.{statistic}", "count" if statistic == "n" else "s", value


def _all(report: Mapping[str, Any]) -> Iterator[Table]:
    measures = report["measures"]
    yield headline(report)
    yield latencies(measures["all"])
    yield _groups("By route", "route", measures["routes"])
    yield _groups("By version", "version", measures["versions"])
    if set(measures["phases"]) != {"run"}:
        yield _groups("By phase", "phase", measures["phases"])
    if measures["slow"]:
        yield _groups("Slow clients (in no other table)", "", {"slow clients": measures["slow"]})
    if report["cost"]:
        yield _cost(report["cost"])
        yield _bill("The bill by route", "route", report["cost"]["routes"])
        yield _bill("The bill by version", "version", report["cost"]["versions"])
    if report.get("search"):
        yield _search(report["search"])
    yield _errors(report.get("errors", {}))
    yield _events(report.get("events", ()))
    yield _sources(report.get("metrics") or {})


def headline(report: Mapping[str, Any]) -> Table:
    """What a reader must see first: the verdict, what was asked and answered, errors by name, the lag."""
    group, generator = report["measures"]["all"], report["generator"]
    errors = ", ".join(f"{count(n)} {name}" for name, n in group["errors"].items()) or "none"
    lag = ", ".join(f"{name} {ms(generator.get(f'lag_{name}'))} ms" for name in ("p50", "p99", "max"))
    verdict = report["verdict"].replace("_", " ") + (f": {report['why']}" if report["why"] else "")
    rows = [
        ("verdict", verdict),
        ("scenario", f"{report['name']} · {report['says']}" if report["says"] else report["name"]),
        ("against", f"{report['target']}, {report['when']}"),
        (
            "plan",
            f"seed {report['seed']}, {report['plan_digest'][:12]}, {number(report['seconds'])} s measured",
        ),
        ("offered", f"{number(group['offered_per_s'])} requests/s ({count(group['requests'])} requests)"),
        (
            "answered",
            f"{number(group['requests_per_s'])} requests/s, {number(group['tokens_per_s'])} output tokens/s",
        ),
        ("errors", f"{percent(group['error_share'])} ({errors})"),
    ]
    if report["slo"]:
        rows.append(("SLO", _slo(report["slo"], group)))
    rows.append(("generator", f"late by {lag}; {count(generator.get('dropped'))} sends dropped"))
    cold = group["cold_start"]
    if group["cold_starts"]:
        waits = f"p50 {ms(cold['p50'])} ms, max {ms(cold['max'])} ms"
        rows.append(("cold starts", f"{count(group['cold_starts'])} waited for an adapter: {waits}"))
    if group["usage_missing_share"]:
        share = percent(group["usage_missing_share"])
        rows.append(("tokens", f"a lower bound: {share} of answers carried no usage; chunks were counted"))
    if group["compressed"]:
        rows.append(("compressed", f"{count(group['compressed'])} streams: this delays their chunks"))
    return Table(
        f"{report['name']}: {report['verdict'].replace('_', ' ')}", ("", ""), tuple(rows), words=True
    )


def latencies(group: Mapping[str, Any]) -> Table:
    """Percentiles of every latency of one group, in ms."""
    rows = []
    for name, title in CLOCKS.items():
        spread = group[name]
        if spread["n"]:
            p50, p90, p99, p999 = quantiles(spread, ("p50", "p90", "p99", "p999"))
            rows.append((title, count(spread["n"]), p50, p90, p99, p999, ms(spread["max"])))
    notes = ("From the scheduled send, unless it says from send.", RANGE, *_few(rows))
    return Table("Latency, ms", ("", "n", "p50", "p90", "p99", "p99.9", "max"), tuple(rows), notes)


def _groups(title: str, kind: str, named: Mapping[str, Mapping[str, Any]]) -> Table:
    header = (
        *(kind, "requests", "errors", "requests/s", "tokens/s", "TTFT p50", "TTFT p99"),
        *("per token p50", "e2e p50", "e2e p99", "met SLO", "cold starts"),
    )
    rows = []
    for name, group in sorted(named.items()):
        ttft, tpot, e2e = (group[latency] for latency in ("ttft", "tpot", "e2e"))
        rows.append(
            (
                name,
                count(group["requests"]),
                percent(group["error_share"]),
                number(group["requests_per_s"]),
                number(group["tokens_per_s"]),
                *quantiles(ttft, ("p50", "p99"), bounds=False),
                *quantiles(tpot, ("p50",), bounds=False),
                *quantiles(e2e, ("p50", "p99"), bounds=False),
                percent(group["goodput_share"]),
                count(group["cold_starts"]),
            )
        )
    return Table(f"{title} (latencies in ms)", header, tuple(rows), _few(rows))


def _few(rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return (FEW,) if any("*" in cell for row in rows for cell in row[1:]) else ()


def _slo(slo: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    names = {"ttft_s": "TTFT", "tpot_s": "per token", "e2e_s": "whole answer"}
    bounds = ", ".join(f"{name} ≤ {ms(slo[key])} ms" for key, name in names.items() if slo[key] is not None)
    rate = f"{number(group['goodput_per_s'])} requests/s"
    return f"{percent(slo['reached'])} met it, {percent(slo['share'])} must ({bounds}); goodput {rate}"


def _cost(cost: Mapping[str, Any]) -> Table:
    tokens, weight = cost["tokens"], number(cost["output_weight"])
    rows = [
        ("bill", f"{usd(cost['usd'])}: {number(cost['seconds'])} s at {usd(cost['usd_per_hour'])} an hour"),
        (
            "tokens in the window",
            f"{count(tokens['input'])} in ({count(tokens['cached'])} cached), {count(tokens['output'])} out",
        ),
        ("per million tokens", usd(cost["usd_per_mtok"])),
        ("per million input tokens", f"{usd(cost['usd_per_m_input'])} (uncached)"),
        ("per million output tokens", f"{usd(cost['usd_per_m_output'])}"),
        ("the whole bill per million output tokens that met the SLO", usd(cost["usd_per_mtok_met"])),
        ("idle", f"{percent(cost['idle_share'])} of the window; its cost is in the figures above"),
    ]
    if api := cost["api"]:
        price = f"{usd(api['price']['input'])} in, {usd(api['price']['output'])} out per million"
        rows += [
            (
                "the same from an API",
                f"{usd(api['usd'])} ({price}): this run cost {number(api['ratio'])} times that",
            ),
            (
                "same cost at",
                f"{number(api['requests_per_s'])} requests/s, {count(api['tokens_per_day'])} tokens a day",
            ),
        ]
    note = (
        f"An output token weighs {weight} input tokens ({cost['output_weight_from']}); cached input nothing."
    )
    return Table("Cost", ("", ""), tuple(rows), (note,), words=True)


def _bill(title: str, kind: str, shares: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            name,
            usd(share["nanousd"] / 1e9),
            percent(share["share"]),
            count(share["tokens"]["input"]),
            count(share["tokens"]["cached"]),
            count(share["tokens"]["output"]),
            usd(share["usd_per_mtok"]),
        )
        for name, share in sorted(shares.items(), key=lambda item: -item[1]["nanousd"])
    )
    return Table(
        title,
        (kind, "bill", "share", "input", "cached", "output", "per million"),
        rows,
        ("Shared by the weight of the tokens that came in the window, failed requests' too.",),
    )


def _search(search: Mapping[str, Any]) -> Table:
    rate, above = search["rate"], search["above"]
    found = "no rate passed" if rate is None else f"{number(rate)} requests/s"
    above = "" if above is None else f", {number(above)} did not"
    rows = tuple(
        (
            number(probe["rate"]),
            "yes" if probe["passed"] else "no",
            percent(probe["share"]),
            f"{probe['backlog']['mean']:.1f}",
            f"{probe['backlog']['growth']:+.1f}",
            probe["why"],
        )
        for probe in sorted(search["probes"], key=lambda probe: float(probe["rate"]))
    )
    header = ("requests/s", "holds", "met SLO", "in flight", "growth", "why not")
    return Table(f"Highest rate that holds: {found}{above} (limit: {search['limit']})", header, rows)


def _errors(errors: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    rows = tuple(
        (kind, number(one["at"]), one["route"], str(one["status"] or NONE), one["detail"] or NONE)
        for kind, examples in errors.items()
        for one in examples
    )
    return Table(
        "Errors, for example", ("error", "at s", "route", "status", "what was said"), rows, words=True
    )


def _events(events: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (number(one["at"]), one["do"], one["who"], str(one["pid"] or NONE), one["failed"] or "done")
        for one in events
    )
    return Table("Faults", ("at s", "signal", "named by", "process", "result"), rows, words=True)


def _sources(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """What was scraped; the series themselves are in report.json and metrics.jsonl."""

    def of(source: Mapping[str, Any], series: str, figure: str, scale: float = 1.0) -> str:
        value = source["series"].get(series, {}).get(figure)
        return NONE if value is None else number(value / scale)

    rows = []
    for name, source in metrics.items():
        grown = source.get("memory_mb_per_hour")
        slope = NONE
        if grown:
            slope = f"{number(grown['per_hour'])} [{number(grown['low'])}, {number(grown['high'])}]"
        figures = (of(source, CPU, "delta"), of(source, RSS, "last", MB), slope)
        polls = f"{source['polls']}" + (f", {source['failures']} failed" if source["failures"] else "")
        rows.append((name, polls, str(len(source["series"])), *figures, source["why"] or ""))
    header = ("source", "polls", "series", "CPU s", "memory MB", "MB an hour", "last failure")
    return Table("Scraped meanwhile", header, tuple(rows), words=True)


def _aligned(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        fitted = (
            cell.ljust(width) if i == 0 or table.words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(fitted).rstrip()

    header = [line(table.header)] if any(table.header) else []
    notes = [f"  {note}" for note in table.notes]
    return "\n".join([table.title, *header, *map(line, table.rows), *notes, ""])


def _piped(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        safe = (cell.replace("|", "\\|").replace("\n", " ").replace("*", "\\*") for cell in cells)
        return f"| {' | '.join(safe)} |"

    rule = ["---" if i == 0 or table.words else "---:" for i in range(len(table.header))]
    notes = ["", *(note.replace("*", "\\*") for note in table.notes)] if table.notes else []
    return "\n".join(
        [f"### {table.title}", "", line(table.header), line(rule), *map(line, table.rows), *notes, ""]
    )
