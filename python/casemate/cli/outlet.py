"""Stdout for messages: a reader that stalls must not hold up what keeps the connection alive."""

from __future__ import annotations

import errno
import os
import select
import sys


class Outlet:
    """Writes whole messages to stdout and waits in the event loop where there is no room."""

    def __init__(self) -> None:
        """Takes what stdout is; raises OSError where it is closed."""
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._descriptor = sys.stdout.fileno()
        self._room = select.poll()
        self._room.register(self._descriptor, select.POLLOUT)

    async def write(self, data: bytes) -> None:
        """Writes a message.

        Raises:
            BrokenPipeError: Nobody reads it any more.
            OSError: It cannot be written.
        """
        rest = memoryview(data)
        while rest:
            # Where there is room for anything, there is for this much (POSIX, PIPE_BUF).
            if not self._room.poll(0):
                await self._wait()
            rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]

    async def _wait(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        ready = loop.create_future()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_writer(self._descriptor, tell)
        try:
            await ready
        finally:
            loop.remove_writer(self._descriptor)
