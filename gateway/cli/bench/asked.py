"""The options that say what is asked of whom; shared by the verbs that send requests."""

from __future__ import annotations

import importlib.util
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.cli.client import fail, find, say

if TYPE_CHECKING:
    from loadtests.drive import Progress
    from loadtests.run import Asked
    from loadtests.scenario import Scenario
    from loadtests.scrape import Source

EXIT_CODES: Mapping[str, int] = {"ok": 0, "missed": 4, "saturated": 5, "no_answers": 6}
"""By a report's verdict."""

PLOTS = "matplotlib"

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("scenario"),
    click.option("--url", help="An OpenAI endpoint; default: the running gateway."),
    click.option("--key-env", help="With --url: the environment variable that holds its API key."),
    click.option("--routes", help="Instead of the scenario's: support=3,base=1, or support,base evenly."),
    click.option("--rate", type=float, help="Requests (or sessions) a second, instead of the scenario's."),
    click.option("--seconds", type=float, help="Length of the measured window."),
    click.option("--seed", type=int, help="Another seed, another plan; the same one, the same plan."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any key of the scenario."),
    click.option("--processes", default=1, show_default=True, help="Generator processes."),
    click.option(
        "--out", type=click.Path(path_type=Path), default="bench", show_default=True, help="Runs go here."
    ),
    click.option("--metrics", multiple=True, metavar="NAME=URL", help="Prometheus page to scrape meanwhile."),
    click.option(
        "--pid", "pids", multiple=True, metavar="NAME=PID", help="Process whose CPU and memory to keep."
    ),
    click.option("--usd-per-hour", type=float, help="Price of one engine's machine: makes the bill."),
    click.option("--engines", default=1, show_default=True, help="How many such machines."),
    click.option("--output-weight", type=float, help="What an output token weighs in input tokens."),
    click.option("--api-price", metavar="IN,OUT", help="An API's USD per million input, output tokens."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout."),
)


def sends_requests(command: Decorated) -> Decorated:
    """The options of every verb that sends requests, first to last."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def scenario_of(options: Mapping[str, Any]) -> Scenario:
    """The scenario with what the options change. Ends the command with exit code 2 when there is none."""
    from loadtests.scenario import ScenarioError, load

    overrides: dict[str, Any] = {
        "routes": _routes(options["routes"]),
        "arrivals.rate": options["rate"],
        "seconds": options["seconds"],
        "seed": options["seed"],
    }
    overrides |= dict(_setting(text) for text in options["settings"])
    try:
        return load(options["scenario"], overrides)
    except ScenarioError as error:
        fail(str(error), code=2)


def asked_of(options: Mapping[str, Any], thresholds: Sequence[str] = ()) -> Asked:
    """Whom to ask, and what to compute. Ends the command when the target or an option is no good."""
    need_plots()
    from loadtests.cost import Price, Rates
    from loadtests.run import Asked
    from loadtests.scrape import Source
    from loadtests.target import Target, TargetError

    sources = [Source(name, url=url) for name, url in map(_named, options["metrics"])]
    sources += [Source(name, pid=_pid(pid)) for name, pid in map(_named, options["pids"])]
    url: str
    key: str | None
    if options["url"] is None:
        gateway = find()
        url, key = gateway.url, gateway.key
        sources.insert(0, Source("gateway", url=f"{url}/metrics", key=key))
    else:
        url, key = options["url"], _key(options["key_env"])
    try:
        rates = None
        if options["usd_per_hour"] is not None:
            rates = Rates(options["usd_per_hour"], options["engines"], options["output_weight"])
        return Asked(
            target=Target(url, key),
            command=["hotswap", *sys.argv[1:]],
            processes=options["processes"],
            sources=_merged(sources),
            thresholds=thresholds,
            rates=rates,
            api=Price(*_price(options["api_price"])) if options["api_price"] else None,
        )
    except (TargetError, ValueError) as error:
        fail(str(error), code=2)


def need_plots() -> None:
    """Ends the command when the plots cannot be drawn: before a run is made, not after it."""
    if importlib.util.find_spec(PLOTS) is None:
        fail(f"the report's plots need {PLOTS}. Install it: pip install 'hotswap[loadtest]'")


def telling(what: str) -> Callable[[Progress], None]:
    """Shows how far a run is: in place on a terminal, every ten seconds elsewhere."""
    last = [float("-inf")]

    def tell(progress: Progress) -> None:
        line = (
            f"{what} {progress.at:6.1f} s: {progress.sent} sent, {progress.in_flight} in flight, "
            f"{progress.answered} answered, {progress.errors} errors, lag {progress.lag_s * 1000:.1f} ms"
        )
        if sys.stderr.isatty():
            click.echo(f"\r{line}\x1b[K", err=True, nl=False)
        elif progress.at - last[0] >= 10:
            last[0] = progress.at
            say(line)

    return tell


def told() -> None:
    """Ends the line that `telling` rewrites."""
    if sys.stderr.isatty():
        click.echo(err=True)


def _routes(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            raise click.BadParameter(f"{part!r} is not NAME or NAME=WEIGHT", param_hint="--routes") from None
    return {"mix": "weights", "weights": weights}


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--metrics, --pid")
    return name, value


def _pid(text: str) -> int:
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is not a process id", param_hint="--pid")
    return int(text)


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        fail(f"--key-env names {variable}, but that environment variable is not set", code=2)
    return os.environ[variable]


def _price(text: str) -> tuple[float, float]:
    before, comma, after = text.partition(",")
    try:
        if comma:
            return float(before), float(after)
    except ValueError:
        pass  # told below
    raise click.BadParameter(f"{text!r} is not IN,OUT: USD per million tokens", param_hint="--api-price")


def _merged(sources: Iterable[Source]) -> list[Source]:
    """One source a name: a page and a pid of one name are one."""
    from loadtests.scrape import Source

    merged: dict[str, Source] = {}
    for new in sources:
        old = merged.get(new.name, new)
        merged[new.name] = Source(new.name, new.url or old.url, new.key or old.key, new.pid or old.pid)
    return list(merged.values())
