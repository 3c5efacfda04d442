"""What the fake engine does wrong on purpose, and how it breaks a connection below HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

NOT_HTTP = b"\x16\x03\x01\x02\x00 this is no HTTP \xff\xfe\r\n\r\n"
PAGE = b"<!doctype html><title>It works!</title>"


@dataclass(slots=True)
class Faults:
    """What to do wrong. Counts are used up; the rest stays until it is changed."""

    fail_next: int = 0  # generation requests that get a 500
    dead: bool = False  # every request gets what vLLM answers when its engine process has died
    hang: bool = False  # generation requests get no answer at all
    hang_after_head: bool = False  # they get status and headers, and then nothing
    garbage: Literal["", "bytes", "html"] = ""  # they get bytes that are no HTTP, or a web page with a 200
    everywhere: bool = False  # `hang_after_head` and `garbage` befall probes too
    die_after_chunks: int | None = None  # a stream's connection is cut after so many events
    half_chunk: int | None = None  # and here in the middle of the HTTP chunk of the event after these
    close_mid_body: bool = False  # a whole answer's connection is cut in the middle of its body
    refuse_loads: bool = False  # adapter loads get a 500
    load_delay_s: float = 0.0  # reading an adapter's files takes so long
    prefill_delay_s: float = 0.0
    token_delay_s: float = 0.0
    fatal_prompt_logprobs: bool = False  # two at once kill the engine, as in an unfixed vLLM on CPU
    other_base: bool = False  # the plugin reports the fingerprint of another base
    vllm_version: str | None = None  # what the plugin reports; it does not patch one that it does not know
    lora_kernel: str | None = None  # what it reports; base and adapters take turns unless it is ours


class Cut(Exception):
    """The connection is to be cut here."""


def transport_of(send: Send) -> Any:
    """uvicorn's transport under an ASGI `send`, None under another server."""
    return getattr(getattr(send, "__self__", None), "transport", None)


def break_off(transport: Any, last: bytes) -> NoReturn:
    """Writes `last` as it is, where the transport is known, and cuts the connection."""
    if transport is not None:
        transport.write(last)
        transport.close()
    raise Cut


async def spoil(faults: Faults, receive: Receive, send: Send) -> None:
    """The answer of an engine that talks nonsense, or stops after its head; returns when it is to be well."""
    if faults.garbage == "bytes":
        break_off(transport_of(send), NOT_HTTP)
    if faults.garbage == "html":
        headers = [(b"content-type", b"text/html"), (b"content-length", str(len(PAGE)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})
        raise Cut
    if faults.hang_after_head:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while (await receive())["type"] != "http.disconnect":
            continue
        raise Cut
