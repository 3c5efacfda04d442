"""Looks at the plans every so often: starts the jobs that are due, and says what came of those that ended.

Of several gateways, one looks at a time. What a plan's last job is, the table of jobs says; so a gateway that
is killed between starting one and noting it starts no second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from adapters.errors import AdapterError
from gateway.errors import Conflict, GatewayError
from gateway.jobs.jobs import ENDED, Jobs, PlannedJob, Start
from gateway.jobs.request import Hyperparameters, Method, NewJob, Supervised
from gateway.retraining.due import BEFORE, LATELY, Seen, due
from gateway.retraining.plans import NewPlan, Plan, Plans
from gateway.traffic.feedback import Feedback

log = logging.getLogger("hotswap.retraining")

_LOCK = 0x72657472
"""Key of the advisory lock under which plans are looked at ("retr")."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Card = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""The report card of a version; None while it has none."""


class Retraining:
    """`base` is what adapters are trained on. `every_s` is how often the plans are looked at."""

    def __init__(
        self,
        engine: AsyncEngine,
        jobs: Jobs,
        feedback: Feedback,
        card: Card,
        *,
        base: str,
        every_s: float,
    ) -> None:
        self.plans = Plans(engine)
        self._engine = engine
        self._jobs = jobs
        self._feedback = feedback
        self._card = card
        self._base = base
        self._every_s = every_s

    async def keep_watching(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except (SQLAlchemyError, OSError) as error:
                log.warning("the plans to retrain could not be looked at, it is tried again: %s", error)

    async def look(self) -> None:
        """Once."""
        async with self._engine.begin() as connection:
            if not await connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))):
                return
            for plan in await self.plans.all():
                await self._follow(plan)

    async def _follow(self, plan: Plan) -> None:
        last = await self._jobs.of_plan(plan.adapter)
        if last is not None and last.status not in ENDED:
            return
        if last is not None and plan.told != last.id:
            result, proposed = await self._result(last)
            log.warning("retraining of %s: %s", plan.adapter, result)
            if proposed:
                await self._jobs.propose(last.id)
            await self.plans.note(plan.adapter, told=last.id)
        now = datetime.now(UTC)
        reason = due(plan, None if last is None else last.created_at, await self._seen(plan, last, now), now)
        if reason is not None:
            try:
                await self.start(plan, reason)
            except (GatewayError, AdapterError, ValueError) as error:  # this plan's; the others go on
                if plan.problem != str(error):
                    await self.plans.note(plan.adapter, problem=str(error))
                    log.warning("retraining of %s could not start yet: %s", plan.adapter, error)

    async def start(self, plan: Plan, reason: str) -> dict[str, Any]:
        """Has the plan's job made now. Raises what `Jobs.create` raises."""
        hyperparameters = Hyperparameters.model_validate(plan.hyperparameters)
        asked = NewJob(
            model=self._base,
            training_file=plan.source,
            suffix=plan.adapter,
            method=Method(type="supervised", supervised=Supervised(hyperparameters=hyperparameters)),
        )
        job = await self._jobs.create(plan.tenant, plan.key, asked, Start(plan.adapter, reason, plan.accept))
        await self.plans.note(plan.adapter, problem=None)
        log.warning("retraining of %s starts as %s: %s", plan.adapter, job["id"], reason)
        return job

    async def now(self, adapter: str) -> dict[str, Any]:
        """Has a job made, due or not. Raises `NotFound`, `Conflict` while another of the plan's runs, and
        what `Jobs.create` raises."""
        async with self._engine.begin() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            plan = await self.plans.get(adapter)
            last = await self._jobs.of_plan(adapter)
            if last is not None and last.status not in ENDED:
                raise Conflict(
                    f"{last.id} of this plan is {last.status}; wait for its end, or cancel it: hotswap jobs "
                    f"cancel {last.id}",
                    code="job_running",
                )
            return await self.start(plan, "somebody wished it")

    async def put(self, adapter: str, tenant: str, key: str, asked: NewPlan) -> dict[str, Any]:
        last = await self._jobs.of_plan(adapter)
        new = adapter not in {plan.adapter for plan in await self.plans.all()}
        plan = await self.plans.put(adapter, tenant, key, asked)
        if new and last is not None:  # of a plan that was removed: nobody is told of it any more
            await self.plans.note(adapter, told=last.id)
        return await self._shown(plan)

    async def list(self) -> list[dict[str, Any]]:
        """Every plan, how far it is from its next job, and what came of the last one."""
        return [await self._shown(plan) for plan in await self.plans.all()]

    async def _shown(self, plan: Plan) -> dict[str, Any]:
        last = await self._jobs.of_plan(plan.adapter)
        seen = await self._seen(plan, last, datetime.now(UTC))
        ended = last is not None and last.status in ENDED
        result, proposed = await self._result(last) if last is not None and ended else ("", None)
        shown = {name: value for name, value in asdict(plan).items() if name not in ("told", "key")}
        return {
            **shown,
            "source": plan.source,
            "since_last": asdict(seen.since_last),
            "job": None if last is None else last.id,
            "status": None if last is None else last.status,
            "result": result,
            "proposed": proposed,
        }

    async def _seen(self, plan: Plan, last: PlannedJob | None, now: datetime) -> Seen:
        begun = EPOCH if last is None else last.created_at
        spans = ((begun, now), (max(begun, now - LATELY), now), (now - LATELY - BEFORE, now - LATELY))
        return Seen(*[await self._feedback.opinions(plan.route, plan.tenant, *span) for span in spans])

    async def _result(self, job: PlannedJob) -> tuple[str, str | None]:
        """What came of a job, in words; and the version that is proposed, if one is."""
        if job.status != "succeeded" or job.version is None:
            return f"{job.id} is {job.status}{job.why and f': {job.why}'}", None
        try:
            card = await self._card(job.version)
        except AdapterError:
            return f"{job.version} was removed", None
        if card is None:
            return f"{job.version} could not be proved; hotswap jobs logs {job.id} says why", None
        failed = [found["gate"] for found in card["findings"] if not found["passed"]]
        if failed:
            return f"{job.version} did not pass {', '.join(failed)}", None
        return f"{job.version} passed all gates: hotswap adapters promote {job.version}", job.version
