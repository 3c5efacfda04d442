"""The supervisor of the local engine: start it, tell how far it is, start it again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable

from adapters.base.manifest import BaseError
from gateway.fleet.client import Address, Lost
from gateway.fleet.engine import Engine, Unfit
from gateway.fleet.launch import HOST, CannotLaunch, Command
from gateway.fleet.progress import Reader
from gateway.settings import Settings
from gateway.supervise import Child, free_port
from gateway.supervise.backoff import Backoff

logger = logging.getLogger(__name__)

EXIT_S = 1.0
"""How long an engine that does not answer may take to end by itself before it is ended."""

Launch = Callable[[Settings, int, str, int], Command]
"""(settings, port, key, the engine's number on this machine) -> what to run."""


class Local:
    """Runs one engine as a child process for as long as `run` is not cancelled.

    Every start gets a port of its own and, unless `key` is given, a new key, so that nobody can mistake an
    old engine for the new one. With `address` every start gets that one: other processes, which find the
    engine there, tell a new one by its boot id.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        launch: Launch,
        clock: Callable[[], float],
        key: str | None = None,
        address: Address | None = None,
        backoff: Backoff | None = None,
        *,
        number: int = 0,
    ) -> None:
        """`number` tells engines of one machine apart, 0 for the first: which GPU or core is its own."""
        self._engine = engine
        self._settings = settings
        self._launch = launch
        self._clock = clock
        self._key = key
        self._address = address
        self._number = number
        self._backoff = backoff or Backoff()
        self._log = settings.log_path / f"engine-{engine.name}.log"

    async def run(self) -> None:
        while True:
            reason = await self._once()
            served_at = self._engine.served_at
            wait_s = self._backoff.next_s(0.0 if served_at is None else self._clock() - served_at)
            self._engine.served_at = None
            self._engine.down(reason, wait_s)
            await asyncio.sleep(wait_s)

    async def _once(self) -> str:
        """One boot, from its start to its end; why it ended."""
        address = self._address or Address(HOST, free_port(), self._key or secrets.token_urlsafe(32))
        reader = Reader()
        reason = "it ended"
        try:
            command = await asyncio.to_thread(
                self._launch, self._settings, address.port, address.key or "", self._number
            )
            async with self._child(command, reader) as child:
                self._engine.starting(address, child.pid)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._until_it_ends(child, reader))
                        group.create_task(self._engine.serve(address, self._settings.engine.start_timeout_s))
                except* (Lost, Unfit) as errors:
                    reason = "; ".join(str(error) for error in _leaves(errors))
                # A probe may see a death first, but its exit says more about it.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EXIT_S):
                        reason = self._how_it_ended(await child.wait(), reader)
        except (CannotLaunch, BaseError, OSError) as error:
            return str(error)
        return reason

    @contextlib.asynccontextmanager
    async def _child(self, command: Command, reader: Reader) -> AsyncIterator[Child]:
        def on_line(line: str) -> None:
            stage = reader.line(line)
            if stage is not None:
                self._engine.progress(stage)

        child = Child(
            f"engine-{self._engine.name}",
            command.argv,
            state_dir=self._settings.state_dir,
            log_path=self._log,
            env=command.environment,
            grace_s=self._settings.engine.stop_timeout_s,
            on_line=on_line,
        )
        await child.start()
        try:
            yield child
        finally:
            await child.stop()

    async def _until_it_ends(self, child: Child, reader: Reader) -> None:
        raise Lost(self._how_it_ended(await child.wait(), reader))

    def _how_it_ended(self, code: int, reader: Reader) -> str:
        if code < 0:
            return f"it was ended by signal {-code} (log: {self._log})"
        error = f": {reader.error}" if reader.error else ""
        return f"it exited with status {code}{error} (log: {self._log})"


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions in a group, flat."""
    flat: list[BaseException] = []
    for error in group.exceptions:
        flat += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return flat
