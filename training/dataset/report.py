"""What a dataset is, for people: lines for a terminal, and one page of HTML that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

from training.dataset.snapshot import Snapshot

SHOWN_ROWS, SHOWN_CHARS = 5, 600
MEANINGS = {
    "duplicate": "says the same as another row",
    "near_duplicate": "says nearly the same as another row",
    "too_short": "the answer is too short",
    "too_long": "the row is longer than max_tokens",
    "language": "is in another language",
    "unit_cap": "one unit had too large a share",
    "self_generated_cap": "an answer of our own models that nobody corrected or liked; there were too many",
    "astride_the_cut": "is newer than the cut, but belongs to older rows",
    "tools": "calls tools, which the trainer cannot learn from",
    "no_text": "has something that is no text",
    "roles": "its roles are in no order that a row may have",
    "no_answer": "has no answer at its end",
    "cut": "the answer is not whole",
    "low_score": "its score is too low",
    "no_consent": "nobody said on what basis it is kept",
    "bad_row": "is no row (skip_bad)",
    "not_pairs": "the writer gave no questions and answers",
    "bad_score": "the judge found it not good enough",
    "like_a_row_that_is_there": "was generated, and is like a row that is there",
}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{text-align:left;padding:.2rem .8rem .2rem 0;
border-bottom:1px solid #ddd;vertical-align:top}.n{text-align:right;font-variant-numeric:tabular-nums}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}pre{white-space:pre-wrap;background:#f6f6f4;padding:.6rem}
code{background:#f6f6f4}.note{border-left:3px solid #c80;padding-left:.7rem;margin:.5rem 0}"""


def lines(snapshot: Snapshot) -> Iterator[str]:
    """For a terminal."""
    for number, (title, headings, rows) in enumerate(tables(snapshot)):
        yield from [""] * bool(number)
        yield title
        cells = [list(headings), *rows] if headings else list(rows)
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield ("  " + "  ".join(padded)).rstrip()
    for note in notes(snapshot):
        yield ""
        yield f"note: {note}"


def tables(snapshot: Snapshot) -> Iterator[tuple[str, tuple[str, ...], list[list[str]]]]:
    """Title, headings ((), where a table has none), rows."""
    manifest = snapshot.manifest
    yield snapshot.reference, (), list(_about(snapshot))
    sources = [_source(each) for each in manifest["lineage"]["sources"]]
    yield "sources", ("FROM", "READ", "USED", "LICENCE", "CONSENT"), sources
    if dropped := manifest["dropped"]:
        rows = [
            [
                each["reason"],
                f"{each['rows']:,}",
                MEANINGS.get(each["reason"], ""),
                ", ".join(each["examples"]),
            ]
            for each in dropped
        ]
        yield "dropped", ("WHY", "ROWS", "WHICH MEANS", "FOR EXAMPLE"), rows


def notes(snapshot: Snapshot) -> list[str]:
    found = list(snapshot.manifest["notes"])
    if snapshot.scrubbed:
        at = snapshot.manifest["scrubbed"]["last_at"]
        found.insert(0, f"{snapshot.scrubbed} rows were forgotten and taken out, the last at {at}")
    return found


def page(snapshot: Snapshot) -> str:
    """One HTML file, with nothing to fetch; whatever came from rows or files is escaped."""
    body: list[str] = []
    for number, (title, headings, rows) in enumerate(tables(snapshot)):
        body.append(f"<h{min(number, 1) + 1}>{escape(title)}</h{min(number, 1) + 1}>")
        body.append(_table(headings, rows))
        if not number:
            body += [f'<p class="note">{escape(note)}</p>' for note in notes(snapshot)]
    for file in snapshot.rows:
        body.append(f"<h2>the first rows of {escape(file)}</h2>")
        body += [f"<pre>{escape(text)}</pre>" for text in _examples(snapshot, file)]
    settings = json.dumps(snapshot.manifest["settings"], indent=1, ensure_ascii=False)
    body.append(f"<h2>settings</h2><pre>{escape(settings)}</pre>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(snapshot.reference)}</title>'
        f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def _about(snapshot: Snapshot) -> Iterator[list[str]]:
    manifest = snapshot.manifest
    tokens, split = manifest["tokens"], manifest["split"]
    how = "" if tokens["counted_exactly"] else " (estimated: no prepared base)"
    yield ["built", manifest["built_at"]]
    yield ["rows read", f"{manifest['rows_read']:,}"]
    for file, rows in snapshot.rows.items():
        yield [file, f"{rows:,} rows"]
    for half in ("train", "validation"):
        counted = tokens[half]
        yield [
            f"tokens, {half}",
            f"{counted['all']:,}, of which {counted['learned']:,} are learned; a row has "
            f"{counted['median_row']:,}"
            f" (median), at most {counted['longest_row']:,}{how}",
        ]
    yield [
        "split",
        f"by {split['by']}, {split['groups']:,} groups, the largest of {split['largest_group']:,} rows",
    ]
    yield ["answers", ", ".join(f"{rows:,} {kind}" for kind, rows in manifest["kinds"].items()) or "none"]
    yield ["units", f"{manifest['units']:,}"]
    if (licence := manifest["lineage"]["base_licence"]) is not None:
        yield ["base's licence", licence]


def _source(source: Mapping[str, Any]) -> list[str]:
    filters = " ".join(
        f"{name}={value}" for name, value in source.get("filters", {}).items() if name != "route"
    )
    licence = source["licence"] + (" (accepted by hand)" if source.get("accepted_by_hand") else "")
    consent = ", ".join(f"{basis}: {rows:,}" for basis, rows in source.get("consent", {}).items())
    numbers = (f"{source[name]:,}" if name in source else "-" for name in ("rows_read", "rows_used"))
    return [f"{source['from']} {filters}".strip(), *numbers, licence, consent or "-"]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"

    head = cells(headings, "th") if headings else ""
    return f"<table>{head}{''.join(cells(row, 'td') for row in rows)}</table>"


def _examples(snapshot: Snapshot, file: str) -> Iterator[str]:
    with snapshot.file(file).open(encoding="utf-8") as stream:
        for text in islice(stream, SHOWN_ROWS):
            shown = "\n".join(_said(json.loads(text)))
            yield shown if len(shown) <= SHOWN_CHARS else shown[:SHOWN_CHARS] + " …"


def _said(row: Mapping[str, Any]) -> Iterator[str]:
    for name in ("messages", "prompt", "chosen", "rejected", "completion"):
        for message in row.get(name, ()):
            label = "" if name in ("messages", "prompt") else f"{name} "
            yield f"{label}{message['role']}: {message['content']}"
    if "label" in row:
        yield "liked" if row["label"] else "disliked"
