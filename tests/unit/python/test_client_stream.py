"""What a client has connected is closed at the end of its loop, and not a moment of it is lost."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from casemate.client import stream
from casemate.client.address import Address
from casemate.client.stream import abort_streams, open_stream

BYTES_MAX = 65_536


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextmanager
def silent_peer(context: ssl.SSLContext | None) -> Iterator[int]:
    """Accepts one, shakes hands where it is to, and says and reads nothing from then on."""
    over = threading.Event()

    def serve() -> None:
        raw, _ = listening.accept()
        with raw if context is None else context.wrap_socket(raw, server_side=True):
            over.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        over.set()
        thread.join(10)
        assert not thread.is_alive()


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Gives the server's and the client's."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(asking)
    return serving, asking


@pytest.mark.parametrize("encrypted", [False, True])
async def test_what_is_open_at_the_end_of_a_loop_is_closed(
    authority: trustme.CA, encrypted: bool
) -> None:
    serving, asking = contexts(authority)
    with silent_peer(serving if encrypted else None) as port:
        address = Address("127.0.0.1", port, asking if encrypted else None)
        one = await open_stream(address, BYTES_MAX, 10)
        async with asyncio.timeout(10):
            await abort_streams()
            assert await one.read() == b""
            await abort_streams()


async def test_a_client_that_is_cancelled_as_its_handshake_ends_hangs_up_at_once(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer answers no goodbye: who waited for one would hold the socket for 30 seconds."""
    serving, asking = contexts(authority)
    made: list[stream._Connection] = []
    real = stream._Connection.connection_made

    def cancelling(self: stream._Connection, transport: asyncio.BaseTransport) -> None:
        real(self, transport)
        made.append(self)
        opening.cancel()

    monkeypatch.setattr(stream._Connection, "connection_made", cancelling)
    with silent_peer(serving) as port:
        opening = asyncio.create_task(
            open_stream(Address("127.0.0.1", port, asking), BYTES_MAX, 10)
        )
        with pytest.raises(asyncio.CancelledError):
            await opening
        async with asyncio.timeout(10):
            await made[0].closed.wait()
