"""Small plans made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtests.plan import Plan, Request
from loadtests.scenario import Scenario


def scenario(seconds: float = 1.0, **changed: Any) -> Scenario:
    table: dict[str, Any] = {
        "name": "made",
        "seconds": seconds,
        "arrivals": {"kind": "constant", "rate": 1},
        "routes": {"mix": "weights", "weights": {"support": 1}},
        **changed,
    }
    table["client"] = {"timeout_s": 5, "drain_s": 2, **table.get("client", {})}
    return Scenario.model_validate(table)


def plan(
    ats: Sequence[float] = (0.0,), *, slow: bool = False, sessions: Sequence[str | None] = (), **changed: Any
) -> Plan:
    """One request at each of `ats`; `changed` are keys of the scenario."""
    asked = [
        Request(
            index=i,
            at=at,
            route="support",
            phase="run",
            messages=({"role": "user", "content": f"Question {i}"},),
            max_tokens=8,
            session=sessions[i] if sessions else None,
            slow=slow,
        )
        for i, at in enumerate(ats)
    ]
    changed.setdefault("seconds", (max(ats) if ats else 0) + 0.01)
    return Plan(scenario(**changed), tuple(asked))


def closed(requests: int, concurrency: int, **changed: Any) -> Plan:
    arrivals = {"kind": "closed", "requests": requests, "concurrency": concurrency}
    return plan([0.0] * requests, arrivals=arrivals, **{"seconds": 5.0, **changed})
