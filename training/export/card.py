"""The model card of what was exported: what it is, what it was trained on, how it was proved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]


def model_card(version: Json, report: Json | None, base: str, form: str) -> str:
    """Markdown with Hugging Face's front matter.

    `version` is as the admin API shows it; `report` its report card, None where nobody proved it; `form` says
    what the files are.
    """
    return "\n".join(_lines(version, report, base, form)) + "\n"


def _lines(version: Json, report: Json | None, base: str, form: str) -> Iterator[str]:
    manifest = version["manifest"]
    lineage = manifest.get("lineage") or {}
    licence = manifest.get("licence") or "unknown"
    yield from ("---", f"base_model: {base}", f"license: {licence}", "pipeline_tag: text-generation")
    yield from ("tags: [lora, hotswap]", "---", "", f"# {version['name']}", "")
    yield f"{form} Exported by Hotswap; the version's files have the digest `{version['digest']}`."
    yield from ("", "| | |", "|---|---|")
    yield f"| base | {base}, fingerprint `{manifest.get('base_fingerprint', 'unknown')}` |"
    yield f"| licence | {licence} |"
    for name in ("method", "rows", "learned_tokens", "steps", "seed", "final_loss", "validation_loss"):
        if name in lineage:
            yield f"| {name.replace('_', ' ')} | {lineage[name]} |"
    for name in ("data_sha256", "dataset", "job"):
        if name in lineage:
            yield f"| {name.replace('_', ' ')} | `{lineage[name]}` |"
    yield from ("", "## How it was proved", "")
    if report is None:
        yield "Nobody has proved this version: it has no report card."
    else:
        yield from ("| | gate | measured | bound |", "|---|---|---|---|")
        for found in report["findings"]:
            told = "passed" if found["passed"] else "**failed**"
            yield f"| {told} | {found['gate']} | {_cell(found['measured'])} | {_cell(found['bound'])} |"
    yield from ("", "## Lineage", "", "```json", json.dumps(lineage, indent=1, sort_keys=True), "```")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
