"""How much of what was planted is found, and how much of what is found was planted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.traffic.redact import Kind, redact, redact_json
from tests.traffic.redact.synthetic import Sample


@dataclass
class Score:
    planted: Counter[Kind] = field(default_factory=Counter)
    found: Counter[Kind] = field(default_factory=Counter)
    """Replaced to the letter: nothing of it left, nothing around it gone."""
    wrong: Counter[Kind] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    def recall(self, kind: Kind) -> float:
        return self.found[kind] / self.planted[kind]

    def precision(self, kind: Kind) -> float:
        all_of_it = self.found[kind] + self.wrong[kind]
        return self.found[kind] / all_of_it if all_of_it else 1.0


def score(samples: Iterable[Sample]) -> Score:
    result = Score()
    for sample in samples:
        if sample.arguments:
            body, counts = redact_json({"arguments": sample.text})
            right = json.loads(body["arguments"]) == json.loads(sample.clean)
        else:
            text, counts = redact(sample.text)
            body, right = text, text == sample.clean
        result.planted.update([sample.kind] if sample.kind else [])
        if right and sample.kind:
            result.found[sample.kind] += 1
        if not right:
            result.missed.append(f"{sample.kind}: {sample.text!r} -> {body!r}")
        for kind, times in counts.found.items():
            result.wrong[kind] += times - (kind is sample.kind)
    return result
