"""`hotswap eval` and `hotswap votes`: is it better than what there was, by figures and by people?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.client import Gateway, as_json_option, fail, find, say, show, table

if TYPE_CHECKING:
    from training.evaluation.arms import Arm, Outcome

FEW_SHOT = "few-shot"


@click.command("eval")
@click.argument("model")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Held-out rows, as JSONL.")
@click.option(
    "--against",
    multiple=True,
    help="Also ask this one: a route, a version, or https://host/v1#model. Default: the base.",
)
@click.option("--few-shot", type=Path, help="Rows that the base sees as examples, as an arm of its own.")
@click.option("--examples", default=3, show_default=True, help="How many of them.")
@click.option("--metric", multiple=True, help="exact, json_valid, json_fields, rouge_l. Default: what fits.")
@click.option("--key-env", default="OPENAI_API_KEY", show_default=True, help="Holds the key of other hosts.")
@click.option("--price", "prices", multiple=True, help="MODEL=PROMPT,COMPLETION in $ a million tokens.")
@click.option(
    "--judge", "judge_at", help="Also have a model judge answers: a version, or https://host/v1#model."
)
@click.option(
    "--rubric", type=click.Path(path_type=Path), help="What the judge is told to look at; a text file."
)
@click.option("--votes", type=click.Path(path_type=Path), help="Write a page for people's blind votes there.")
@click.option("--limit", type=click.IntRange(1), help="Only so many rows, the first ones.")
@click.option("--max-tokens", default=256, show_default=True, help="Of an answer.")
@click.option("--concurrency", default=16, show_default=True, help="Questions at once.")
@as_json_option
def eval_(
    model: str,
    data: Path,
    against: tuple[str, ...],
    few_shot: Path | None,
    examples: int,
    metric: tuple[str, ...],
    key_env: str,
    prices: tuple[str, ...],
    judge_at: str | None,
    rubric: Path | None,
    votes: Path | None,
    limit: int | None,
    max_tokens: int,
    concurrency: int,
    as_json: bool,
) -> None:
    """Ask MODEL, the base and others the same held-out questions, through the gateway, and compare.

    Each row's last assistant message is the answer that is expected; what leads to it is asked, greedily.
    MODEL is a route or, better, a version (support@3f9c2ab71e04). Gains come with 95 % bounds over pairs.
    """
    if votes is not None and votes.exists():
        fail(f"{votes} exists; give another folder for the votes", code=2)
    gateway = find()
    try:
        from training.evaluation.arms import Arm, evaluate, fitting, questions
        from training.evaluation.judge import GROUNDED, RUBRIC, SCORE, Judge, check_hosts, judged
        from training.evaluation.votes import write as write_page
        from training.recipe import TrainingError
        from training.rows import read_rows
    except ImportError as error:
        fail(f"evaluation needs its libraries ({error.name} is missing): pip install 'hotswap[training]'")
    from gateway.settings import SettingsError, load

    try:
        settings = load()[0]
        base = settings.base.name
        asked = questions(read_rows(data))[:limit]
        metrics = metric or fitting(asked)
        arms = [_arm(name, gateway, key_env, _prices(prices)) for name in (model, *(against or (base,)))]
        if few_shot is not None:
            shown = read_rows(few_shot)[:examples]
            arms.append(Arm(FEW_SHOT, f"{gateway.url}/v1", gateway.key, base, tuple(shown)))
        judge = None
        if judge_at is not None:
            at = _arm(judge_at, gateway, key_env, {})
            judge = Judge(at.url, at.key, at.model, rubric.read_text() if rubric is not None else RUBRIC)
        urls = [arm.url for arm in arms] + ([judge.url] if judge is not None else [])
        check_hosts(data, urls, settings.evaluation.hosts, gateway.url)

        async def ask() -> list[Outcome]:
            found = await evaluate(
                asked, arms, metrics, max_tokens=max_tokens, concurrency=concurrency, progress=_progress()
            )
            if judge is None:
                return found
            say(f"  {judge.model} judges")
            return [await judged(judge, asked, each, concurrency=concurrency) for each in found]

        outcomes = asyncio.run(ask())
    except (TrainingError, SettingsError, OSError) as error:
        fail(str(error))
    shown_metrics = (*metrics, SCORE, GROUNDED) if judge is not None else metrics
    told = _told(outcomes, shown_metrics)
    if judge is not None:
        told["judge"] = judge.record()
    show(told, as_json, _table)
    if votes is not None:
        try:
            page = write_page(votes, asked, outcomes[0], outcomes[1])
        except TrainingError as error:
            fail(str(error))
        say(f"open {page}; then: hotswap votes {votes} votes-*.json")


def _arm(name: str, gateway: Gateway, key_env: str, prices: dict[str, tuple[float, float]]) -> Arm:
    from training.evaluation.arms import Arm

    url, _, model = name.rpartition("#")
    if url and url.startswith(("http://", "https://")):
        if key_env not in os.environ:
            fail(f"{url} needs a key: put it into {key_env}, or name another variable with --key-env", code=2)
        place, key = url, os.environ[key_env]
    else:
        place, key, model = f"{gateway.url}/v1", gateway.key, name
    prompt, completion = prices.get(model, (None, None))
    return Arm(name, place, key, model, (), prompt, completion)


def _prices(given: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    found = {}
    for each in given:
        model, _, price = each.rpartition("=")
        try:
            prompt, completion = map(float, price.split(","))
        except ValueError:
            fail(f"--price {each}: write MODEL=PROMPT,COMPLETION, as gpt-large=2.50,10", code=2)
        found[model] = (prompt, completion)
    return found


def _progress() -> Callable[[str, int, int], None]:
    def hear(arm: str, done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            say(f"  {arm}: {done}/{total}")

    return hear


def _told(outcomes: list[Outcome], metrics: tuple[str, ...]) -> dict[str, Any]:
    from training.evaluation.arms import gain

    first = outcomes[0]
    return {
        "rows": len(first.answers),
        "arms": [
            {
                "name": each.arm.name,
                "metrics": {name: asdict(each.interval(name)) for name in metrics},
                "gain": {name: asdict(gain(first, each, name)) for name in metrics if each is not first},
                "seconds_p50": each.seconds[0],
                "seconds_p95": each.seconds[1],
                "prompt_tokens": each.tokens[0],
                "completion_tokens": each.tokens[1],
                "dollars_per_thousand": each.dollars_per_thousand,
            }
            for each in outcomes
        ],
    }


def _table(told: dict[str, Any]) -> Iterator[str]:
    metrics = list(told["arms"][0]["metrics"])
    rows = []
    for arm in told["arms"]:
        figures = [_percent(arm["metrics"][name], "") for name in metrics]
        gain = arm["gain"].get(metrics[0])
        cost = arm["dollars_per_thousand"]
        rows.append(
            [
                arm["name"],
                *figures,
                _percent(gain, "+") if gain else "",
                f"{arm['seconds_p50']:.2f}",
                f"{arm['seconds_p95']:.2f}",
                f"{arm['prompt_tokens']} + {arm['completion_tokens']}",
                "" if cost is None else f"{cost:.4f}",
            ]
        )
    ahead = f"{metrics[0]}: {told['arms'][0]['name']} ahead by"
    return table(["asked", *metrics, ahead, "p50 s", "p95 s", "tokens", "$ per 1,000"], rows)


def _percent(interval: Mapping[str, float], sign: str) -> str:
    return f"{interval['mean']:{sign}.1%} [{interval['low']:{sign}.1%}, {interval['high']:{sign}.1%}]"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("sheets", nargs=-1, required=True, type=click.Path(path_type=Path))
@as_json_option
def votes(folder: Path, sheets: tuple[Path, ...], as_json: bool) -> None:
    """Count people's votes: FOLDER is what `hotswap eval --votes` wrote, SHEETS what its page saved."""
    try:
        from training.evaluation.votes import KEY, count
        from training.recipe import TrainingError

        key, found = count(folder / KEY, sheets)
    except TrainingError as error:
        fail(str(error))
    except ImportError as error:
        fail(f"votes need the trainer's libraries ({error.name} is missing): pip install 'hotswap[training]'")
    told = {"candidate": key["candidate"], "other": key["other"], **asdict(found)}
    show(told, as_json, _vote_lines)


def _vote_lines(told: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{told['candidate']} wins {told['wins']}, {told['other']} wins {told['losses']}, "
        f"the same {told['same']}, by {told['voters']} voters"
    )
    interval = {"mean": told["share"], "low": told["low"], "high": told["high"]}
    yield f"won of those decided: {_percent(interval, '')}; by chance alone p = {told['chance']:.3g}"
