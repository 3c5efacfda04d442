"""One request of a run, as it went. Everything that is measured is computed from these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended. Everything but `OK` counts as an error, under its own name."""

    OK = "ok"
    DROPPED = "dropped"  # never sent: `max_open` requests in flight, or no file descriptor left
    UNFINISHED = "unfinished"  # still open when the run's drain ended
    TIMEOUT = "timeout"
    CONNECT = "connect"  # no connection
    RESET = "reset"  # the connection ended before the answer did
    STATUS_4XX = "status_4xx"
    RATE_LIMITED = "rate_limited"  # 429
    STATUS_5XX = "status_5xx"
    UNAVAILABLE = "unavailable"  # 503
    REDIRECT = "redirect"  # 3xx: never followed
    ERROR_BODY = "error_body"  # 200 with an error object, whole or as an event
    TRUNCATED = "truncated"  # a stream that ended without [DONE]
    BAD_BODY = "bad_body"  # 200, and not what OpenAI's API answers
    NO_TOKENS = "no_tokens"  # 200 and complete, with no content at all


@dataclass(slots=True)
class Sample:
    """Times are seconds on the generator's monotonic clock, from the start of the run.

    `at` is when it should have been sent and is where the headline latencies start; `begun` is when the
    generator took it up, `sent` when its bytes were handed to the socket, `first` when its first content
    arrived, `last` when its answer ended. From `at` to `begun` the generator was late. From `begun` to `sent`
    a connection was set up, which is the server's time (some 30 us on one that is kept alive). In closed loop
    `at` is `begun`.

    `arrivals` holds when each chunk with content came (streams only). `usage_known` is False when the answer
    carried no usage: `output_tokens` then counts chunks, a lower bound (a chunk can hold several tokens).
    """

    index: int
    at: float
    route: str
    phase: str
    session: str | None = None
    turn: int = 0
    begun: float | None = None
    sent: float | None = None
    first: float | None = None
    last: float | None = None
    arrivals: tuple[float, ...] = ()
    outcome: Outcome = Outcome.OK
    status: int | None = None
    detail: str = ""  # of an error: what was said, at most 200 characters, for people
    version: str | None = None  # `model` in the answer
    finish_reason: str | None = None
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usage_known: bool = False
    compressed: bool = False  # the server compressed the answer, unasked, which delays a stream's chunks
    slow: bool = False  # this client read slowly on purpose
    loaded_s: float | None = (
        None  # how long the gateway says it waited for the adapter to load (a cold start)
    )

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def lag(self) -> float | None:
        """Seconds that the generator itself was late: without the server's time to accept a connection."""
        return None if self.begun is None else self.begun - self.at

    @property
    def ttft(self) -> float | None:
        """Seconds from the scheduled send to the first content."""
        return None if self.first is None else self.first - self.at

    @property
    def e2e(self) -> float | None:
        """Seconds from the scheduled send to the end of the answer."""
        return None if self.last is None else self.last - self.at

    @property
    def tpot(self) -> float | None:
        """Seconds per output token after the first: (last - first) / (output tokens - 1), as in vLLM's bench.

        From usage, because a chunk may hold several tokens; None below two tokens, or when usage is unknown.
        """
        if not self.usage_known or self.first is None or self.last is None or self.output_tokens < 2:
            return None
        return (self.last - self.first) / (self.output_tokens - 1)
