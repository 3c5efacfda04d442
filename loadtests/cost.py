"""What a run cost, and whose tokens made the bill.

The bill is what the machines cost while the measured window lasted: USD per hour of one engine * engines *
seconds / 3600. It is counted in whole nano-dollars, so that its parts add up to it exactly.

A token's weight is what it takes of a machine, in uncached input tokens:

    weight = (input tokens - cached input tokens) + r * output tokens

r is how much longer an output token keeps the machine busy than an input token: measured, prefill tokens per
second / decode tokens per second; or given; else 4, a usual ratio in the price lists of APIs (3 to 5). Cached
input weighs nothing. The tokens are those that came in the window (`loadtests.window`), of every request:
warm-up, slow clients and failed ones use the machine too. A request that ended before its usage came has no
known input tokens; only its chunks count.

Tokens decide the shares. A machine that waits costs as much as one that works: `idle_share` says how much of
the window nothing was open, and that part of the bill is spread over the routes like the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from loadtests.measure import Bounds, met, opening, stated
from loadtests.sample import Sample
from loadtests.window import Window

OUTPUT_WEIGHT = 4.0
NANO = 1_000_000_000
MILLION = 1_000_000
NO_VERSION = "(no version)"
"""Whose tokens were of requests that failed before an answer named a version."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What the machines cost, and how heavy an output token is.

    `usd_per_hour` is of one engine. `output_weight` is r; None: `prefill_per_s / decode_per_s` (tokens a
    second, measured) where both are given, else `OUTPUT_WEIGHT`.
    """

    usd_per_hour: float
    engines: int = 1
    output_weight: float | None = None
    prefill_per_s: float | None = None
    decode_per_s: float | None = None

    def __post_init__(self) -> None:
        if not self.usd_per_hour >= 0 or self.engines < 1:
            raise ValueError(
                f"{self.engines} engines at {self.usd_per_hour:g} USD an hour make no bill; "
                "give a price of 0 or more and at least 1 engine"
            )
        for name in ("output_weight", "prefill_per_s", "decode_per_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} {value:g} must be above 0")

    @property
    def weight(self) -> tuple[float, str]:
        """r, and where it came from: "given", "measured" or "default"."""
        if self.output_weight is not None:
            return self.output_weight, "given"
        if self.prefill_per_s is not None and self.decode_per_s is not None:
            return self.prefill_per_s / self.decode_per_s, "measured"
        return OUTPUT_WEIGHT, "default"


@dataclass(frozen=True, slots=True)
class Price:
    """What an API asks for a million tokens, in USD. `cached`: for cached input; None: as any input."""

    input: float
    output: float
    cached: float | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What came in the window. `input` includes `cached`. `ended`: requests that ended in it."""

    input: int = 0
    cached: int = 0
    output: int = 0
    ended: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.cached + other.cached,
            self.output + other.output,
            self.ended + other.ended,
        )

    def weight(self, r: float) -> Fraction:
        return self.input - self.cached + Fraction(r) * self.output


