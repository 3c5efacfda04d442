"""The price table: what an hour costs and how fast it is, in a TOML file that the user may edit."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.recipe import TrainingError

DEFAULTS = Path(__file__).with_name("prices.toml")


class HostPrice(BaseModel):
    """One kind of machine. `usd_per_hour` in USD, `bf16_tflops` in 10^12 operations a second, dense."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    usd_per_hour: float = Field(ge=0)
    bf16_tflops: float = Field(gt=0)
    utilization: float = Field(0.25, gt=0, le=1)
    memory_gib: float = Field(gt=0)


class Prices(BaseModel):
    """`here` is this machine's own price in USD an hour, where it was given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: tuple[HostPrice, ...] = ()
    here: float | None = Field(None, ge=0)


def load(given: str | None) -> Prices:
    """The table in the file `given`; a number: the default table with this machine at that price.

    Raises `TrainingError` with what is wrong in the file.
    """
    if given is None:
        return _read(DEFAULTS)
    try:
        here = float(given)
    except ValueError:
        return _read(Path(given))
    if not 0 <= here < 1e6:
        raise TrainingError(f"--price {given} is no price; give USD an hour, e.g. 0.45, or a TOML file")
    return _read(DEFAULTS).model_copy(update={"here": here})


def _read(file: Path) -> Prices:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        return Prices.model_validate(table)
    except OSError as error:
        raise TrainingError(
            f"cannot read prices from {file}: {error.strerror}; give USD an hour, or a copy of the "
            f"package's {DEFAULTS.name}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} is not TOML: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise TrainingError(
            f"{file}: {key}: {problem['msg']}; a machine has name, usd_per_hour, bf16_tflops, utilization "
            "and memory_gib"
        ) from error
