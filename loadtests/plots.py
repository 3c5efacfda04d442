"""The plots of a report, each an SVG to put into a page: no script, no external file, text stays text.

Colours are Okabe and Ito's (2008), which people with colour blindness can tell apart; lines differ in dashes
besides. matplotlib is imported when the first plot is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtests.figures import ms, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#6b7280"
SHARES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#1f2937",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "text.color": "#1f2937",
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a route may be called anything
}
ROUTES = 24
"""Most boxes in a plot: the routes with the most requests."""


@dataclass(frozen=True, slots=True)
class Plot:
    """`alt` says in words what the picture shows; `reads` how to read it."""

    title: str
    svg: str
    alt: str
    reads: str


def plots(report: Mapping[str, Any]) -> list[Plot]:
    """Those for which the report has data, in the order of the page."""
    return list(_all(report))


def _all(report: Mapping[str, Any]) -> Iterator[Plot]:
    curves, series, slo = report["curves"], report["series"], report["slo"] or {}
    if report.get("search"):
        yield _knee(report["search"], slo)
    for name, title in (("ttft", "Time to first token"), ("e2e", "Whole answer")):
        if name in curves:
            lines = {
                "from the scheduled send": (curves[name], BLUE, "-"),
                "from send": (curves.get(f"{name}_from_send", []), ORANGE, "--"),
            }
            yield _percentiles(f"{title}, by percentile", lines, slo.get(f"{name}_s"))
    if any(value is not None for value in series["ttft_p50"]):
        yield _over_time(series)
    if series["offered"]:
        yield _load(series)
    if len(report["boxes"]) > 1:
        yield _boxes(report["boxes"])
    if "gap" in curves:
        yield _percentiles("Between chunks, by percentile", {"gap": (curves["gap"], GREEN, "-")}, None)


def _percentiles(
    title: str, lines: Mapping[str, tuple[Sequence[Any], str, str]], bound: float | None
) -> Plot:
    with _Canvas(title) as canvas:
        axes = canvas.axes()
        top = 0.9
        for label, (points, colour, dashes) in lines.items():
            if points:
                axes.plot(
                    [1 / (1 - share) for share, _ in points],
                    [seconds * 1000 for _, seconds in points],
                    dashes,
                    color=colour,
                    label=label,
                )
                top = max(top, points[-1][0])
        _bound(axes, bound)
        axes.set_xscale("log")
        shown = [share for share in SHARES if share <= top]
        axes.set_xticks([1 / (1 - share) for share in shown], [f"{share * 100:.6g}%" for share in shown])
        axes.minorticks_off()
        axes.set_xlim(1, 1.1 / (1 - top))
        axes.set_ylim(bottom=0)
        axes.set(xlabel="share of requests at or below", ylabel="ms")
        if len(lines) > 1:
            axes.legend(loc="upper left")
    points = next(iter(lines.values()))[0]
    alt = f"{title}: from {ms(points[0][1])} ms at the lowest to {ms(points[-1][1])} ms at the highest."
    reads = (
        "The axis stretches the tail: each step to the right is a tenth as many. Where the two lines part, "
        "requests waited before they were sent."
        if len(lines) > 1
        else "The axis stretches the tail: each step to the right is a tenth as many."
    )
    return Plot(title, canvas.svg, alt, reads)


def _over_time(series: Mapping[str, Any]) -> Plot:
    title = "Time to first token, over time"
    step = series["step_s"]
    times = [(i + 0.5) * step for i in range(len(series["ttft_p50"]))]
    with _Canvas(title, wide=True) as canvas:
        axes = canvas.axes()
        for name, label, colour, mark in (("ttft_p99", "p99", ORANGE, "."), ("ttft_p50", "p50", BLUE, ".")):
            values = [float("nan") if value is None else value * 1000 for value in series[name]]
            axes.plot(times, values, color=colour, label=label, marker=mark, markersize=4, linewidth=1.4)
        axes.set_yscale("log")
        _plain(axes.yaxis)
        axes.set(xlabel="seconds into the run, by when the request was due", ylabel="ms")
        axes.legend(loc="upper right")
        _marks(axes, series)
    worst = max((value, i) for i, value in enumerate(series["ttft_p99"]) if value is not None)
    alt = f"{title}: p99 is highest, {ms(worst[0])} ms, about {worst[1] * step} s into the run."
    return Plot(title, canvas.svg, alt, f"Each point is {step} s. Grey is warm-up; dashed lines are faults.")


def _load(series: Mapping[str, Any]) -> Plot:
    title = "Load, over time"
    step, n = series["step_s"], len(series["offered"])
    edges = [i * step for i in range(n)]
    with _Canvas(title, wide=True, height=4.4) as canvas:
        rates, flight = canvas.stack(2)
        for name, colour, dashes in (("offered", GREY, "--"), ("answered", BLUE, "-"), ("errors", RED, ":")):
            rates.step(
                edges,
                [value / step for value in series[name]],
                dashes,
                where="post",
                color=colour,
                label=name,
                linewidth=1.4,
            )
        rates.set(ylabel="requests/s")
        rates.set_ylim(bottom=0)
        rates.legend(loc="upper left", ncols=3)
        rates.set_ylim(top=rates.get_ylim()[1] * 1.2)
        flight.step(edges, series["in_flight"], where="post", color=PURPLE, linewidth=1.4)
        flight.set(xlabel="seconds into the run", ylabel="in flight")
        flight.set_ylim(bottom=0)
        _marks(rates, series)
        _marks(flight, series, words=False)
    alt = f"{title}: at most {max(series['in_flight'])} requests in flight; {sum(series['errors'])} errors."
    reads = (
        "Answered should follow offered; in flight should not keep growing. Grey: warm-up; dashes: faults."
    )
    return Plot(title, canvas.svg, alt, reads)


def _boxes(boxes: Mapping[str, Mapping[str, float]]) -> Plot:
    title = "Time to first token, by route"
    shown = sorted(sorted(boxes.items(), key=lambda item: -item[1]["n"])[:ROUTES], reverse=True)
    with _Canvas(title, height=1.2 + 0.34 * len(shown)) as canvas:
        axes = canvas.axes()
        stats = [
            {
                "label": route,
                "whislo": box["p5"] * 1000,
                "q1": box["p25"] * 1000,
                "med": box["p50"] * 1000,
                "q3": box["p75"] * 1000,
                "whishi": box["p95"] * 1000,
            }
            for route, box in shown
        ]
        axes.bxp(
            stats,
            orientation="horizontal",
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": "#cfe3f1", "edgecolor": BLUE},
            medianprops={"color": RED, "linewidth": 2},
            whiskerprops={"color": BLUE},
            capprops={"color": BLUE},
        )
        axes.grid(axis="y", visible=False)
        low, high = (pick(box[end] for _, box in shown) for pick, end in ((min, "p5"), (max, "p95")))
        if low > 0 and high > 20 * low:
            axes.set_xscale("log")
            _plain(axes.xaxis)
        else:
            axes.set_xlim(left=0)
        axes.set(xlabel="ms")
    slowest = max(shown, key=lambda item: item[1]["p50"])
    alt = f"{title}: the highest median is {ms(slowest[1]['p50'])} ms, of {slowest[0]}."
    more = f" The {ROUTES} routes with the most requests." if len(boxes) > ROUTES else ""
    return Plot(title, canvas.svg, alt, f"Boxes hold the middle half, whiskers go from p5 to p95.{more}")


def _knee(search: Mapping[str, Any], slo: Mapping[str, Any]) -> Plot:
    title = "The knee: what each rate came to"
    probes = sorted(search["probes"], key=lambda probe: float(probe["rate"]))
    with _Canvas(title, wide=True, height=4.4) as canvas:
        latency, share = canvas.stack(2)
        drawn = [(p["rate"], p["figures"]["ttft_p99"] * 1000) for p in probes if p["figures"].get("ttft_p99")]
        if drawn:
            latency.plot(*zip(*drawn, strict=True), color=GREY, linewidth=1)
        for passed, colour, mark, label in ((True, BLUE, "o", "holds"), (False, RED, "x", "does not")):
            some = [p for p in probes if p["passed"] is passed]
            points = [
                (p["rate"], p["figures"]["ttft_p99"] * 1000) for p in some if p["figures"].get("ttft_p99")
            ]
            if points:
                latency.plot(*zip(*points, strict=True), mark, color=colour)
            share.plot(
                [p["rate"] for p in some], [p["share"] * 100 for p in some], mark, color=colour, label=label
            )
        _bound(latency, slo.get("ttft_s"))
        for axes in (latency, share):
            axes.set_xscale("log")
            _plain(axes.xaxis)
            if search["rate"] is not None:
                axes.axvline(search["rate"], color=GREEN, linestyle="--", linewidth=1.4)
        if search["rate"] is not None:
            latency.text(
                search["rate"], 1.02, f"{number(search['rate'])}/s", color=GREEN, ha="center", va="bottom",
                transform=latency.get_xaxis_transform(),
            )  # fmt: skip
        latency.set(ylabel="TTFT p99, ms")
        latency.set_ylim(bottom=0)
        share.set(xlabel="requests/s offered", ylabel="met the SLO, %")
        share.set_ylim(0, 105)
        share.legend(loc="lower left")
    found = "no rate" if search["rate"] is None else f"{number(search['rate'])} requests a second"
    alt = f"{title}: {found} is the highest that holds."
    return Plot(
        title, canvas.svg, alt, "The dashed line is the highest rate that met the SLO with a steady backlog."
    )


def _plain(axis: Axis) -> None:
    """Labels of a logarithmic axis as numbers, since maths is off: at 1, 2 and 5, or they would overlap."""
    axis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axis.set_minor_formatter(lambda value, _: f"{value:,.6g}" if f"{value:e}"[0] in "25" else "")


def _bound(axes: Axes, seconds: float | None) -> None:
    if seconds is not None:
        axes.axhline(seconds * 1000, color=RED, linestyle=":", linewidth=1.4)
        axes.text(
            0.995, seconds * 1000, f"SLO {ms(seconds)} ms", color=RED, ha="right", va="bottom",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip


def _marks(axes: Axes, series: Mapping[str, Any], words: bool = True) -> None:
    """Warm-up in grey, where phases begin, and faults."""
    end = len(series["offered"]) * series["step_s"]
    axes.set_xlim(0, end)
    if series["warmup_s"]:
        axes.axvspan(0, series["warmup_s"], color="#e5e7eb", alpha=0.6, linewidth=0)
    named = [phase for phase in series["phases"] if phase[0] != "run"]
    notes = [(start, name, "#374151") for name, start, _ in named]
    for start, _, _ in notes[1:]:
        axes.axvline(start, color="#9ca3af", linewidth=1)
    for at, _ in series["events"]:
        axes.axvline(at, color=RED, linestyle="--", linewidth=1.2)
    if words:
        for x, text, colour in notes:
            axes.text(
                x + end * 0.004, 1.01, text, color=colour, fontsize=9, va="bottom",
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        for at, what in series["events"]:
            axes.text(
                at, 0.98, what, color=RED, fontsize=9, va="top", ha="right", rotation=90,
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip


class _Canvas:
    """A figure that is an SVG text once its block ends. Sizes are inches at 72 points each."""

    def __init__(self, name: str, *, wide: bool = False, height: float = 3.2) -> None:
        import matplotlib
        from matplotlib.figure import Figure

        self.svg = ""
        settings: Any = {**STYLE, "svg.hashsalt": name}
        self._style = matplotlib.rc_context(settings)
        self._figure: Any = Figure
        self._size = (10.6 if wide else 5.2, height)

    def __enter__(self) -> _Canvas:
        self._style.__enter__()
        self._figure = self._figure(figsize=self._size, layout="constrained")
        return self

    def axes(self) -> Axes:
        axes: Axes = self._figure.subplots()
        return axes

    def stack(self, n: int) -> Sequence[Axes]:
        """n axes one above the other, with one x axis."""
        axes: Sequence[Axes] = self._figure.subplots(n, sharex=True)
        return axes

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                out = io.StringIO()
                self._figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
                text = out.getvalue()
                self.svg = text[text.index("<svg") :]
        finally:
            self._style.__exit__(*error)
