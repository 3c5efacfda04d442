"""A report as one HTML page that needs nothing else: no script, no font, no link to follow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

from loadtests.plots import Plot, plots
from loadtests.tables import Table, tables

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem }
h1 { font-size: 1.6rem; margin: 0 }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem }
p { margin: .3rem 0 .8rem; max-width: 52rem }
.verdict { border-left: .4rem solid; padding: .6rem 1rem; margin: 1rem 0; font-size: 1.05rem }
.ok { border-color: #009e73; background: #ecf8f4 }
.missed, .no_answers { border-color: #d55e00; background: #fdf1e9 }
.saturated { border-color: #e69f00; background: #fdf6e5 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { font-size: .88rem }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #e5e7eb; text-align: right; white-space: nowrap }
th { color: #4b5563; font-weight: 600 }
th:first-child, td:first-child, .words th, .words td { text-align: left }
.words td { white-space: normal }
.words td:first-child { white-space: nowrap; color: #4b5563 }
.note, figcaption { color: #4b5563; font-size: .9rem }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem }
figure { margin: 1rem 0; max-width: 100% }
figure h2 { margin: 0 0 .3rem }
figure svg { max-width: 100%; height: auto; font-family: system-ui, sans-serif }
code { background: #f3f4f6; padding: .1rem .3rem; overflow-wrap: anywhere }
dt { font-weight: 600; margin-top: .6rem }
dd { margin: 0; max-width: 52rem }
"""
READS = {
    "From the scheduled send": "Latencies start when a request was due, not when it was sent. A server that "
    "stalls holds up the requests behind it; counted from their send, that wait would be missing.",
    "Verdict": "ok; missed: a threshold or the SLO was not held; saturated: the generator itself was late or "
    "dropped sends, so the figures say more about it than about the server; no answers.",
    "p99": "99 of 100 requests were at least this fast. It is one of the samples, never interpolated. The "
    "interval behind it is where the true value lies, 95 % sure; its width is the noise of this run.",
    "Errors": "Failed requests have no latency here. They count in the share of errors and against the SLO.",
    "Cost": "The machine's price for the measured window, idle time included, shared by the tokens made "
    "in it.",
}


def page(report: Mapping[str, Any]) -> str:
    """The page of a report (report.json)."""
    head, *others = tables(report)
    verdict = report["verdict"]
    drawn = plots(report)
    name = escape(report["name"])
    said = escape(f"{verdict.replace('_', ' ')}. {report['why']}".strip())
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>{name}: {escape(verdict.replace('_', ' '))}</title>",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{name}</h1><p>{escape(report['says'])}</p>",
        f'<div class="verdict {escape(verdict)}"><strong>Verdict:</strong> {said}</div>',
        _table(replace(head, rows=head.rows[1:]), titled=False),  # the verdict stands above
        *(_table(table) for table in others[:1]),
        f'<div class="plots">{"".join(map(_plot, drawn))}</div>',
        *map(_table, others[1:]),
        f"<h2>The command</h2><p><code>{escape(report['command'])}</code></p>",
        "<h2>How to read this</h2><dl>",
        *(f"<dt>{escape(term)}</dt><dd>{escape(says)}</dd>" for term, says in READS.items()),
        "</dl></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _table(table: Table, *, titled: bool = True) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = (f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    title = f"<h2>{escape(table.title)}</h2>" if titled else ""
    thead = f"<thead><tr>{head}</tr></thead>" if any(table.header) else ""
    kind = ' class="words"' if table.words else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'{title}<div class="scroll"><table{kind}>{thead}<tbody>{"".join(rows)}</tbody></table></div>{notes}'
    )


def _plot(plot: Plot) -> str:
    svg = plot.svg.replace("<svg", f'<svg role="img" aria-label="{escape(plot.alt)}"', 1)
    width = re.search(r'width="([\d.]+pt)"', svg)
    style = f' style="width: {width[1]}"' if width else ""
    caption = f"<figcaption>{escape(plot.reads)}</figcaption>"
    return f"<figure{style}><h2>{escape(plot.title)}</h2>{svg}{caption}</figure>"
