"""A relay on loopback between a client and a broker that cuts connections when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """Forwards bytes both ways."""

    def __init__(self, port: int) -> None:
        """Forwards to this port of loopback."""
        self._to = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.accepted = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, onward}
        self._writers |= pair
        try:
            await asyncio.gather(_copy(reader, onward), _copy(onward_reader, writer))
        finally:
            for one in pair:
                one.transport.abort()
            self._writers -= pair

    def cut(self) -> None:
        """Cuts every connection without a word."""
        for writer in self._writers:
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.transport.abort()


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    """Serves a relay to a port of loopback."""
    one = Relay(port)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        one.cut()
        await asyncio.sleep(0)
