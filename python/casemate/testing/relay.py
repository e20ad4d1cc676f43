"""A relay between clients and a server on loopback that does what networks do: cut, stall, crawl.

It runs in a thread of its own, so that tests with and without an event loop use it alike.
"""

from __future__ import annotations

import asyncio
from functools import partial
from types import TracebackType
from typing import Self

from casemate.client.loop_thread import LoopThread

LOOPBACK = "127.0.0.1"

_CHUNK_BYTES = 65_536

_END_S = 1.0
"""Time for connections that are cut to be gone, in seconds."""

_SLICES_PER_S = 20
"""A slow connection moves its bytes so many times in a second."""


class Relay:
    """Carries bytes both ways; each method counts for all connections and returns when it holds.

    Attributes:
        port: Where clients connect, on 127.0.0.1; 0 until it was started.
        accepted: Connections since the start, refused ones included.

    Example:
        ```python
        from casemate.testing import ThrowAwayBroker

        with ThrowAwayBroker() as broker, broker.relay() as relay:
            client = broker.client("t7", through=relay, reconnect_s_max=0.1)
            with client.blocking() as one:
                relay.cut()
                print(one.wait_disconnected(timeout_s=5).code)  # connection-lost
                one.wait_connected(timeout_s=5)
        ```
    """

    def __init__(self, host: str, port: int) -> None:
        """Describes a relay; `with` or `start` opens it.

        Args:
            host: Of the server, such as `127.0.0.1`.
            port: Of the server.
        """
        self._to = host, port
        self._thread = LoopThread("the relay")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._bytes_per_s: float | None = None
        self._refusing = False
        self.port: int = 0
        self.accepted: int = 0

    @property
    def connections(self) -> int:
        """How many connections it carries at this moment."""
        return len(self._writers) // 2

    def start(self) -> None:
        """Listens on a free port."""
        self._thread.start()
        try:
            self._thread.run(self._listen)
        except BaseException:
            self._thread.stop()
            raise

    def stop(self) -> None:
        """Cuts what it carries and closes; idempotent."""
        if self._thread.is_usable():
            try:
                self._thread.run(self._end)
            finally:
                self._thread.stop()

    def __enter__(self) -> Self:
        """Starts."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops."""
        self.stop()

    def cut(self) -> None:
        """Cuts every connection without a word; new ones are carried."""
        self._thread.run(self._cut)

    def stall(self) -> None:
        """Carries nothing more and closes nothing, like a cable that was pulled."""
        self._thread.run(partial(self._set, flowing=False))

    def slow(self, bytes_per_s: float) -> None:
        """Carries so many bytes in a second at most, in each direction of each connection.

        Args:
            bytes_per_s: Above 0.

        Raises:
            ValueError: It is not.
        """
        if bytes_per_s <= 0:
            raise ValueError("bytes_per_s is above 0; stall() carries nothing")
        self._thread.run(partial(self._set, bytes_per_s=bytes_per_s))

    def refuse(self) -> None:
        """Cuts every connection, and each new one at once, like a broker that is down."""
        self._thread.run(partial(self._set, refusing=True))

    def restore(self) -> None:
        """Carries everything at once again; what was stalled goes on."""
        self._thread.run(self._set)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, limit=_CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_S)

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        if self._carrying:
            await asyncio.wait(self._carrying, timeout=_END_S)

    async def _set(
        self, *, flowing: bool = True, bytes_per_s: float | None = None, refusing: bool = False
    ) -> None:
        self._bytes_per_s, self._refusing = bytes_per_s, refusing
        if flowing:
            self._flowing.set()
        else:
            self._flowing.clear()
        if refusing:
            await self._cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        # Cannot fail: asyncio serves each connection in a task.
        assert task is not None  # noqa: S101
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        onward: asyncio.StreamWriter | None = None
        try:
            if self._refusing:
                return
            onward_reader, onward = await asyncio.open_connection(*self._to, limit=_CHUNK_BYTES)
            if self._refusing:
                return
            pair = {writer, onward}
            self._writers |= pair
            self._carrying.add(task)
            try:
                await asyncio.gather(
                    self._carry(reader, onward), self._carry(onward_reader, writer)
                )
            finally:
                self._writers -= pair
                self._carrying.discard(task)
        except (OSError, asyncio.CancelledError):
            # Cancelled only when the relay stops; asyncio would log it as a fault.
            return
        finally:
            for one in (writer, onward):
                if one is not None:
                    one.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one direction until it ends; its end ends both."""
        try:
            while data := await reader.read(_CHUNK_BYTES):
                while data:
                    data = data[await self._pass(data, writer) :]
            await self._flowing.wait()
        except OSError:
            writer.transport.abort()
        # What was said before the end still arrives.
        writer.close()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> int:
        """Passes on as much as may go at once; gives how many bytes that were."""
        await self._flowing.wait()
        rate = self._bytes_per_s
        size = len(data) if rate is None else max(1, int(rate / _SLICES_PER_S))
        writer.write(data[:size])
        await writer.drain()
        if rate is not None:
            await asyncio.sleep(size / rate)
        return size
