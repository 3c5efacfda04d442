"""The tree of commands. Each verb lives in its own module and is imported only when it runs.

`hotswap --help` answers from the table below alone, so it needs neither pydantic nor FastAPI nor torch.
Exit codes: 0 done; 1 the request could not be done (the message says why); 2 wrong usage; 3 no gateway
is running; 130 interrupted.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

VERBS: Mapping[str, tuple[str, str]] = {
    "up": ("gateway.cli.up:up", "Start Postgres, the engine and the gateway; wait until they are ready."),
    "down": ("gateway.cli.up:down", "Stop what `hotswap up --detach` started."),
    "ps": ("gateway.cli.ps:ps", "Show the engines and which adapters are resident where."),
    "run": ("gateway.cli.run:run", "Stream an answer: hotswap run MODEL PROMPT."),
    "adapters": (
        "gateway.cli.adapters:adapters",
        "Add, list, promote, roll back, compare and remove adapters.",
    ),
    "train": ("gateway.cli.train:train", "Train an adapter from rows and register it."),
    "base": ("gateway.cli.base:base", "Fetch and prepare the base model."),
    "keys": ("gateway.cli.keys:keys", "Make, list and revoke API keys."),
    "config": ("gateway.cli.config:config", "Check the settings and where each came from."),
    "doctor": ("gateway.cli.doctor_command:doctor", "Say what this machine lacks, and mend it with --fix."),
    "demo": ("gateway.cli.demo:demo", "From nothing to adapters swapped per request, for real."),
    "fake-engine": ("gateway.cli.fake_engine:fake_engine", "Serve a fake engine, for tests without vLLM."),
}


class Lazy(click.Group):
    """A group whose verbs are imported when they are called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module, _, attribute = VERBS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hotswap", message="%(prog)s %(version)s")
def hotswap() -> None:
    """One quantized base on vLLM, many LoRA adapters swapped per request, behind the OpenAI API.

    \b
    First time:   hotswap base prepare && hotswap up
    Then:         hotswap adapters add support ./my-lora && hotswap run support "Hello"
    """
