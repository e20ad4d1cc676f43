"""The way to a broker: bytes in both directions, over TCP, verified TLS or a unix socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import weakref
from typing import Protocol, cast

from casemate.client.address import Address, is_loopback, plaintext_leaves
from casemate.client.explain import explain
from casemate.errors import DeadlinePassed, Unreachable

READ_BYTES = 65_536
"""Bytes asked for at once; also what may arrive beyond a full queue."""


class Stream(Protocol):
    """Is what a connection is carried by."""

    async def read(self) -> bytes:
        """Gives what has arrived, at least a byte; nothing at the end.

        Raises:
            OSError: The connection failed.
            ClientError: The peer broke the protocol of this layer.
        """

    def write(self, data: bytes) -> None:
        """Hands bytes over; what cannot leave at once waits in memory."""

    async def drain(self) -> None:
        """Waits until there is room again.

        Raises:
            OSError: The connection failed.
        """

    def abort(self) -> None:
        """Closes at once, without a word."""

    async def close(self) -> None:
        """Closes as the layer says goodbye; the caller sets the time that this may take.

        Raises:
            OSError: The connection failed.
        """


class ByteStream:
    """Carries bytes as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes over what asyncio has connected."""
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """Gives what has arrived; nothing at the end."""
        return await self._reader.read(READ_BYTES)

    def write(self, data: bytes) -> None:
        """Hands bytes to the transport; after its end nothing leaves any more."""
        if not self._writer.is_closing():  # uvloop would raise.
            self._writer.write(data)

    async def drain(self) -> None:
        """Waits until the transport has room."""
        await self._writer.drain()

    def abort(self) -> None:
        """Closes at once."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Closes after what was written."""
        self._writer.close()
        await self._writer.wait_closed()


async def open_stream(address: Address, packet_bytes_max: int, timeout_s: float) -> Stream:
    """Connects, and for TLS verifies the broker, before anything is sent.

    Args:
        address: Where to.
        packet_bytes_max: Largest packet that is read, in bytes; bounds a WebSocket's frames.
        timeout_s: Seconds for name, TCP, TLS and WebSocket together.

    Raises:
        Unreachable: The name is unknown, or nothing listens there.
        Untrusted: TLS failed, the certificate most of all; nothing was sent.
        Refused: The door of the WebSocket is closed to this client.
        ProtocolViolation: What answers there is no WebSocket for MQTT.
        DeadlinePassed: It took too long.
    """
    try:
        async with asyncio.timeout(timeout_s):
            stream = await _connect(address)
            if address.door is None:
                return stream
            # Loaded where it is needed: most clients speak MQTT without it.
            from casemate.client.websocket import upgrade

            try:
                return await upgrade(stream, address, address.door, packet_bytes_max)
            except BaseException:
                stream.abort()
                raise
    except TimeoutError as error:
        raise DeadlinePassed(
            f"{address} did not answer within {timeout_s:g} s",
            hint="check the address, the port and what filters packets between",
        ) from error
    except OSError as error:
        raise explain(error, address) from error


async def abort_streams() -> None:
    """Closes what this thread's event loop has connected and is still open, and waits for it.

    For the end of a loop: what it has not closed by then stays open for ever.
    """
    for connection in list(_here.open):
        connection.abort()
        await connection.closed.wait()


class _Connection(asyncio.StreamReaderProtocol):
    """Feeds a reader, and knows its transport from the first moment to the last.

    asyncio gives a transport out when all of a connection is made. Where it is cancelled in the
    very moment at which a handshake has ended, it waits for the peer's goodbye for up to 30
    seconds, and nobody has a transport to abort.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        """Is not connected yet."""
        super().__init__(reader, loop=asyncio.get_running_loop())
        self._own: asyncio.Transport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to feed the reader."""
        # Cannot fail: a connection of bytes has a transport for both directions.
        self._own = cast("asyncio.Transport", transport)
        _here.open.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Tells who waits that the transport is closed."""
        _here.open.discard(self)
        self.closed.set()
        super().connection_lost(error)

    def abort(self) -> None:
        """Closes at once, if it was connected."""
        if self._own is not None:
            self._own.abort()


class _Here(threading.local):
    """Knows what one thread has open; an event loop runs in one."""

    def __init__(self) -> None:
        """Nothing is open."""
        self.open: weakref.WeakSet[_Connection] = weakref.WeakSet()


_here = _Here()


async def _connect(address: Address) -> ByteStream:
    reader = asyncio.StreamReader(limit=READ_BYTES, loop=asyncio.get_running_loop())
    connection = _Connection(reader)
    try:
        transport = await _dial(address, connection)
    except BaseException:
        connection.abort()
        raise
    writer = asyncio.StreamWriter(transport, connection, reader, asyncio.get_running_loop())
    return ByteStream(reader, writer)


async def _dial(address: Address, connection: _Connection) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    name = address.host if address.tls else None
    if address.unix_socket is not None:
        if not hasattr(socket, "AF_UNIX"):
            raise Unreachable("this system has no unix sockets", hint="name host and port")
        transport, _ = await loop.create_unix_connection(
            lambda: connection, address.unix_socket, ssl=address.tls, server_hostname=name
        )
        return transport
    if address.proxy is not None:
        from casemate.client.proxy import pass_through

        raw = await pass_through(address.proxy, address.host, address.port)
        transport, _ = await loop.create_connection(
            lambda: connection, sock=raw, ssl=address.tls, server_hostname=name
        )
        return transport
    transport, _ = await loop.create_connection(
        lambda: connection,
        address.host,
        address.port,
        ssl=address.tls,
        server_hostname=name,
        local_addr=None if address.local_address is None else (address.local_address, 0),
    )
    peer = transport.get_extra_info("peername")
    if address.tls is None and not address.plaintext_anywhere and not _is_local(peer):
        # "localhost" is a name, and a name may have been made to point elsewhere.
        raise plaintext_leaves(address)
    own = transport.get_extra_info("socket")
    if own is not None:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return transport


def _is_local(peer: object) -> bool:
    return isinstance(peer, tuple) and is_loopback(str(peer[0]))
