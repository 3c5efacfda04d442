"""`hotswap run MODEL PROMPT`: one streamed answer."""

from __future__ import annotations

import sys

import click

from gateway.cli.chat import stream
from gateway.cli.client import find, say


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--max-tokens", default=256, show_default=True)
@click.option("--temperature", type=float, help="0 is greedy; default: the base's own.")
@click.option("--system", help="A system message.")
def run(
    model: str, prompt: str | None, max_tokens: int, temperature: float | None, system: str | None
) -> None:
    """Stream MODEL's answer to PROMPT (or to what stdin holds)."""
    text = prompt if prompt is not None else sys.stdin.read()
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    parameters = {"max_tokens": max_tokens, "temperature": temperature}
    given = {name: value for name, value in parameters.items() if value is not None}
    answer = stream(find(), model, messages, hear=lambda piece: click.echo(piece, nl=False), **given)
    click.echo()
    waited = f"first token {answer.first_token_s:.2f} s, " if answer.first_token_s is not None else ""
    say(f"({answer.model}: {waited}{answer.total_s:.2f} s in all)")
