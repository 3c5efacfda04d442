"""`python -m loadtests.placement [spread] [fleet] --out FOLDER`: results.json, tables.md and pictures.

The figures in docs/placement.md are those of the defaults, which take about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from loadtests.placement import plots, scenes, spread, tables
from loadtests.tables import markdown, terminal

EXPONENTS = (0.0, 0.7, 1.0)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.placement", description=__doc__)
    parser.add_argument("what", nargs="*", metavar="spread|fleet", help="default: both")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--engines", type=int, default=1000, help="of spread (default: %(default)s)")
    parser.add_argument("--versions", type=int, default=100_000, help="of spread (default: %(default)s)")
    parser.add_argument("--events", type=int, default=12, help="joins, and leaves (default: %(default)s)")
    parser.add_argument(
        "--requests", type=int, default=20_000, help="of fleet, a scene (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-plots", action="store_true", help="needs no matplotlib")
    asked = parser.parse_args(arguments)
    what = asked.what or ["spread", "fleet"]
    if unknown := set(what) - {"spread", "fleet"}:
        parser.error(f"nothing is called {unknown.pop()!r}: spread, fleet")
    asked.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    if "spread" in what:
        results |= spread_results(asked.engines, asked.versions, asked.events, asked.seed)
    if "fleet" in what:
        seeds = tuple(range(asked.seed, asked.seed + 3))
        _say("fleet: two engines, sixteen, and a sweep")
        results["fleet"] = scenes.all_of(scenes.Size(asked.requests * 3 // 10, asked.requests, seeds))
    shown = tables.tables(results)
    (asked.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (asked.out / "tables.md").write_text(markdown(shown))
    if not asked.no_plots:
        plots.draw(results, asked.out)
    print(terminal(shown))
    return 0


def spread_results(engines: int, versions: int, events: int, seed: int) -> dict[str, Any]:
    """`spread` by popularity, and `ramp` of one version on a tenth of the engines."""
    studies = []
    for exponent in EXPONENTS:
        _say(f"spread: {engines:,} engines, {versions:,} versions, {tables.popularity(exponent)}")
        asked = spread.Spread(engines, versions, exponent, events, seed=seed)
        studies.append(spread.study(asked))
    small = spread.Spread(max(2, engines // 10), max(20, versions // 100), 0.7, 0, seed=seed)
    return {"spread": studies, "ramp": spread.ramp(small)}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
