"""A stream that is read beside what else happens: how long it stood still meanwhile."""

from __future__ import annotations

import http.client
import json
import threading
import time
from itertools import pairwise
from types import TracebackType
from urllib.parse import urlsplit

TOKENS = 2000


class Watched:
    """`with Watched(url, key, model) as stream:` reads one stream after another until the block ends.

    In a thread that does nothing else, so that what stands still is the gateway and not the reader.
    """

    def __init__(self, url: str, key: str, model: str) -> None:
        parts = urlsplit(url)
        self._where = (parts.hostname or "", parts.port or 80)
        self._key = key
        self._body = json.dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": "Go on and on."}],
                "max_tokens": TOKENS,
                "ignore_eos": True,
                "stream": True,
            }
        )
        self._streams: list[list[float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.failure: str | None = None

    def longest_gap_s(self, begin: float, end: float) -> float:
        """The longest time between two chunks that overlaps with begin..end (monotonic seconds)."""
        gaps = [
            after - before
            for arrivals in list(self._streams)
            for before, after in pairwise(list(arrivals))
            if after >= begin and before <= end
        ]
        return max(gaps, default=0.0)

    def _read(self) -> None:
        try:
            while not self._over.is_set():
                self._one()
        except (OSError, http.client.HTTPException) as error:
            self.failure = f"{type(error).__name__}: {error}"

    def _one(self) -> None:
        connection = http.client.HTTPConnection(*self._where, timeout=60)
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", self._body, headers)
        answer = connection.getresponse()
        arrivals: list[float] = []
        self._streams.append(arrivals)
        while not self._over.is_set() and (line := answer.readline()):
            if line.startswith(b"data: {"):
                arrivals.append(time.monotonic())
        connection.close()
        if answer.status != 200:
            self.failure = f"status {answer.status}"
            self._over.set()

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
