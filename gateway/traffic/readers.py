"""Questions about traffic, answered by processes beside the gateway: a query takes memory and processor time
that requests must not wait for."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import msgspec

from gateway.errors import BadRequest, GatewayError, NotFound, Unavailable
from gateway.settings import Settings
from gateway.traffic.place import lake_place
from gateway.traffic.query import Forgotten, Wanted
from gateway.traffic.read import DATA, DONE, FRAME, Question, Refusal

AT_ONCE = 2
"""Questions that are answered at a time; others wait."""
IDLE_S = 120.0
"""A process that nobody asked for so long ends: it holds some 100 MB."""


class Readers:
    """A process is kept for the next question; one that is left in mid-answer is killed with its query."""

    def __init__(self, settings: Settings) -> None:
        self._place = lake_place(settings)
        self._journal = str(settings.journal_path)
        self._examined = settings.traffic.presidio.enabled
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._idle: list[tuple[Process, asyncio.TimerHandle]] = []

    async def ask(
        self, operation: str, wanted: Wanted, forgotten: Sequence[Forgotten] = ()
    ) -> AsyncIterator[bytes]:
        """Pieces of the answer. Raises `BadRequest`, `NotFound`, or `Unavailable` when there is no lake."""
        place = self._place
        if place is None:
            raise NotFound(
                "This gateway has no lake: traffic.lake is off, or `pip install 'hotswap[lake]'` is missing.",
                code="no_lake",
            )
        question = Question(
            operation,
            wanted,
            place.uri,
            self._journal,
            dict(place.options),
            tuple(forgotten),
            self._examined,
        )
        async with self._turns:
            process = await self._process()
            whole = False
            try:
                assert process.stdin is not None  # both are pipes
                process.stdin.write(msgspec.json.encode(question) + b"\n")
                await process.stdin.drain()
                async for piece in _pieces(process):
                    yield piece
                whole = True
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise Unavailable(
                    f"the traffic reader ended with status {await process.wait()}; ask again",
                    code="reader_lost",
                    retry_after_s=1.0,
                ) from error
            except GatewayError:
                whole = True
                raise
            finally:
                self._done(process, whole=whole)

    async def stop(self) -> None:
        """Ends what idles."""
        for process, timer in self._idle:
            timer.cancel()
            await _end(process)
        self._idle.clear()

    async def _process(self) -> Process:
        while self._idle:
            process, timer = self._idle.pop()
            timer.cancel()
            if process.returncode is None:
                return process
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.traffic.read", stdin=PIPE, stdout=PIPE
        )

    def _done(self, process: Process, *, whole: bool) -> None:
        if not whole or process.returncode is not None:
            with suppress(ProcessLookupError):
                process.kill()
            return
        timer = asyncio.get_running_loop().call_later(IDLE_S, self._retire, process)
        self._idle.append((process, timer))

    def _retire(self, process: Process) -> None:
        self._idle = [each for each in self._idle if each[0] is not process]
        if process.stdin is not None:
            process.stdin.close()


async def _pieces(process: Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None  # it is a pipe
    while True:
        kind, length = FRAME.unpack(await process.stdout.readexactly(FRAME.size))
        payload = await process.stdout.readexactly(length)
        if kind == DATA:
            yield payload
        elif kind == DONE:
            return
        else:
            raise _refused(msgspec.json.decode(payload, type=Refusal))


def _refused(refusal: Refusal) -> GatewayError:
    if refusal.status == 503:
        return Unavailable(refusal.message, code=refusal.code, retry_after_s=5.0)
    kind = NotFound if refusal.status == 404 else BadRequest
    return kind(refusal.message, code=refusal.code, param=refusal.param)


async def _end(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 2.0)
    except TimeoutError:
        process.kill()
        await process.wait()
