"""`hotswap run MODEL PROMPT`: one streamed answer."""

from __future__ import annotations

import json
import sys
import time

import click

from gateway.cli.client import NO_GATEWAY, fail, find, message_of, say


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
    import httpx

    text = prompt if prompt is not None else sys.stdin.read()
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    body = {"model": model, "messages": messages, "stream": True, "max_tokens": max_tokens}
    if temperature is not None:
        body["temperature"] = temperature
    gateway = find()
    started = time.monotonic()
    first: float | None = None
    version = "?"
    try:
        with httpx.stream(
            "POST",
            f"{gateway.url}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {gateway.key}"},
            timeout=600,
        ) as response:
            if not response.is_success:
                fail(message_of(response.read().decode(errors="replace"), response.status_code))
            for line in response.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    fail(event["error"]["message"])
                version = event["model"]
                for choice in event["choices"]:
                    if piece := choice["delta"].get("content"):
                        first = first if first is not None else time.monotonic()
                        click.echo(piece, nl=False)
    except httpx.TransportError as error:
        fail(f"no gateway answers at {gateway.url} ({error}). Start one: hotswap up", code=NO_GATEWAY)
    click.echo()
    waited = f"first token {first - started:.2f} s, " if first is not None else ""
    say(f"({version}: {waited}{time.monotonic() - started:.2f} s in all)")
