"""The client through an HTTP proxy: a real broker behind a small proxy, and proxies that misbehave.

The proxy of these tests knows CONNECT and nothing else; what a test gives it is what it answers.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from casemate.client import Client
from casemate.client.proxy import read_proxy
from casemate.errors import (
    CasemateError,
    ConnectionLost,
    DeadlinePassed,
    ProtocolViolation,
    Refused,
    Unreachable,
    Untrusted,
)
from casemate.testing import ThrowAwayBroker

GOOD = b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n"


@asynccontextmanager
async def proxy(answer: bytes = GOOD) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serves a proxy that answers CONNECT so, and then carries; gives its port and the requests."""
    heard: list[bytes] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            host, port = heard[-1].split()[1].decode().rsplit(":", 1)
            writer.write(answer)
            await writer.drain()
            if answer.startswith(GOOD):
                onward_reader, onward = await asyncio.open_connection(host, int(port))
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


async def test_the_broker_is_reached_and_verified_through_the_proxy(
    casemate_broker: ThrowAwayBroker,
) -> None:
    port = casemate_broker.listening().port
    async with proxy() as (proxy_port, heard):
        url = f"http://me:p%40ss@127.0.0.1:{proxy_port}"
        async with casemate_broker.client("operator", proxy=url) as one:
            await one.subscribe("t", qos=1)
            await one.publish("t", "through", qos=1)
            assert (await anext(one.messages)).text == "through"
    request, *headers = heard[0].decode().split("\r\n")
    assert request == f"CONNECT 127.0.0.1:{port} HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in headers
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:p@ss').decode()}" in headers


async def test_websocket_goes_through_a_proxy_too() -> None:
    with ThrowAwayBroker(kinds=("wss",)) as broker:
        secret = broker.add_user("ada")
        async with proxy() as (proxy_port, _):
            one = Client.from_url(
                f"wss://127.0.0.1:{broker.listening('wss').port}/mqtt",
                username="ada",
                password=secret,
                ca_file=broker.ca_file,
                proxy=f"http://127.0.0.1:{proxy_port}",
            )
            async with one:
                await one.publish("t", qos=1)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"HTTP/1.1 407 Who\r\n\r\n", Refused, "wants to know who asks"),
        (b"HTTP/1.1 403 No\r\n\r\n", Unreachable, "HTTP status 403"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", Unreachable, "HTTP status 502"),
        (b"HTTP/1.1 302 Go\r\nLocation: http://evil\r\n\r\n", Unreachable, "302"),
        (b"SSH-2.0-x\r\n\r\n", ProtocolViolation, "does not speak HTTP"),
        (b"HTTP/1.1 2000 x\r\n\r\n", ProtocolViolation, "does not speak HTTP"),
        (b"HTTP/1.1 200 x\r\n" + b"A: b\r\n" * 3_000, ProtocolViolation, "without end"),
        (b"HTTP/1.1 2", ConnectionLost, "closed"),
        (b"", ConnectionLost, "closed"),
    ],
)
async def test_a_proxy_that_does_not_connect_is_told_in_words(
    answer: bytes, kind: type[CasemateError], words: str
) -> None:
    async with proxy(answer) as (port, _):
        one = Client("broker.example", proxy=f"http://me:hunter22@127.0.0.1:{port}")
        with pytest.raises(kind, match=words) as refused:
            await one.connect()
    assert "hunter22" not in str(refused.value)


async def test_what_a_proxy_says_before_the_broker_is_not_taken_for_its_words(
    casemate_broker: ThrowAwayBroker,
) -> None:
    """A CONNACK in plaintext behind the proxy's answer must end in TLS, not in MQTT."""
    async with proxy(GOOD + bytes.fromhex("20 03 00 00 00")) as (port, _):
        one = casemate_broker.client("operator", proxy=f"http://127.0.0.1:{port}")
        with pytest.raises((Untrusted, ConnectionLost)):
            await one.connect()


async def test_a_proxy_that_is_not_there_is_told_in_words() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(Unreachable, match="the proxy 127"):
        await Client("broker.example", proxy=f"http://127.0.0.1:{port}").connect()
    with pytest.raises(Unreachable, match="name of the proxy"):
        await Client("broker.example", proxy="http://proxy.invalid").connect()


async def test_a_silent_proxy_ends_at_the_deadline() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        told.set()

    told = asyncio.Event()
    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = Client("broker.example", proxy=f"http://127.0.0.1:{port}", connect_timeout_s=0.2)
    with pytest.raises(DeadlinePassed):
        await one.connect()
    server.close()
    await told.wait()


@pytest.mark.parametrize(
    "url",
    [
        "socks5://me:hunter22@h",
        "socks5h://hunter22@h",
        "socks5h://me:hunter22" + "x" * 255 + "@h",
        "https://me:hunter22@h",
        "http://me:hunter22@",
        "http://me:hunter22@h:x",
        "http://me:hunter22@h/path",
        "http://me:hunter22@h\r\n",
        "me:hunter22@h",
    ],
)
def test_a_proxy_that_cannot_be_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="proxy") as refused:
        Client("broker.example", proxy=url)
    assert "hunter22" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "a\r\nb"}, "ASCII"),
        ({"host": "a b"}, "ASCII"),
        ({"host": "h." * 128}, "at most 255"),
        ({"host": "h", "local_address": "127.0.0.1"}, "cannot be combined"),
        ({"unix_socket": "/run/x"}, "no proxy"),
    ],
)
def test_what_a_proxy_cannot_reach_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Client(proxy="http://127.0.0.1", **options)


def test_plaintext_through_a_proxy_leaves_this_machine() -> None:
    """Also to a host that looks like loopback: it is the proxy's."""
    with pytest.raises(Untrusted, match="plaintext"):
        Client("localhost", tls=False, proxy="http://127.0.0.1")
    Client("localhost", tls=False, proxy="http://127.0.0.1", insecure_plaintext=True)


def test_a_proxy_hides_its_proof() -> None:
    one = read_proxy("http://me:hunter22@proxy.example:3128")
    shown = repr(one) + str(one) + repr(Client("h", proxy="http://me:hunter22@p"))
    assert "hunter22" not in shown
    assert (one.host, one.port) == ("proxy.example", 3128)
