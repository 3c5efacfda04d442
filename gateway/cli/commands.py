"""The tree of commands. Each verb lives in its own module and is imported only when it runs.

`hotswap --help` answers from the table below alone, so it needs neither pydantic nor FastAPI nor torch.
Exit codes: 0 done; 1 the request could not be done (the message says why); 2 wrong usage; 3 no gateway
is running; 130 interrupted.
"""

from __future__ import annotations

import click

from gateway.cli.lazy import Lazy, Verbs

VERBS: Verbs = {
    "up": ("gateway.cli.up:up", "Start Postgres, the engine and the gateway; wait until they are ready."),
    "down": ("gateway.cli.up:down", "Stop what `hotswap up --detach` started."),
    "ps": ("gateway.cli.ps:ps", "Show the engines and which adapters are resident where."),
    "fleet": ("gateway.cli.fleet:fleet", "Show what happened to the engines; drain and resume one."),
    "run": ("gateway.cli.run:run", "Stream an answer: hotswap run MODEL PROMPT."),
    "adapters": (
        "gateway.cli.adapters:adapters",
        "Add, list, promote, roll back, compare and remove adapters.",
    ),
    "traffic": ("gateway.cli.traffic:traffic", "Show, count and export what was asked and answered."),
    "datasets": ("gateway.cli.datasets:datasets", "Build, list and show what adapters are trained on."),
    "eval": ("gateway.cli.eval:eval_", "Ask an adapter and others the same questions, and compare."),
    "votes": ("gateway.cli.eval:votes", "Count people's blind votes on answers."),
    "train": ("gateway.cli.train:train", "Train an adapter from rows and register it."),
    "recipes": ("gateway.cli.recipes:recipes", "Show the presets of training, and what they resolve to."),
    "files": ("gateway.cli.files:files", "Upload, list and remove files to train on."),
    "jobs": ("gateway.cli.jobs:jobs", "Fine-tuning jobs: create, list, watch, pause, cancel."),
    "retrain": ("gateway.cli.retrain:retrain", "Plans to train again by itself, and what came of them."),
    "worker": ("gateway.cli.worker:worker", "Take fine-tuning jobs from the queue and do them."),
    "base": ("gateway.cli.base:base", "Fetch and prepare the base model."),
    "keys": ("gateway.cli.keys:keys", "Make, list and revoke API keys."),
    "config": ("gateway.cli.config:config", "Check the settings and where each came from."),
    "bench": (
        "gateway.cli.bench:bench",
        "Load tests: latency and cost per token, and what the gateway costs.",
    ),
    "doctor": ("gateway.cli.doctor_command:doctor", "Say what this machine lacks, and mend it with --fix."),
    "demo": ("gateway.cli.demo:demo", "From nothing to adapters swapped per request, for real."),
    "fake-engine": ("gateway.cli.fake_engine:fake_engine", "Serve a fake engine, for tests without vLLM."),
}


@click.group(cls=Lazy, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hotswap", message="%(prog)s %(version)s")
def hotswap() -> None:
    """One quantized base on vLLM, many LoRA adapters swapped per request, behind the OpenAI API.

    \b
    First time:   hotswap base prepare && hotswap up
    Then:         hotswap adapters add support ./my-lora && hotswap run support "Hello"
    """
