"""Plans that start fine-tuning jobs by themselves: on a schedule, after so many corrections, or on drift.

`plans` keeps them, `due` decides (pure), `watch` looks every so often, starts jobs and says what came of
them: a version that passed all gates is *proposed*, and a person promotes it. Nothing happens without a plan.
Called by `gateway.app` and `gateway.api`; calls `jobs` and reads what `traffic` knows of feedback.
"""

from gateway.retraining.plans import NewPlan, Plan, Plans
from gateway.retraining.watch import Retraining

__all__ = ["NewPlan", "Plan", "Plans", "Retraining"]
