"""A broker that says exactly what a test tells it to, byte by byte, for what no real one says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from casemate.client import Client, Message

CONNACK_5 = bytes.fromhex("20 03 00 00 00")
CONNACK_5_RESUMED = bytes.fromhex("20 03 01 00 00")
CONNACK_4 = bytes.fromhex("20 02 00 00")


@dataclass
class Peer:
    """Is one accepted connection, seen from the broker."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def packet(self) -> tuple[int, bytes]:
        """Reads one packet: byte 1 and the body."""
        first = (await self.reader.readexactly(1))[0]
        size, shift = 0, 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return first, await self.reader.readexactly(size)

    async def expect(self, kind: int) -> tuple[int, bytes]:
        """Reads one packet of this type (upper half of byte 1)."""
        first, body = await self.packet()
        assert first >> 4 == kind, f"expected packet type {kind}, got {first:#04x} {body.hex()}"
        return first, body

    async def say(self, packet: bytes | str) -> None:
        """Sends bytes, or their hex."""
        self.writer.write(bytes.fromhex(packet) if isinstance(packet, str) else packet)
        await self.writer.drain()

    async def accept(self, connack: bytes = CONNACK_5) -> bytes:
        """Takes CONNECT, answers, and gives the CONNECT's body."""
        _, body = await self.expect(1)
        await self.say(connack)
        return body

    async def is_silent(self, span_s: float = 0.15) -> bool:
        """Says whether the client sends nothing for a while, or nothing but its goodbye."""
        try:
            async with asyncio.timeout(span_s):
                return await self.reader.read(1) in (b"", b"\xe0")
        except TimeoutError:
            return True

    async def gone(self) -> bool:
        """Waits until the client has closed."""
        try:
            while await self.reader.read(65_536):
                continue
        except ConnectionError:
            pass
        return True

    def cut(self) -> None:
        """Ends the connection without a word."""
        self.writer.transport.abort()


Story = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def scripted(*stories: Story) -> AsyncIterator[int]:
    """Serves each connection with the next story; gives the port.

    A story that fails fails the test when the context ends.
    """
    waiting = list(stories)
    told: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        told.append(task)
        if not waiting:
            writer.transport.abort()
            return
        try:
            await waiting.pop(0)(Peer(reader, writer))
        except asyncio.CancelledError:
            # The test is over; asyncio's own callback would log the cancellation as a fault.
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10):
            await asyncio.gather(*told)
    finally:
        for task in told:
            task.cancel()
        server.close()


def client(port: int, **options: Any) -> Client:  # noqa: ANN401 - as for Client.
    return Client("127.0.0.1", port, tls=False, **{"connect_timeout_s": 5.0, **options})


def publish(qos: int, packet_id: int, payload: bytes = b"x", *, dup: bool = False) -> bytes:
    """Gives a PUBLISH of 5.0 on the topic `t`."""
    body = b"\x00\x01t" + (packet_id.to_bytes(2) if qos else b"") + b"\x00" + payload
    return bytes([0x30 | dup << 3 | qos << 1, len(body)]) + body


async def take(one: Client, count: int) -> list[Message]:
    async with asyncio.timeout(5):
        return [await anext(one.messages) for _ in range(count)]
