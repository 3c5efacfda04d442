"""The results as pictures: small SVGs for docs/placement.md. matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtests.placement.tables import popularity, times_n
from loadtests.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

COLOURS = (BLUE, ORANGE, GREEN)
DASHES = ("-", "--", ":")
BOUND, MOVES = 1.25, 1.3


@dataclass
class _Page:
    folder: Path
    drawn: list[Path]

    @contextmanager
    def axes(self, name: str, columns: int = 1, height: float = 3.2) -> Iterator[Sequence[Axes]]:
        """`columns` plots side by side, `height` inches high, saved as `name`.svg when the block ends."""
        import matplotlib
        from matplotlib.figure import Figure

        settings: Any = {**STYLE, "svg.hashsalt": name}
        with matplotlib.rc_context(settings):
            figure = Figure(figsize=(4.8 * columns, height), layout="constrained")
            yield figure.subplots(1, columns, squeeze=False)[0].tolist()
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        path = self.folder / f"{name}.svg"
        path.write_text("\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")
        self.drawn.append(path)


def draw(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """The SVGs that `results` have data for, in `folder`."""
    page = _Page(folder, [])
    if "spread" in results:
        _even(page, results["spread"])
        _gateways(page, results["spread"])
        _hot(page, results["ramp"])
    if "fleet" in results:
        _fleet(page, results["fleet"])
    return page.drawn


def _even(page: _Page, studies: Sequence[Mapping[str, Any]]) -> None:
    with page.axes("placement-load", 2) as (load, moves):
        for at, study in enumerate(studies):
            label = popularity(study["asked"]["exponent"])
            loads = study["loads"][:: max(1, len(study["loads"]) // 100)] + study["loads"][-1:]
            ranks = [100 * rank / (len(loads) - 1) for rank in range(len(loads))]
            load.plot(ranks, loads, DASHES[at], color=COLOURS[at], label=label)
            for kind, mark in (("join", "o"), ("leave", "x")):
                moved = times_n(study["events"], kind)
                where = [at + (0.12 if kind == "leave" else -0.12)] * len(moved)
                named = f"an engine {kind}s" if not at else None
                moves.plot(where, moved, mark, color=COLOURS[at], ms=4, label=named)
        load.axhline(BOUND, color=RED, lw=1, ls="--")
        load.set(
            title="Load of each engine, over the mean", xlabel="engines, emptiest first, %", ylim=(0, 1.4)
        )
        load.legend(loc="lower right")
        moves.axhline(MOVES, color=RED, lw=1, ls="--")
        moves.axhline(1, color=GREY, lw=1)
        moves.set(title="Placements that move, times N", ylim=(0.5, 1.4))
        moves.set_xticks(range(len(studies)), [popularity(each["asked"]["exponent"]) for each in studies])
        moves.legend(loc="lower right")


def _gateways(page: _Page, studies: Sequence[Mapping[str, Any]]) -> None:
    with page.axes("placement-agreement", 2) as (homes, requests):
        for at, study in enumerate(studies):
            label = popularity(study["asked"]["exponent"])
            seen = [each["seen_per_engine"] for each in study["replicas"]]
            for axes, key in ((homes, "any"), (requests, "requests")):
                shares = [100 * each[key] for each in study["replicas"]]
                axes.plot(seen, shares, f"o{DASHES[at]}", color=COLOURS[at], label=label, ms=4)
        for axes, what in (
            (homes, "versions with another home, %"),
            (requests, "requests sent elsewhere, %"),
        ):
            axes.set(xscale="log", yscale="log", title=f"Two gateways: {what}")
            axes.set_xlabel("requests that each has seen, for each engine")
            _plain(axes.xaxis)
            _plain(axes.yaxis)
            axes.legend()


def _hot(page: _Page, rows: Sequence[Mapping[str, Any]]) -> None:
    half = len(rows) // 2
    with page.axes("placement-hot") as (axes,):
        for part, colour, label in ((rows[:half], RED, "getting hot"), (rows[half:], BLUE, "cooling down")):
            loads, homes = [each["load"] for each in part], [each["homes"] for each in part]
            axes.step(loads, homes, where="post" if colour == RED else "pre", color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel="load of one version, in loads of an engine")
        axes.set(title="Homes of a version")
        _plain(axes.xaxis)
        _plain(axes.yaxis)
        axes.legend()


def _fleet(page: _Page, groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    with page.axes("placement-fleet", 2, 4.2) as (bars, sweep):
        scenes = [each for name in ("two engines", "sixteen engines") for each in groups[name]]
        chosen = [each for each in scenes if each["scene"]["proportions"]["max_cpu_loras"] > 4]
        for at, (way, colour) in enumerate((("homes", BLUE), ("homes, spill", ORANGE))):
            heights = [each["ways"][way]["speed"] for each in chosen]
            bars.bar([x + 0.4 * at - 0.2 for x in range(len(chosen))], heights, 0.38, color=colour, label=way)
        bars.axhline(1, color=GREY, lw=1)
        bars.set_xticks(
            range(len(chosen)), [_named(each["scene"]) for each in chosen], rotation=90, fontsize=7
        )
        bars.set(title="tok/s, over round robin", ylim=(0.8, None))
        bars.legend(loc="upper left")
        lengths = sorted({each["scene"]["tokens"] for each in groups["sweep"]})
        for tokens, colour, dashes in zip(lengths, (BLUE, GREEN, PURPLE), DASHES, strict=False):
            own = [each for each in groups["sweep"] if each["scene"]["tokens"] == tokens]
            loads = [each["scene"]["proportions"]["load_s"] * 1e3 for each in own]
            speeds = [each["ways"]["homes"]["speed"] for each in own]
            sweep.plot(loads, speeds, f"o{dashes}", color=colour, label=f"{tokens} tokens an answer", ms=4)
        sweep.set(title="tok/s of homes, over round robin", xlabel="a load takes, ms")
        sweep.legend()


def _plain(axis: Axis) -> None:
    """Labels of a logarithmic axis as numbers, for `STYLE` has maths off."""
    axis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axis.set_minor_formatter(lambda value, _: "")


def _named(scene: Mapping[str, Any]) -> str:
    shape = scene["proportions"]
    amount = f"{scene['clients']} clients" if shape["name"] == "CPU" else f"{shape['max_loras']} slots"
    return f"{shape['name']} {popularity(scene['exponent'])}, {amount}"
