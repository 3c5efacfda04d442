"""What every section of the settings is: `gateway.settings` puts them together."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

KIB, MIB, GIB = 2**10, 2**20, 2**30


class Section(BaseModel):
    """Unknown keys are errors; values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
