"""What a fine-tuning job is asked for with, read as OpenAI reads it: a fault, its parameter, its code."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.errors import BadRequest

MAX_BODY_BYTES = 1 << 20
SUFFIX = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
TRAFFIC = "traffic://"

Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1, le=100_000, strict=True)]
Epochs = Annotated[int, Field(ge=1, le=50, strict=True)]
Batch = Annotated[int, Field(ge=1, le=256, strict=True)]
Scale = Annotated[float, Field(gt=0, le=1_000, strict=True)]

CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "string_too_long": "string_above_max_length",
    "string_too_short": "string_below_min_length",
    "greater_than_equal": "number_below_min_value",
    "greater_than": "number_below_min_value",
    "less_than_equal": "number_above_max_value",
    "less_than": "number_above_max_value",
    "too_long": "object_above_max_properties",
    "literal_error": "invalid_value",
    "string_pattern_mismatch": "invalid_value",
    "value_error": "invalid_value",
}
"""Pydantic's name of a fault to OpenAI's; what is not here has the wrong type."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hyperparameters(Part):
    """Of supervised fine-tuning; the deprecated ones at the top have the same form."""

    n_epochs: Auto | Epochs = "auto"
    batch_size: Auto | Batch = "auto"
    learning_rate_multiplier: Auto | Scale = "auto"


class DpoHyperparameters(Hyperparameters):
    beta: Auto | Annotated[float, Field(ge=0, le=2, strict=True)] = "auto"


class ReinforcementHyperparameters(Hyperparameters):
    compute_multiplier: Auto | Annotated[float, Field(gt=0.00001, le=10, strict=True)] = "auto"
    eval_interval: Auto | Count = "auto"
    eval_samples: Auto | Count = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"


class Supervised(Part):
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class Dpo(Part):
    hyperparameters: DpoHyperparameters = Field(default_factory=DpoHyperparameters)


class Reinforcement(Part):
    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters = Field(default_factory=ReinforcementHyperparameters)


class Method(Part):
    """One method and its own part; the part may be left out, except of `reinforcement` (its grader)."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Reinforcement | None = None

    @model_validator(mode="after")
    def _its_own_part(self) -> Method:
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"type is {self.type!r}, and {name!r} is given; give {self.type!r} alone")
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("type is 'reinforcement', which needs 'reinforcement' with a grader")
        return self


class NewJob(Part):
    """The body of POST /v1/fine_tuning/jobs."""

    model: str = Field(min_length=1, max_length=300)
    training_file: str = Field(min_length=1, max_length=1000)
    validation_file: str | None = Field(None, min_length=1, max_length=100)
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    suffix: str | None = Field(None, min_length=1, max_length=64, pattern=SUFFIX)
    seed: int | None = Field(None, ge=0, le=2**31 - 1, strict=True)
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    integrations: list[Any] | None = None

    def chosen(self) -> dict[str, Any]:
        """The method with its hyperparameters, whichever way they were given, as OpenAI shows it."""
        method = self.method or Method(
            type="supervised",
            supervised=Supervised(hyperparameters=self.hyperparameters or Hyperparameters()),
        )
        part = getattr(method, method.type) or (Supervised() if method.type == "supervised" else Dpo())
        return {"type": method.type, method.type: part.model_dump()}


def read(body: bytes) -> NewJob:
    """The job that is asked for. Raises `BadRequest` with OpenAI's code and the parameter at fault."""
    asked = _object(body)
    try:
        job = NewJob.model_validate(asked)
    except ValidationError as error:
        raise _refusal(error) from None
    if job.integrations:
        raise BadRequest(
            "`integrations` are not there: nothing leaves this gateway for Weights and Biases. Leave "
            "it out; step metrics are in the job's events and in its result file.",
            code="unsupported_integration",
            param="integrations",
        )
    if job.method is not None and job.hyperparameters is not None:
        raise BadRequest(
            "`hyperparameters` and `method` are both given; give `method` alone.",
            code="invalid_value",
            param="hyperparameters",
        )
    return job


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY_BYTES:
        raise BadRequest(f"The body has more than {MAX_BODY_BYTES:,} bytes.", code="body_too_large")
    try:
        asked = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is no JSON: {str(error)[:200]}.", code="invalid_json") from None
    if not isinstance(asked, dict):
        raise BadRequest("The body is no JSON object.", code="invalid_json")
    if (where := _unstorable(asked)) is not None:
        raise BadRequest(
            f"`{where[:64]}` holds a NUL, half a character or a number that is none; take it out.",
            code="invalid_value",
            param=where[:64],
        )
    return asked


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _unstorable(value: Any, where: str = "") -> str | None:
    """Where a value is that Postgres keeps in no JSON; None when there is none."""
    if isinstance(value, str):
        return where if re.search(r"[\0\ud800-\udfff]", value) else None
    if isinstance(value, float) and not math.isfinite(value):
        return where
    pairs: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in pairs:
        name = f"{where}.{key}".lstrip(".")
        found = _unstorable(str(key), name) or _unstorable(inner, name)
        if found is not None:
            return re.sub(r"[\0\ud800-\udfff]", "?", found) or "body"
    return None


def _refusal(error: ValidationError) -> BadRequest:
    """The first fault that says something: of `auto or a number`, what is wrong with the number."""
    faults = error.errors(include_url=False, include_context=False)
    first = faults[0]
    alike = [fault for fault in faults if fault["loc"][:-1] == first["loc"][:-1]]
    if first["type"] == "literal_error" and len(alike) > 1 and not isinstance(first["input"], str):
        first = alike[-1]
    known = {"auto", "int", "float", "constrained-int", "constrained-float", "str", "[key]"}
    place = [str(part) for part in first["loc"] if not _is_type(str(part), known)]
    param = ".".join(place) or "body"
    code = CODES.get(first["type"], "invalid_type")
    if first["type"] == "missing":
        message = f"Missing required parameter: '{param}'."
    elif first["type"] == "extra_forbidden":
        message = f"Unknown parameter: '{param}'."
    else:
        shown = repr(first["input"])
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        message = f"Invalid '{param}': {first['msg']}; it is {shown}."
    return BadRequest(message, code=code, param=param)


def _is_type(part: str, known: set[str]) -> bool:
    """Whether a piece of a fault's place names a branch of a union, and nothing that was sent."""
    return part in known or "[" in part
