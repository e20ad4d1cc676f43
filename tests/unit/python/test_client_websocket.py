"""The client over WebSocket: through a real proxy to the real broker, and against hostile ones.

The proxy is a WebSocket server that carries the bytes to a broker's TLS listener, cut as it likes;
the hostile ones write their handshake and frames by hand.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from casemate.client import Client, Message
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
from tests.unit.python.scripted import CONNACK_5, Peer, publish

MQTT = Subprotocol("mqtt")


@pytest.fixture(scope="module")
def broker() -> AsyncIterator[ThrowAwayBroker]:
    with ThrowAwayBroker() as one:
        yield one


@asynccontextmanager
async def proxy(
    broker: ThrowAwayBroker, name: str, frame_bytes: int = 65_536, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[ServerConnection]]]:
    """Serves WebSocket on loopback and carries its bytes to the broker, as this identity.

    Gives the port and what has connected.
    """
    onward = broker.client(name).address
    seen: list[ServerConnection] = []

    async def carry(one: ServerConnection) -> None:
        seen.append(one)
        reader, writer = await asyncio.open_connection(
            onward.host, onward.port, ssl=onward.tls, server_hostname=onward.host
        )

        async def back() -> None:
            while data := await reader.read(frame_bytes):
                await one.send(data)
            await one.close()

        task = asyncio.create_task(back())
        try:
            async for frame in one:
                assert isinstance(frame, bytes)
                writer.write(frame)
                await writer.drain()
        finally:
            writer.transport.abort()
            task.cancel()

    async with serve(carry, "127.0.0.1", 0, subprotocols=[MQTT], ssl=tls) as server:
        yield server.sockets[0].getsockname()[1], seen


def client(port: int, **options: Any) -> Client:  # noqa: ANN401 - as for Client.
    defaults = {"tls": False, "websocket_path": "/mqtt", "connect_timeout_s": 5.0}
    return Client("127.0.0.1", port, **{**defaults, **options})


async def take(one: Client, count: int) -> list[Message]:
    async with asyncio.timeout(10):
        return [await anext(one.messages) for _ in range(count)]


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("frame_bytes", [1, 7, 65_536])
async def test_messages_of_each_qos_go_through_however_frames_are_cut(
    broker: ThrowAwayBroker, version: int, frame_bytes: int
) -> None:
    async with (
        proxy(broker, "ws", frame_bytes) as (port, _),
        client(port, version=version, client_id="ws") as one,
    ):
        await one.subscribe("t", qos=2)
        for qos in (0, 1, 2):
            for number in range(20):
                await one.publish("t", str(number), qos=qos)
        found = await take(one, 60)
    assert [int(message.text) for message in found] == [*range(20)] * 3


async def test_a_large_message_goes_through_whole(broker: ThrowAwayBroker) -> None:
    payload = bytes(range(256)) * 3_900
    async with proxy(broker, "ws") as (port, _), client(port, client_id="ws") as one:
        await one.subscribe("t", qos=1)
        await one.publish("t", payload, qos=1)
        assert (await take(one, 1))[0].payload == payload


async def test_the_handshake_says_what_was_asked_for(broker: ThrowAwayBroker) -> None:
    headers = [("Authorization", "Bearer abc"), ("X-Two", "1")]
    options = {"websocket_path": "/a%20b?x=1", "websocket_headers": headers}
    async with proxy(broker, "ws") as (port, seen), client(port, client_id="ws", **options):
        request = seen[0].request
    assert request is not None
    assert request.path == "/a%20b?x=1"
    assert request.headers["Authorization"] == "Bearer abc"
    assert request.headers["X-Two"] == "1"
    assert request.headers["Sec-WebSocket-Protocol"] == "mqtt"
    assert request.headers["Host"] == f"127.0.0.1:{port}"
    assert "Sec-WebSocket-Extensions" not in request.headers


async def test_wss_verifies_the_server_and_says_http(
    broker: ThrowAwayBroker, tmp_path: Path
) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    async with proxy(broker, "ws", tls=context) as (port, seen):
        url = f"wss://127.0.0.1:{port}/mqtt"
        async with Client.from_url(url, ca_file=ca_file, client_id="ws") as one:
            await one.publish("t", qos=1)
            spoken = seen[0].transport.get_extra_info("ssl_object")
            assert spoken.selected_alpn_protocol() == "http/1.1"
        with pytest.raises(Untrusted, match="not trusted"):
            await Client.from_url(url).connect()


async def test_a_client_comes_back_over_websocket(broker: ThrowAwayBroker) -> None:
    async with (
        proxy(broker, "ws") as (port, seen),
        client(port, client_id="ws", reconnect_s_max=0.1) as one,
    ):
        await one.subscribe("t", qos=1)
        seen[0].transport.abort()
        async with asyncio.timeout(10):
            assert isinstance(await one.wait_disconnected(), ConnectionLost)
            await one.wait_connected()
        await one.publish("t", "again", qos=1)
        assert (await take(one, 1))[0].text == "again"


# What no honest server does.

Story = Callable[[Peer], Awaitable[None]]
ACCEPT = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


async def request(peer: Peer) -> dict[str, str]:
    """Reads a handshake; gives its headers, names in lower case."""
    head = (await peer.reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")[1:-2]
    return {line.split(": ")[0].lower(): line.split(": ", 1)[1] for line in lines}


def accept_key(key: str) -> str:
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode())  # noqa: S324
    return base64.b64encode(digest.digest()).decode()


async def agree(peer: Peer, extra: str = "Sec-WebSocket-Protocol: mqtt\r\n") -> None:
    key = (await request(peer))["sec-websocket-key"]
    await peer.say((f"{ACCEPT}Sec-WebSocket-Accept: {accept_key(key)}\r\n{extra}\r\n").encode())


def frame(payload: bytes, opcode: int = 2, *, fin: bool = True) -> bytes:
    """Gives an unmasked frame, as servers send them."""
    head = bytes([fin << 7 | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    return head + b"\x7e" + len(payload).to_bytes(2) + payload


@asynccontextmanager
async def hostile(story: Story) -> AsyncIterator[int]:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await story(Peer(reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(tell, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def refused(story: Story, **options: Any) -> CasemateError:  # noqa: ANN401 - as for Client.
    async with hostile(story) as port:
        with pytest.raises(CasemateError) as caught:
            await client(port, reconnect=False, **options).connect()
    return caught.value


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", Refused, "403"),
        ("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", Refused, "401"),
        ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", Unreachable, "no WebSocket on that path"),
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", Unreachable, "503"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Unreachable, "200"),
        (
            "HTTP/1.1 302 Go\r\nLocation: wss://evil.example\r\nContent-Length: 0\r\n\r\n",
            Unreachable,
            "not followed",
        ),
        (ACCEPT + "\r\n", ProtocolViolation, "does not speak WebSocket"),
        (f"{ACCEPT}Sec-WebSocket-Accept: AAAA\r\n\r\n", ProtocolViolation, "not speak WebSocket"),
        ("HTTP/1.1 101 x\r\n\r\n", ProtocolViolation, "does not speak WebSocket"),
        ("\x20\x03\x00\x00\x00\r\n\r\n", ProtocolViolation, "does not speak WebSocket"),
        ("HTTP/1.1 101 x\r\nA: " + "b" * 9_000, ProtocolViolation, "not speak WebSocket"),
        ("HTTP/1.1 101 x\r\n" + "A: b\r\n" * 200, ProtocolViolation, "not speak WebSocket"),
        ("HTTP/1.1 101 \x1b[2J\r\nUpgrade: \x1b[2J\r\n\r\n", ProtocolViolation, "WebSocket"),
        ("", ConnectionLost, "closed"),
        ("HTTP/1.1 10", ConnectionLost, "closed"),
    ],
)
async def test_an_answer_that_opens_no_websocket_is_refused_in_words(
    answer: str, kind: type[CasemateError], words: str
) -> None:
    async def story(peer: Peer) -> None:
        await request(peer)
        await peer.say(answer.encode("latin-1"))

    error = await refused(story)
    assert type(error) is kind
    assert words in str(error)
    assert "\x1b" not in str(error)


@pytest.mark.parametrize(
    "extra",
    [
        "",
        "Sec-WebSocket-Protocol: chat\r\n",
        "Sec-WebSocket-Protocol: mqtt, chat\r\n",
        "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
    ],
)
async def test_a_websocket_on_other_terms_is_refused(extra: str) -> None:
    """[MQTT-6.0.0-4] for those without the subprotocol."""
    error = await refused(lambda peer: agree(peer, extra))
    assert isinstance(error, ProtocolViolation)


async def test_a_handshake_without_an_answer_ends_at_the_deadline() -> None:
    async def story(peer: Peer) -> None:
        await peer.gone()

    error = await refused(story, connect_timeout_s=0.2)
    assert isinstance(error, DeadlinePassed)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (frame(CONNACK_5, 1), "sent text"),  # [MQTT-6.0.0-1]
        (b"\xc2\x05" + CONNACK_5, "broke the WebSocket protocol"),  # a reserved bit
        (b"\x83\x00", "broke the WebSocket protocol"),  # a reserved opcode
        (b"\x82\x85\x00\x00\x00\x00" + CONNACK_5, "broke the WebSocket protocol"),  # masked
        (frame(CONNACK_5, 0), "broke the WebSocket protocol"),  # goes on with nothing
        (b"\x82\x7f" + (2**40).to_bytes(8), "too large"),
        (b"\x82\x7f" + (2**63).to_bytes(8), ""),
        (b"\x89\x7e\x00\x7e" + bytes(126), "broke the WebSocket protocol"),  # a long ping
        (frame(b"\x03\xe8" + b"\xff", 8), "broke the WebSocket protocol"),  # no UTF-8
    ],
)
async def test_frames_that_break_the_protocol_end_the_connection(frames: bytes, words: str) -> None:
    async def story(peer: Peer) -> None:
        await agree(peer)
        await peer.say(frames)
        await peer.gone()

    error = await refused(story)
    assert isinstance(error, ProtocolViolation)
    assert words in str(error)


async def test_a_close_frame_is_a_lost_connection() -> None:
    async def story(peer: Peer) -> None:
        await agree(peer)
        await peer.say(frame(b"\x03\xe9bye", 8))
        await peer.gone()

    error = await refused(story)
    assert isinstance(error, ConnectionLost)


async def test_frames_behind_the_handshake_in_one_segment_are_read() -> None:
    """CONNACK and a message arrive with the handshake's end, in fragments, a ping between."""

    async def story(peer: Peer) -> None:
        key = (await request(peer))["sec-websocket-key"]
        head = f"{ACCEPT}Sec-WebSocket-Accept: {accept_key(key)}\r\nSec-WebSocket-Protocol: mqtt"
        packets = CONNACK_5 + publish(0, 0)
        await peer.say(
            head.encode()
            + b"\r\n\r\n"
            + frame(packets[:3], fin=False)
            + frame(b"ping", 9)
            + frame(b"", 0, fin=False)
            + frame(packets[3:], 0)
        )
        await peer.gone()

    async with hostile(story) as port, client(port) as one:
        assert (await take(one, 1))[0].payload == b"x"


