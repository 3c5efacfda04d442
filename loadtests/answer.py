"""The bytes of one answer, as they come, to the fields of its `Sample`. No sockets here, and no clock.

Every way in which a server can be wrong ends in an `Outcome` of its own; nothing here raises for what was
sent. Each event of a stream is decoded whole (0.6 us with msgspec), so that content is told from the chunks
that carry none: a role, a usage, an empty delta.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from loadtests.events import Events
from loadtests.sample import Outcome, Sample

LARGEST = 64 << 20
"""Bytes of one event, or of one whole answer, before we stop reading it."""

LONGEST_DETAIL = 200
ERROR_BYTES = 16 << 10
LOAD_HEADER = b"x-hotswap-load-ms"

Headers = Sequence[tuple[bytes, bytes]]


class Receiver(Protocol):
    """Who hears what becomes of a request. Times are the client's clock; nothing here may raise.

    `finished` is True once nothing more is wanted; `whole` then says whether the connection may be kept.
    """

    @property
    def finished(self) -> bool: ...
    @property
    def whole(self) -> bool: ...
    def on_sent(self, now: float, /) -> None: ...
    def on_head(self, status: int, headers: Headers, now: float, /) -> None: ...
    def on_body(self, piece: bytes, now: float, /) -> None: ...
    def on_end(self, now: float, /) -> None: ...
    def on_lost(self, outcome: Outcome, detail: str, now: float, /) -> None: ...


class _Message(msgspec.Struct):
    """What a choice says: `delta` of a stream, `message` of a whole answer. Any of these is content."""

    content: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None

    @property
    def empty(self) -> bool:
        return not (
            self.content
            or self.reasoning
            or self.reasoning_content
            or self.tool_calls
            or self.function_call
            or self.refusal
        )


class _Choice(msgspec.Struct):
    delta: _Message | None = None
    message: _Message | None = None
    text: Any = None
    finish_reason: str | None = None

    @property
    def empty(self) -> bool:
        message = self.delta or self.message
        return not self.text and (message is None or message.empty)


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    """A chunk of a stream, or a whole answer. `choices` is unset where it is missing: then it is neither."""

    choices: list[_Choice] | msgspec.UnsetType = msgspec.UNSET
    model: str | None = None
    usage: _Usage | None = None
    error: Any = None
    object: Any = None


_BODY = msgspec.json.Decoder(_Body)


class Answer:
    """Fills `sample` from what the client hears of the answer, then calls `done` once.

    A stream ends at `[DONE]`, any other answer with its body. `first` and `last` are when the bytes came in.
    """

    __slots__ = (
        "_arrivals",
        "_body",
        "_decoder",
        "_done",
        "_events",
        "_stream",
        "finished",
        "sample",
        "whole",
    )

    def __init__(self, sample: Sample, *, stream: bool, done: Callable[[Answer], None]) -> None:
        self.sample = sample
        self.finished = False
        self.whole = False
        self._stream = stream
        self._done = done
        self._arrivals: list[float] = []
        self._body = bytearray()
        self._events: Events | None = None
        self._decoder: Any = None

    def on_sent(self, now: float) -> None:
        self.sample.sent = now

    def on_head(self, status: int, headers: Headers, now: float) -> None:
        sample = self.sample
        sample.status = status
        kind = b""
        for name, value in headers:
            if name == b"content-type":
                kind = value.strip().lower()
            elif name == b"content-encoding":
                self._compressed(value.strip().lower(), now)
            elif name == LOAD_HEADER:
                sample.loaded_s = _seconds(value)
            elif name == b"location" and 300 <= status < 400:
                self._body += b"to " + value[:LONGEST_DETAIL]
        if self._stream and 200 <= status < 300:
            # Not every server that streams says so, but one that says this does not.
            self._events = None if kind.startswith((b"application/json", b"text/html")) else Events(LARGEST)

    def on_body(self, piece: bytes, now: float) -> None:
        if self.finished:
            return
        if self._decoder is not None:
            try:
                piece = self._decoder.decompress(piece, LARGEST)
            except zlib.error as error:
                self._end(Outcome.BAD_BODY, f"the compressed answer cannot be read: {error}", now)
                return
            if self._decoder.unconsumed_tail:
                self._end(Outcome.BAD_BODY, f"a piece of more than {LARGEST >> 20} MiB", now)
                return
        if self._events is not None:
            for event in self._events.feed(piece):
                if not self._event(event, now):
                    return
            if self._events.overrun:
                self._end(Outcome.BAD_BODY, f"an event of more than {LARGEST >> 20} MiB", now)
            return
        status = self.sample.status or 0
        if 200 <= status < 300:
            self._body += piece
            if len(self._body) > LARGEST:
                self._end(Outcome.BAD_BODY, f"an answer of more than {LARGEST >> 20} MiB", now)
        elif len(self._body) < ERROR_BYTES:
            self._body += piece[:ERROR_BYTES]

    def on_end(self, now: float) -> None:
        """The body is complete: for a stream, without having said so."""
        if self.finished:
            return
        self.whole = True
        status = self.sample.status or 0
        if not 200 <= status < 300:
            self._end(_refusal(status), _said(bytes(self._body)), now)
        elif self._events is None:
            self._whole(bytes(self._body), now)
        else:
            rest = self._events.rest()
            if rest is None or self._event(rest, now):
                self._end(Outcome.TRUNCATED, f"the stream ended without [DONE], after {self._count()}", now)

    def on_lost(self, outcome: Outcome, detail: str, now: float) -> None:
        """The connection ended, or we gave up. A refusal that was heard in part is a refusal all the same."""
        if self.finished:
            return
        status = self.sample.status
        if outcome is Outcome.RESET and status is not None and not 200 <= status < 300:
            outcome, detail = _refusal(status), _said(bytes(self._body)) or detail
        elif self._arrivals:
            detail = f"{detail}, after {self._count()}"
        self._end(
            outcome,
            detail,
            now if outcome not in (Outcome.TIMEOUT, Outcome.UNFINISHED, Outcome.CONNECT) else None,
        )

    def _count(self) -> str:
        return f"{len(self._arrivals)} chunk{'' if len(self._arrivals) == 1 else 's'}"

    def _compressed(self, coding: bytes, now: float) -> None:
        if coding in (b"", b"identity"):
            return
        self.sample.compressed = True
        if coding in (b"gzip", b"x-gzip", b"deflate"):
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif 200 <= (self.sample.status or 0) < 300:
            shown = coding.decode("latin-1")
            self._end(Outcome.BAD_BODY, f"content-encoding {shown}, when identity was asked for", now)

    def _event(self, data: bytes, now: float) -> bool:
        """Takes one event. False: that was the end."""
        if data == b"[DONE]":
            self._end_of_stream(now)
            return False
        try:
            body = _BODY.decode(data)
        except msgspec.MsgspecError as error:
            self._end(Outcome.BAD_BODY, f"an event is not a chunk: {error}: {_text(data)}", now)
            return False
        if not self._take(body, data, now):
            return False
        if any(not choice.empty for choice in body.choices or ()):
            self._arrivals.append(now)
        return True

    def _whole(self, data: bytes, now: float) -> None:
        try:
            body = _BODY.decode(data)
        except msgspec.MsgspecError as error:
            self._end(Outcome.BAD_BODY, f"not what OpenAI's API answers: {error}: {_text(data)}", now)
            return
        if not self._take(body, data, now):
            return
        if self._stream:
            self._end(Outcome.BAD_BODY, f"a whole answer, when a stream was asked for: {_text(data)}", now)
            return
        if all(choice.empty for choice in body.choices or ()):
            self._end(Outcome.NO_TOKENS, "the answer has no content", now)
            return
        self.sample.first = now
        if not self.sample.usage_known:
            self.sample.output_tokens = 1
        self._end(Outcome.OK, "", now)

    def _take(self, body: _Body, data: bytes, now: float) -> bool:
        """Keeps what a chunk or a whole answer may carry. False: it was neither, and that is the end."""
        sample = self.sample
        if body.error is not None or body.object == "error":
            self._end(Outcome.ERROR_BODY, _said(data), now)
            return False
        if body.choices is msgspec.UNSET:
            self._end(Outcome.BAD_BODY, f"no choices: {_text(data)}", now)
            return False
        if body.model is not None:
            sample.version = body.model
        for choice in body.choices:
            if choice.finish_reason is not None:
                sample.finish_reason = choice.finish_reason
        usage = body.usage
        if usage is not None:
            sample.usage_known = True
            sample.input_tokens, sample.output_tokens = usage.prompt_tokens or 0, usage.completion_tokens or 0
            if usage.prompt_tokens_details is not None:
                sample.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0
        return True

    def _end_of_stream(self, now: float) -> None:
        self.whole = True
        if not self._arrivals:
            self._end(Outcome.NO_TOKENS, "the stream had no content before [DONE]", now)
            return
        self._end(Outcome.OK, "", now)

    def _end(self, outcome: Outcome, detail: str, now: float | None) -> None:
        sample = self.sample
        self.finished = True
        sample.outcome, sample.detail, sample.last = outcome, detail[:LONGEST_DETAIL], now
        if self._arrivals:
            sample.first = self._arrivals[0]
            sample.arrivals = tuple(self._arrivals)
            if not sample.usage_known:
                sample.output_tokens = len(self._arrivals)
        self._body.clear()
        self._events = self._decoder = None
        self._done(self)


def _refusal(status: int) -> Outcome:
    if status == 429:
        return Outcome.RATE_LIMITED
    if status == 503:
        return Outcome.UNAVAILABLE
    if 300 <= status < 400:
        return Outcome.REDIRECT
    if 400 <= status < 500:
        return Outcome.STATUS_4XX
    return Outcome.STATUS_5XX if 500 <= status < 600 else Outcome.BAD_BODY


def _said(data: bytes) -> str:
    """An error's message, for people: OpenAI's, or vLLM's older one, or the bytes themselves."""
    try:
        body: Any = msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return _text(data)
    if isinstance(body, dict):
        error = body.get("error", body)
        if isinstance(error, dict) and isinstance(error.get("message"), str):
            return str(error["message"])
        if isinstance(error, str):
            return error
    return _text(data)


def _text(data: bytes) -> str:
    return data[:LONGEST_DETAIL].decode("utf-8", "replace")


def _seconds(value: bytes) -> float | None:
    """A header in milliseconds, as seconds. None for what is not a number of them."""
    try:
        number = float(value) / 1e3
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None
