"""The client through a SOCKS5 proxy: a real broker behind one, and proxies that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from casemate.client import Client
from casemate.errors import (
    CasemateError,
    ConnectionLost,
    ProtocolViolation,
    Refused,
    Unreachable,
    Untrusted,
)
from casemate.testing import ThrowAwayBroker

DONE = bytes.fromhex("05 00 00 01 7f000001 0001")


@asynccontextmanager
async def proxy(
    *, proof: bytes | None = None, done: bytes = DONE
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serves a proxy; gives its port and the requests that it has heard.

    Args:
        proof: What it wants to be told of user and password; None wants nothing.
        done: How it says that it has connected.
    """
    heard: list[bytes] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            _, count = await reader.readexactly(2)
            methods = await reader.readexactly(count)
            method = 0 if proof is None else 2
            writer.write(bytes([5, method if method in methods else 0xFF]))
            if method == 2 and method in methods:
                told = await reader.readexactly(len(proof or b""))
                writer.write(bytes([1, told != proof]))
            kind = (await reader.readexactly(4))[3]
            size = (await reader.readexactly(1))[0] if kind == 3 else {1: 4, 4: 16}[kind]
            address = await reader.readexactly(size)
            port = int.from_bytes(await reader.readexactly(2))
            heard.append(bytes([kind]) + address)
            # Byte by byte: nothing may depend on how it arrives.
            for byte in done:
                writer.write(bytes([byte]))
                await writer.drain()
            if done[1] == 0:
                onward_reader, onward = await asyncio.open_connection("127.0.0.1", port)
                try:
                    await asyncio.gather(carry(reader, onward), carry(onward_reader, writer))
                finally:
                    onward.transport.abort()
                    writer.transport.abort()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


@pytest.mark.parametrize(
    "done",
    [DONE, bytes.fromhex("05 00 00 04") + bytes(18), b"\x05\0\0\x03\x04name\0\1"],
    ids=["IPv4", "IPv6", "name"],
)
async def test_the_broker_is_reached_and_verified_through_the_proxy(
    casemate_broker: ThrowAwayBroker, done: bytes
) -> None:
    async with proxy(done=done) as (port, heard):
        for host, request in (("127.0.0.1", b"\1\x7f\0\0\1"), ("localhost", b"\3localhost")):
            one = casemate_broker.client("operator", host=host, proxy=f"socks5h://127.0.0.1:{port}")
            async with one:
                await one.publish("t", "through", qos=1)
            # The name is the proxy's to look up.
            assert heard.pop() == request


async def test_user_and_password_are_told_to_who_asks(casemate_broker: ThrowAwayBroker) -> None:
    async with proxy(proof=b"\1\2me\4p@ss") as (port, heard):
        url = f"socks5h://me:p%40ss@127.0.0.1:{port}"
        async with casemate_broker.client("operator", proxy=url):
            assert len(heard) == 1
    # Nothing is told where nobody asks.
    async with proxy() as (port, _):
        url = f"socks5h://me:p%40ss@127.0.0.1:{port}"
        async with casemate_broker.client("operator", proxy=url):
            pass


@pytest.mark.parametrize("who", ["", "me:hunter22@"])
async def test_a_proxy_that_wants_another_proof_refuses(who: str) -> None:
    async with proxy(proof=b"\1\2me\x08hunter23") as (port, heard):
        one = Client("broker.example", proxy=f"socks5h://{who}127.0.0.1:{port}")
        with pytest.raises(Refused, match="wants to know who asks") as refused:
            await one.connect()
    assert "hunter22" not in str(refused.value)
    assert heard == []


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"\5\0\5\2\0\1\0\0\0\0\0\0", Unreachable, "not allowed by its rules"),
        (b"\5\0\5\5\0\1\0\0\0\0\0\0", Unreachable, "connection refused"),
        (b"\5\0\5\x77\0\1\0\0\0\0\0\0", Unreachable, "SOCKS answer 119"),
        (b"HTTP/1.1 400 x\r\n\r\n", ProtocolViolation, "does not speak SOCKS5"),
        (b"\4\0", ProtocolViolation, "does not speak SOCKS5"),
        (b"\5\2", ProtocolViolation, "does not speak SOCKS5"),
        (b"\5\0\4\0\0\1", ProtocolViolation, "does not speak SOCKS5"),
        (b"\5\0\5\0\0\x09\0\0", ProtocolViolation, "does not speak SOCKS5"),
        (b"\5\xff", Refused, "wants to know who asks"),
        (b"\5", ConnectionLost, "closed the connection"),
        (b"\5\0\5\0\0\1\0\0", ConnectionLost, "closed the connection"),
        (b"", ConnectionLost, "closed the connection"),
    ],
)
async def test_a_proxy_that_does_not_connect_is_told_in_words(
    answer: bytes, kind: type[CasemateError], words: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(answer)
            writer.write_eof()
            await reader.read()
        writer.transport.abort()
        over.set()

    over = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = Client("broker.example", proxy=f"socks5h://127.0.0.1:{port}")
    with pytest.raises(kind, match=words):
        await one.connect()
    await over.wait()
    server.close()


async def test_what_a_proxy_says_before_the_broker_is_not_taken_for_its_words(
    casemate_broker: ThrowAwayBroker,
) -> None:
    async with proxy(done=DONE + bytes.fromhex("20 03 00 00 00")) as (port, _):
        one = casemate_broker.client("operator", proxy=f"socks5h://127.0.0.1:{port}")
        with pytest.raises((Untrusted, ConnectionLost)):
            await one.connect()
