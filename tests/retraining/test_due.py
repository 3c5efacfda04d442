"""When a plan is due, and when feedback has really fallen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.jobs.source import parse
from gateway.retraining.due import LATELY, Seen, due, fallen
from gateway.retraining.plans import NewPlan, Plan
from gateway.traffic.feedback import Opinions
from training.dataset.sources.traffic import wanted

NOW = datetime(2026, 12, 1, tzinfo=UTC)
NOTHING = Seen(Opinions(), Opinions(), Opinions())
PLAN = Plan(
    adapter="support",
    tenant="default",
    key="key",
    route="support",
    feedback="corrected",
    since_s=None,
    every_s=None,
    corrections=None,
    drift=None,
    hyperparameters={},
    accept=[],
    created_at=NOW,
    told=None,
    problem=None,
)


def test_corrections_are_counted_since_the_last_job() -> None:
    plan = replace(PLAN, corrections=10)
    assert due(plan, None, replace(NOTHING, since_last=Opinions(corrected=9)), NOW) is None
    reason = due(plan, None, replace(NOTHING, since_last=Opinions(corrected=10)), NOW)
    assert reason == "10 corrections since the last one"


@pytest.mark.parametrize(
    ("last", "said", "starts"),
    [
        (NOW - timedelta(days=7), Opinions(corrected=1), True),
        (NOW - timedelta(days=7), Opinions(judged=1), True),
        (NOW - timedelta(days=7), Opinions(), False),  # the same rows would give the same adapter
        (NOW - timedelta(days=6), Opinions(corrected=1), False),
        (None, Opinions(corrected=1), False),  # the plan was made just now
    ],
)
def test_a_schedule_counts_from_the_last_job_or_from_the_plan(
    last: datetime | None, said: Opinions, starts: bool
) -> None:
    plan = replace(PLAN, every_s=7 * 86400)
    reason = due(plan, last, replace(NOTHING, since_last=said), NOW)
    assert (reason == "1w since the last one") is starts


@pytest.mark.parametrize(
    ("before", "lately", "starts"),
    [
        ((180, 200), (140, 200), True),  # 90 % to 70 %
        ((180, 200), (166, 200), False),  # to 83 %: by less than was asked
        ((45, 50), (40, 50), False),  # to 80 %, of so few: the interval reaches below 0
        ((180, 200), (0, 49), False),  # too few lately
        ((9, 10), (0, 200), False),  # too few before
        ((140, 200), (180, 200), False),  # it rose
    ],
)
def test_drift_is_a_fall_that_is_large_and_certain(
    before: tuple[int, int], lately: tuple[int, int], starts: bool
) -> None:
    seen = Seen(Opinions(), *(Opinions(judged=all_, liked=up) for up, all_ in (lately, before)))
    reason = due(replace(PLAN, drift=0.1), None, seen, NOW)
    assert (reason is not None) is starts
    if starts:
        assert reason == "thumbs up fell from 90% to 70%"


def test_drift_rests_after_a_job_until_what_that_made_can_have_told() -> None:
    seen = Seen(Opinions(), Opinions(judged=200, liked=140), Opinions(judged=200, liked=180))
    plan = replace(PLAN, drift=0.1)
    assert due(plan, NOW - LATELY + timedelta(minutes=1), seen, NOW) is None
    assert due(plan, NOW - LATELY, seen, NOW) is not None


def test_the_interval_is_newcombes() -> None:
    """His example (e) of the paper: 56/70 against 48/80 is 0.2, from 0.0524 to 0.3339."""
    found = fallen(Opinions(judged=70, liked=56), Opinions(judged=80, liked=48))
    assert found == pytest.approx((0.2, 0.0524), abs=1e-4)


def test_a_plan_without_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="say when"):
        NewPlan()


def test_a_plan_learns_from_its_route() -> None:
    plan = replace(PLAN, route="my base", since_s=30 * 86400)
    assert plan.source == "traffic://my%20base?since=30d&feedback=corrected"
    assert replace(PLAN, feedback=None).source == "traffic://support"


@pytest.mark.parametrize("since_s", [60, 90 * 60, 12 * 3600, 7 * 86400, 28 * 86400, 90 * 86400 + 30])
def test_who_builds_the_dataset_reads_what_a_plan_writes(since_s: int) -> None:
    plan = replace(PLAN, since_s=since_s)
    asked = wanted(f"{plan.source}&tenant=acme", now=1e9)
    assert 0 <= (1e9 - asked.params["since"]) - since_s < 60 and parse(plan.source).since_s is not None
