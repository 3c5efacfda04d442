"""Records of which not everything may be kept: taken apart in a thread, cleaned, and only then journalled.

A policy of `metadata` leaves tokens, times and reasons, but no words. One of `redact: strict` leaves the
words without personal data and secrets, and of whom they were for a keyed hash. Nothing of this waits on the
event loop, and nothing uncleaned waits on a disk.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from dataclasses import replace

import msgspec

from gateway.traffic.journal import Journal
from gateway.traffic.record import METADATA, Exchanged, encode
from gateway.traffic.redact import redact, redact_json
from gateway.traffic.row import answer_of, cleaned_answer, request_of
from gateway.traffic.unit import hashed, named, unit_of

log = logging.getLogger("hotswap.traffic")

MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of requests and answers that wait to be cleaned; beyond that new ones are dropped, and counted."""
MAX_TEXT_BYTES = 256 * 1024
"""Of one request or answer that is redacted. It takes the time that its length takes; what is longer is kept
as metadata only."""

_json = msgspec.json.Encoder().encode


class Cleaner:
    """`clean` is called on the event loop, and so is the journal's `append` when a record is done. `salt`
    keys the hashes of units, the same in every gateway."""

    def __init__(self, journal: Journal, salt: bytes) -> None:
        self.dropped = 0
        self._journal = journal
        self._salt = salt
        self._waiting: deque[Exchanged] = deque()
        self._added_bytes = self._done_bytes = 0
        self._some = threading.Event()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="cleaner", daemon=True)

    def start(self) -> None:
        """On the event loop that will call `clean`."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Cleans what waits, and hands it to the journal."""
        self._stopping = True
        self._some.set()
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # the last records, which the thread has scheduled

    def clean(self, record: Exchanged) -> None:
        """Takes the record; never waits."""
        if self._added_bytes - self._done_bytes > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._added_bytes += _size(record)
        self._waiting.append(record)
        if not self._some.is_set():
            self._some.set()

    def _work(self) -> None:
        loop = self._loop
        assert loop is not None  # `start` set it
        while not self._stopping or self._waiting:
            self._some.wait()
            self._some.clear()
            done: list[bytes] = []
            while self._waiting:
                record = self._waiting.popleft()
                self._done_bytes += _size(record)
                done.append(encode(cleaned(record, self._salt)))
                if len(done) == 64:
                    loop.call_soon_threadsafe(self._append, done)
                    done = []
            if done:
                loop.call_soon_threadsafe(self._append, done)

    def _append(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            self._journal.append(payload)


def cleaned(record: Exchanged, salt: bytes) -> Exchanged:
    """What may be kept of `record`, by its own level and redaction. Never raises."""
    request, said = request_of(record), answer_of(record)
    unit = unit_of(record.unit, request)
    if record.redacted and unit:
        unit = hashed(unit.encode(), salt)
    level, kept, error = record.level, b"", record.error
    too_long = max(len(record.request), len(record.answer)) > MAX_TEXT_BYTES
    if level == METADATA or (record.redacted and too_long):
        level, said = METADATA, replace(said, messages=[])
    elif record.redacted:
        # After the rest: a hash is no personal data, and must stay one that forgetting can find.
        names = {name: hashed(value.encode(), salt) for name, value in named(request).items()}
        kept = _json({**redact_json(request)[0], **names})
        messages = redact_json(said.messages)[0]
        said = replace(said, messages=messages if isinstance(messages, list) else [])
        error = redact(error)[0]
        said.error = None if said.error is None else redact(said.error)[0]
    return msgspec.structs.replace(
        record,
        cleaned=True,
        level=level,
        unit=unit,
        error=error,
        request=kept,
        answer=cleaned_answer(said),
    )


def _size(record: Exchanged) -> int:
    return len(record.request) + len(record.answer)
