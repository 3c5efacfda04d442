"""What a candidate must pass before it may take traffic. The *report card* is the list of what was found.

Each gate is a function from measurements to a `Finding`; nothing here measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.evaluation.bootstrap import Interval
from training.parity import Parity

GAPS = 2.0
"""By how much farther from PEFT an adapter may be served than its base is."""
WIDEST_BASE_GAP = 0.15
"""Nats. Measured for the same base: 0.03 to 0.05; for another one: above 1."""
EFFECT = (0.9, 1.1)
LEAST_MOVED = 0.01
"""Nats. An adapter that moves less has learned nothing that rounding does not do."""
WORSE = 0.01
"""How much of the general slice's score a candidate may lose, as a share."""
LEAST_VALID = 0.98
MEMORISED = 0.02
"""By how much oftener learned questions may be recited than others, as a share."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one gate: whether it was passed, and the figures by which, in words."""

    gate: str
    passed: bool
    measured: str
    bound: str


@dataclass(frozen=True, slots=True)
class ReportCard:
    """Of one version. It is passed when every gate is."""

    version: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """True for a card with findings, all of them passed."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the gates that were not passed."""
        return tuple(finding.gate for finding in self.findings if not finding.passed)

    def record(self) -> dict[str, Any]:
        """As it is stored with the version."""
        return {
            "version": self.version,
            "passed": self.passed,
            "findings": [asdict(finding) for finding in self.findings],
        }


def base(trained_on: str, served: str) -> Finding:
    """The base's fingerprint in the adapter's lineage is that of the base that is served."""
    return Finding("base", trained_on == served, f"trained on {trained_on[:12]}", f"served is {served[:12]}")


def template(trained: Sequence[int], served: Sequence[int]) -> Finding:
    """The engine makes the same tokens of a conversation as training did."""
    at = next((n for n, (a, b) in enumerate(zip(trained, served, strict=False)) if a != b), None)
    if at is None and len(trained) != len(served):
        at = min(len(trained), len(served))
    told = "the same" if at is None else f"other from token {at} on"
    return Finding("template", at is None, f"{told} ({len(served)} tokens)", "the same tokens as in training")


def same_base(parity: Parity) -> Finding:
    """Without an adapter, engine and PEFT agree: it is the same base, quantized alike."""
    return Finding(
        "base parity",
        parity.base_gap <= WIDEST_BASE_GAP,
        f"{parity.base_gap:.3f} nats over {parity.tokens} tokens",
        f"<= {WIDEST_BASE_GAP} nats",
    )


def parity(found: Parity) -> Finding:
    """The served adapter is as near to PEFT's as the base is."""
    return Finding(
        "parity",
        found.gap <= GAPS * found.base_gap,
        f"{found.gap:.3f} nats, {found.gap / found.base_gap if found.base_gap else 0:.2f} x the base's "
        f"{found.base_gap:.3f}",
        f"<= {GAPS:g} x the base's",
    )


def tensors(others: Mapping[str, Sequence[str]], of: int) -> Finding:
    """Each engine multiplies with the trained weights, bit for bit. `others`: by engine, those that are not;
    `of` is how many tensors the adapter has.
    """
    wrong = [
        f"{len(names)} of {of} are others at {engine}, first {names[0]}"
        for engine, names in others.items()
        if names
    ]
    told = "; ".join(wrong) or f"all {of} on {len(others)} engine{'s' * (len(others) != 1)}"
    return Finding("tensors", bool(others) and of > 0 and not wrong, told, "the trained ones, bit for bit")


def effect(found: Parity) -> Finding:
    """The served adapter moves the outputs as it did in training."""
    low, high = EFFECT
    return Finding(
        "effect",
        low <= found.effect <= high and found.moved >= LEAST_MOVED,
        f"{found.effect:.3f} (in training it moves a token by {found.moved:.3f} nats)",
        f"{low:g} to {high:g}, and moves at least {LEAST_MOVED:g} nats",
    )


def task_gain(found: Interval, metric: str, against: str) -> Finding:
    """On held-out rows the candidate is better than what it would replace, with 95 % confidence."""
    return Finding(
        "task gain",
        found.low > 0,
        f"{metric} {found.mean:+.1%} against {against} [{found.low:+.1%}, {found.high:+.1%}]",
        "lower 95 % bound above 0",
    )


def general(found: Interval, against: str) -> Finding:
    """On questions that have nothing to do with the task the candidate loses at most `WORSE`."""
    return Finding(
        "general",
        found.mean >= -WORSE,
        f"{found.mean:+.1%} against {against} [{found.low:+.1%}, {found.high:+.1%}]",
        f"at least {-WORSE:.0%}",
    )


def leakage(shared: int, held_out: int) -> Finding:
    """No held-out row was learned from."""
    return Finding("leakage", shared == 0, f"{shared} of {held_out} held-out rows were learned from", "0")


def schema(valid: float, before: float) -> Finding:
    """Where answers are JSON objects, the candidate's are, and at least as often as those before it."""
    return Finding(
        "schema",
        valid >= max(LEAST_VALID, before - WORSE),
        f"{valid:.1%} of the answers are JSON, {before:.1%} before",
        f"at least {LEAST_VALID:.0%}, and no worse than before",
    )


def memorised(learned: float, held_out: float) -> Finding:
    """Questions that were learned from are not recited: given their first half, the second comes no more
    often than that of questions which the candidate never saw."""
    return Finding(
        "memorisation",
        learned - held_out <= MEMORISED,
        f"{learned:.1%} of learned questions recited, {held_out:.1%} of held-out ones",
        f"at most {MEMORISED:.0%} more",
    )
