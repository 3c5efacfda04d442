"""Is a plan due? Pure: from counts of feedback and the clock to a reason, or None."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.jobs.source import age
from gateway.retraining.plans import Plan
from gateway.traffic.feedback import Opinions

LATELY = timedelta(days=7)
BEFORE = timedelta(days=28)
"""Feedback of the last `LATELY` is compared with that of the `BEFORE` ahead of it."""
LEAST_JUDGED = 50
"""Fewer thumbs in either say nothing."""
Z = 1.96


@dataclass(frozen=True, slots=True)
class Seen:
    """What was said of the plan's route: since its last job, lately (and since then), and before."""

    since_last: Opinions
    lately: Opinions
    before: Opinions


def due(plan: Plan, last: datetime | None, seen: Seen, now: datetime) -> str | None:
    """Why a job is to start, in words. `last` is when the last one was made, None: there was none.

    - `corrections`: so many exchanges were corrected since the last job.
    - `drift`: the share of thumbs up fell by so much (lately against before), and the 95 % interval of the
      fall is above 0. Not within `LATELY` of the last job: until what it made is promoted, thumbs stay down.
    - `every_s`: so long after the last job, or after the plan was made, when anything was said since.
    """
    new = seen.since_last.corrected
    if plan.corrections is not None and new >= plan.corrections:
        return f"{new} corrections since the last one"
    rested = last is None or now - last >= LATELY
    if plan.drift is not None and rested and (fall := fallen(seen.before, seen.lately)) is not None:
        amount, least = fall
        if amount >= plan.drift and least > 0:
            shares = (each.liked / each.judged for each in (seen.before, seen.lately))
            return "thumbs up fell from {:.0%} to {:.0%}".format(*shares)
    if plan.every_s is not None and now - (last or plan.created_at) >= timedelta(seconds=plan.every_s):
        said = seen.since_last.corrected + seen.since_last.judged
        if said:
            return f"{age(plan.every_s)} since the last one"
    return None


def fallen(before: Opinions, lately: Opinions) -> tuple[float, float] | None:
    """By how much the share of thumbs up fell, and the lower end of its 95 % interval; None: too few to say.

    Newcombe's interval for a difference of proportions, of two Wilson intervals (R. Newcombe, Statistics in
    Medicine 17, 1998, method 10).
    """
    if min(before.judged, lately.judged) < LEAST_JUDGED:
        return None
    was, now = before.liked / before.judged, lately.liked / lately.judged
    low = _wilson(was, before.judged)[0]
    high = _wilson(now, lately.judged)[1]
    return was - now, was - now - math.hypot(was - low, high - now)


def _wilson(share: float, count: int) -> tuple[float, float]:
    middle = share + Z * Z / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    whole = 1 + Z * Z / count
    return (middle - half) / whole, (middle + half) / whole