async def test_pings_of_a_peer_that_does_not_read_cannot_pile_up_answers() -> None:
    """The peer asks and asks and never reads; what the client holds must stay bounded."""

    async def story(peer: Peer) -> None:
        await agree(peer)
        await peer.say(frame(CONNACK_5))
        try:
            async with asyncio.timeout(1):
                while True:
                    await peer.say(frame(bytes(125), 9) * 500)
        except TimeoutError:
            stuck.set()
        await peer.gone()

    stuck = asyncio.Event()
    async with hostile(story) as port, client(port, reconnect=False):
        # The peer can only stop because the client has stopped to read.
        async with asyncio.timeout(10):
            await stuck.wait()


async def test_debugging_does_not_tell_the_headers(caplog: pytest.LogCaptureFixture) -> None:
    async def story(peer: Peer) -> None:
        await agree(peer)
        await peer.say(frame(CONNACK_5))
        await peer.gone()

    with caplog.at_level(logging.DEBUG):
        headers = [("Authorization", "hunter22")]
        async with hostile(story) as port, client(port, websocket_headers=headers):
            pass
    assert "hunter22" not in caplog.text


async def test_closing_says_goodbye_in_both_layers() -> None:
    async def story(peer: Peer) -> None:
        await agree(peer)
        await peer.say(frame(CONNACK_5))
        said.set_result(await peer.reader.read())

    said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with hostile(story) as port:
        async with client(port):
            pass
        rest = await asyncio.wait_for(said, 5)
    # CONNECT, DISCONNECT and the goodbye, each masked in a frame of its own.
    opcodes = []
    while rest:
        size = rest[1] & 0x7F
        opcodes.append((rest[0], rest[1] >> 7))
        rest = rest[6 + size :]
    assert opcodes == [(0x82, 1), (0x82, 1), (0x88, 1)]
