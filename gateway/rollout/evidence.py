"""Goal and guardrails of one rollout as one test: how the chance to be wrong is shared out.

`ALPHA` is for all together, however often and for however long it is looked at: `GOAL` of it is the goal's,
both sides; each of the guardrails has the same part of the rest (Bonferroni: nothing is assumed of how they
hang together).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from gateway.rollout.goal import Goal, Look
from gateway.rollout.guard import Guard

ALPHA = 0.05
GOAL = 0.04


class Evidence:
    """Of a candidate against stable. `horizon`: units an arm that the goal is judged by; `guardrails`: names.

    A unit that was seen under one arm stays there: what it does under the other is left out (a unit moves
    when the candidate's share grows).
    """

    def __init__(self, horizon: int, guardrails: Sequence[str]) -> None:
        self.goal = Goal(horizon, GOAL)
        self.guards = {name: Guard() for name in guardrails}
        self._each = (ALPHA - GOAL) / max(1, len(self.guards))

    def exchange(
        self, unit: Hashable, stratum: Hashable, bad: Mapping[str, float], *, candidate: bool
    ) -> None:
        """One that is over. `bad` has an outcome (0 good, 1 bad) for each guardrail that it says something
        of; those of a unit's first exchange count."""
        if self.goal.candidates(unit) is not None:
            return
        self.goal.seen(unit, stratum, candidate=candidate)
        for name, outcome in bad.items():
            guard = self.guards[name]
            (guard.candidate if candidate else guard.stable)(outcome)

    def said(self, unit: Hashable, value: float, *, candidate: bool) -> None:
        """What was thought (0 to 1) of an exchange that this arm answered."""
        if self.goal.candidates(unit) is candidate:
            self.goal.said(unit, value)

    def harmed(self) -> list[str]:
        """Guardrails by which the candidate is worse."""
        return [name for name, guard in self.guards.items() if guard.harmful(self._each)]

    def look(self) -> Look | None:
        """At the goal, where enough is new."""
        return self.goal.look()
