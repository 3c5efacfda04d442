"""`hotswap fake-engine`: vLLM's OpenAI and LoRA endpoints without vLLM."""

from __future__ import annotations

import click


@click.command(name="fake-engine")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8100, show_default=True)
@click.option("--model", default="smollm2-135m-instruct", show_default=True, help="The base's served name.")
@click.option("--token-delay-ms", default=5.0, show_default=True, help="Time between two tokens.")
@click.option("--api-key-env", default="VLLM_API_KEY", show_default=True, help="Variable that holds its key.")
def fake_engine(host: str, port: int, model: str, token_delay_ms: float, api_key_env: str) -> None:
    """Serve a fake engine, for fast tests and machines without vLLM. Its figures are not vLLM's."""
    import os

    from gateway.fleet.fake_engine import serve

    serve(
        host=host,
        port=port,
        model=model,
        token_delay_s=token_delay_ms / 1000,
        key=os.environ.get(api_key_env),
    )
