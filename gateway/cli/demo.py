"""`hotswap demo`: from nothing to three answers by one engine, for real."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.chat import Answer, stream
from gateway.cli.client import Gateway, fail, find, say

if TYPE_CHECKING:
    from gateway.settings import Settings
    from training.tasks import Task

SHOWN_PER_TASK = 2
COLUMN = 34
MAX_TOKENS = 48


@click.command()
@click.option("--retrain", is_flag=True, help="Train again, though the adapters are registered.")
def demo(retrain: bool) -> None:
    """Serve a base; train one adapter on rows, and another on what the gateway's own traffic taught; ask all.

    Real vLLM, real training; nothing is canned. The gateway stays up afterwards: `hotswap down` stops it.
    """
    began = time.monotonic()

    def seconds() -> str:
        return f"{time.monotonic() - began:.0f}"

    def step(text: str) -> None:
        say(f"\n=== {text}  [{seconds()} s]")

    from gateway.settings import SettingsError, load

    try:
        settings = load()[0]
    except SettingsError as error:
        fail(str(error), code=2)
    step("1/4 the base")
    _run("base", "prepare")
    step("2/4 the engine and the gateway")
    _run("up", "--detach")
    gateway = find()
    from training.tasks import demo as demo_tasks

    support, house = tasks = demo_tasks()
    step(f"3/4 adapter 1 of 2, from rows: {house.name} ({house.title}, {len(house.rows)} rows)")
    _adapter(settings, gateway, house, retrain)
    step("3/4 adapter 2 of 2, from traffic: what was asked, answered and corrected becomes an adapter")
    if _wanted(gateway, support, retrain):
        from gateway.cli.demo_loop import learn_from_traffic

        learn_from_traffic(
            gateway, settings.base.name, support, _run, lambda text: say(f"--- {text}  [{seconds()} s]")
        )
    step("4/4 the same prompts to the base and to each adapter")
    _compare(settings.base.name, gateway, tasks)
    _goodbye(gateway, tasks)
    say(f"\ndone in {time.monotonic() - began:.0f} s")


def _run(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "gateway.cli", *words], stdout=sys.stderr)
    if done.returncode != 0:
        fail(f"`hotswap {' '.join(words)}` failed; the lines above say why", code=done.returncode)


def _wanted(gateway: Gateway, task: Task, retrain: bool) -> bool:
    """Whether the adapter of `task` is to be made."""
    names = [adapter["name"] for adapter in gateway.request("GET", "/admin/v1/adapters")["data"]]
    if task.name in names and not retrain:
        say(f"{task.name} is registered; hotswap demo --retrain trains it again")
        return False
    return True


def _adapter(settings: Settings, gateway: Gateway, task: Task, retrain: bool) -> None:
    """Trains and registers the adapter of `task`, unless it is there."""
    if not _wanted(gateway, task, retrain):
        return
    from gateway.cli.train import show_progress
    from training.client import register
    from training.recipe import TrainingError
    from training.rows import write_rows
    from training.run import train

    folder = settings.state_dir / "trained" / f"{task.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    rows = settings.state_dir / "demo" / f"{task.name}.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    write_rows(rows, task.rows)
    try:
        trained = train(settings.base_path, rows, task.recipe, folder, show_progress())
        version = register(folder, task.name, gateway.url, gateway.key, promote=True, force=True)
    except TrainingError as error:
        fail(str(error))
    say(f"trained in {trained.seconds:.0f} s, loss {trained.final_loss:.3f}; registered as {version['name']}")


def _compare(base: str, gateway: Gateway, tasks: Sequence[Task]) -> None:
    models = [base, *(task.name for task in tasks)]
    for task in tasks:
        for question in task.held_out[:SHOWN_PER_TASK]:
            answers = [
                stream(gateway, model, question.messages, temperature=0, max_tokens=MAX_TOKENS)
                for model in models
            ]
            click.echo(f"\n> {question.messages[-1]['content']}")
            click.echo(f"  ({task.name} was trained to say: {question.expected})")
            for line in _side_by_side(models, answers):
                click.echo(line)
    click.echo("\nexact answers on prompts that were never trained on:")
    for task in tasks:
        for model in (base, task.name):
            score = asyncio.run(_score(gateway, model, task))
            click.echo(f"  {task.name:<10} asked of {model:<24} {score.right:>3} of {score.asked}")


async def _score(gateway: Gateway, model: str, task: Task) -> Any:
    from training.score import ask

    return await ask(
        task.held_out, url=f"{gateway.url}/v1", key=gateway.key, model=model, max_tokens=MAX_TOKENS
    )


def _side_by_side(models: Sequence[str], answers: Sequence[Answer]) -> Iterator[str]:
    cells = [
        [
            answer.model,
            f"first token {(answer.first_token_s or 0) * 1e3:.0f} ms, all {answer.total_s:.1f} s",
            "-" * COLUMN,
            *(textwrap.wrap(answer.text, COLUMN)[:5] or ["(nothing)"]),
        ]
        for answer in answers
    ]
    for row in range(max(map(len, cells))):
        words = [column[row] if row < len(column) else "" for column in cells]
        yield "  " + "   ".join(word[:COLUMN].ljust(COLUMN) for word in words).rstrip()


def _goodbye(gateway: Gateway, tasks: Sequence[Task]) -> None:
    key = gateway.request("POST", "/admin/v1/keys", json={"role": "inference", "label": "demo"})["secret"]
    prompt = tasks[0].held_out[0].messages[-1]["content"]
    body = json.dumps({"model": tasks[0].name, "messages": [{"role": "user", "content": prompt}]})
    click.echo(
        f"""
The gateway is running at {gateway.url}/v1 with an inference key of yours: {key}

  curl {gateway.url}/v1/chat/completions -H 'authorization: Bearer {key}' \\
       -H 'content-type: application/json' -d '{body}'

  from openai import OpenAI
  client = OpenAI(base_url="{gateway.url}/v1", api_key="{key}")
  print(client.chat.completions.create(model="{tasks[0].name}", messages=[
      {{"role": "user", "content": "{prompt}"}}]).choices[0].message.content)

next: .venv/bin/hotswap ps, .venv/bin/hotswap run {tasks[1].name} "Open the blind in the hall", make down"""
    )
