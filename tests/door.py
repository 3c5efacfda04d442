"""A way to a server on loopback that can be shut: who connects is refused, who was connected is cut off."""

from __future__ import annotations

import asyncio
from types import TracebackType

PIECE = 64 * 1024


class Door:
    """`async with Door(port) as door:` leads from `door.port` to `port`, while it is open."""

    def __init__(self, leads_to: int) -> None:
        self.port = 0
        self._leads_to = leads_to
        self._server: asyncio.Server | None = None
        self._through: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """On the same port each time."""
        self._server = await asyncio.start_server(self._let_through, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        through = list(self._through)
        for task in through:
            task.cancel()
        await asyncio.gather(*through, return_exceptions=True)

    async def _let_through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._through.add(task)
        ends = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._leads_to)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_carry(reader, far_writer))
                ways.create_task(_carry(far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # one of the two has gone, or the door was shut
        finally:
            self._through.discard(task)
            for end in ends:
                end.transport.abort()

    async def __aenter__(self) -> Door:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shut()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