@dataclass(frozen=True, slots=True)
class Share:
    """One route's or version's part of the bill. `usd_per_mtok`: of its own input and output tokens."""

    nanousd: int
    share: float
    usd_per_mtok: float | None
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The same tokens bought from an API.

    `usd` = (uncached input * input price + cached input * cached price + output * output price) / 10^6.
    `ratio` = bill / `usd`: below 1 the machine was cheaper. At this mix of tokens it costs the same as the
    API at `requests_per_s` = USD per second of the machine / (`usd` / requests ended), that is at
    `tokens_per_day` = USD per day of the machine / (`usd` / tokens). Above, the machine is cheaper, if it can
    carry that.
    """

    price: Price
    usd: float
    ratio: float
    requests_per_s: float | None
    tokens_per_day: float


@dataclass(frozen=True, slots=True)
class Cost:
    """The bill and its parts; None where nothing was made to divide by. See the module for the formulas.

    With u = bill / weight: `usd_per_m_input` = u * 10^6 (uncached), `usd_per_m_output` = r * u * 10^6, so
    that tokens at these prices add up to the bill. `usd_per_mtok` is the blend: bill / (input + output) *
    10^6. `usd_per_mtok_met` = bill / output tokens of requests that met the SLO * 10^6; None without an SLO.
    `routes` and `versions` each add up to `nanousd - unallocated_nanousd`; the latter is 0, or the whole bill
    where no token was made.
    """

    usd_per_hour: float
    seconds: float
    nanousd: int
    output_weight: float
    output_weight_from: str
    tokens: Tokens
    usd_per_mtok: float | None
    usd_per_m_input: float | None
    usd_per_m_output: float | None
    usd_per_mtok_met: float | None
    idle_share: float
    unallocated_nanousd: int
    routes: Mapping[str, Share]
    versions: Mapping[str, Share]
    api: BreakEven | None = None

    @property
    def usd(self) -> float:
        return self.nanousd / NANO

    def to_json(self) -> dict[str, Any]:
        return {"usd": self.usd, **asdict(self)}


def cost(
    samples: Sequence[Sample],
    rates: Rates,
    seconds: float,
    *,
    starts: float | None = None,
    slo: Bounds | None = None,
    api: Price | None = None,
) -> Cost:
    """The bill of the `seconds` from `starts` (None: when the first request after the warm-up was due)."""
    window = Window(opening(samples) if starts is None else starts, seconds)
    made = [_tokens(sample, window) for sample in samples]
    r, source = rates.weight
    per_hour = rates.usd_per_hour * rates.engines
    bill = round(Fraction(per_hour) * Fraction(seconds) * NANO / 3600)
    total = sum(made, Tokens())
    weight = total.weight(r)
    slo = stated(slo)
    of_met = sum(t.output for s, t in zip(samples, made, strict=True) if slo is not None and met(s, slo))
    shares = {
        kind: _shares(bill, r, samples, made, name)
        for kind, name in {"routes": _route, "versions": _version}.items()
        if weight
    }
    unit = float(bill / weight) / NANO if weight else None
    return Cost(
        usd_per_hour=per_hour,
        seconds=seconds,
        nanousd=bill,
        output_weight=r,
        output_weight_from=source,
        tokens=total,
        usd_per_mtok=_per_million(bill, total.input + total.output),
        usd_per_m_input=None if unit is None else unit * MILLION,
        usd_per_m_output=None if unit is None else unit * r * MILLION,
        usd_per_mtok_met=_per_million(bill, of_met),
        idle_share=window.idle_share(samples),
        unallocated_nanousd=0 if weight else bill,
        routes=shares.get("routes", {}),
        versions=shares.get("versions", {}),
        api=_break_even(bill, per_hour, total, api) if api is not None else None,
    )


def allocate(total: int, weights: Mapping[str, Fraction]) -> dict[str, int]:
    """`total` in whole parts by weight, which add up to it exactly: each gets the floor of its part, and what
    is left goes, one each, to the largest remainders (Hamilton's method); ties by name.

    Raises `ValueError` where no weight is above 0, or one is below.
    """
    whole = sum(weights.values(), Fraction(0))
    if whole <= 0 or min(weights.values()) < 0:
        raise ValueError(f"{total} cannot be shared by weights that add up to {whole}; give one above 0")
    exact = {name: total * weight / whole for name, weight in weights.items()}
    parts = {name: part.__floor__() for name, part in exact.items()}
    left = total - sum(parts.values())
    for name in sorted(parts, key=lambda name: (parts[name] - exact[name], name))[:left]:
        parts[name] += 1
    return parts


def _tokens(sample: Sample, window: Window) -> Tokens:
    return Tokens(
        window.input_tokens(sample),
        window.cached_tokens(sample),
        window.output_tokens(sample),
        int(window.holds(sample.last)),
    )


def _route(sample: Sample) -> str:
    return sample.route


def _version(sample: Sample) -> str:
    return NO_VERSION if sample.version is None else sample.version


def _shares(
    bill: int, r: float, samples: Sequence[Sample], made: Sequence[Tokens], name: Callable[[Sample], str]
) -> dict[str, Share]:
    groups: dict[str, Tokens] = {}
    for sample, tokens in zip(samples, made, strict=True):
        groups[name(sample)] = groups.get(name(sample), Tokens()) + tokens
    parts = allocate(bill, {name: tokens.weight(r) for name, tokens in groups.items()})
    return {
        name: Share(
            nanousd=part,
            share=part / bill if bill else 0.0,
            usd_per_mtok=_per_million(part, groups[name].input + groups[name].output),
            tokens=groups[name],
        )
        for name, part in parts.items()
    }


def _break_even(bill: int, per_hour: float, total: Tokens, price: Price) -> BreakEven | None:
    cached = price.input if price.cached is None else price.cached
    usd = (
        (total.input - total.cached) * price.input + total.cached * cached + total.output * price.output
    ) / MILLION
    if usd <= 0:
        return None
    return BreakEven(
        price=price,
        usd=usd,
        ratio=bill / NANO / usd,
        requests_per_s=per_hour / 3600 * total.ended / usd if total.ended else None,
        tokens_per_day=per_hour * 24 * (total.input + total.output) / usd,
    )


def _per_million(nanousd: int, tokens: int) -> float | None:
    return nanousd / NANO / tokens * MILLION if tokens else None
