"""MQTT over WebSocket: the handshake, and bytes in binary frames (MQTT 5.0 §6, RFC 6455).

`websockets` judges the frames and never touches a socket; what is read and written, and how much
may wait, is decided here.
"""

from __future__ import annotations

import logging

from websockets.client import ClientProtocol
from websockets.exceptions import (
    InvalidHandshake,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    PayloadTooBig,
)
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from casemate.client.address import Address, Door
from casemate.client.stream import Stream
from casemate.errors import (
    ClientError,
    ConnectionLost,
    ProtocolViolation,
    Refused,
    Unreachable,
)

SUBPROTOCOL = Subprotocol("mqtt")

_FRAME_BYTES_SPARE = 1_048_576
"""A frame may hold this much beside the largest packet: brokers put many packets into one."""

_WORDS_MAX = 200
_NORMAL = 1_000
_NOT_AUTHORIZED = 0x87

# The library's own debugging would write the headers of the handshake, and with them tokens.
_LOG = logging.getLogger("casemate.client.websocket")
_LOG.setLevel(logging.WARNING)


class WebSocketStream:
    """Carries bytes in the binary frames of a WebSocket."""

    def __init__(self, inner: Stream, protocol: ClientProtocol, address: Address) -> None:
        """Takes over a connection.

        Args:
            inner: Carries the frames.
            protocol: Judges them.
            address: For messages.
        """
        self._inner = inner
        self._protocol = protocol
        self._address = address
        self._ready: list[bytes] = []
        self._ended = False

    async def read(self) -> bytes:
        """Gives what has arrived in frames; nothing at the end."""
        while not self._ready and not self._ended:
            await self._receive()
        data, self._ready = b"".join(self._ready), []
        return data

    def write(self, data: bytes) -> None:
        """Sends a frame; after the goodbye of either side nothing leaves any more."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
            self._flush()

    async def drain(self) -> None:
        """Waits until the transport has room."""
        await self._inner.drain()

    def abort(self) -> None:
        """Closes at once."""
        self._inner.abort()

    async def close(self) -> None:
        """Says goodbye, waits for the peer's, and closes."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(_NORMAL)
            self._flush()
        while not self._ended:
            await self._receive()
            self._ready.clear()
        await self._inner.close()

    async def shake_hands(self, door: Door) -> None:
        """Asks for the WebSocket and waits until the peer has agreed.

        Raises:
            ClientError: It has not, and why.
        """
        request = self._protocol.connect()
        for name, value in door.headers:
            request.headers[name] = value
        self._protocol.send_request(request)
        self._flush()
        while self._protocol.state is State.CONNECTING:
            data = await self._inner.read()
            if not data:
                self._protocol.receive_eof()
            else:
                self._protocol.receive_data(data)
            refusal = self._protocol.handshake_exc
            if refusal is not None:
                raise _explain(refusal, self._address)
            if not data:
                raise ConnectionLost(f"{self._address} closed the connection")
        # [MQTT-6.0.0-4]: a peer that does not name it may speak anything over these frames.
        if self._protocol.subprotocol != SUBPROTOCOL:
            raise ProtocolViolation(
                f"{self._address} opened a WebSocket, but not for MQTT",
                hint=f'is "{door.path.partition("?")[0]}" the path of an MQTT broker?',
            )
        self._take_events()

    async def _receive(self) -> None:
        data = await self._inner.read()
        if not data:
            self._ended = True
            return
        self._protocol.receive_data(data)
        self._flush()
        # Pings are answered at the pace at which the answers are read, so that a peer that only
        # asks cannot make the answers pile up.
        await self._inner.drain()
        self._take_events()

    def _take_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event)
        error = self._protocol.parser_exc
        if isinstance(error, PayloadTooBig):
            raise ProtocolViolation(f"{self._address} sent a WebSocket frame that is too large")
        if error is not None and not isinstance(error, EOFError):
            raise ProtocolViolation(
                f"{self._address} broke the WebSocket protocol", cause=_words(error)
            )

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):
            if frame.data:  # Nothing would read as the end.
                self._ready.append(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:  # [MQTT-6.0.0-1]
            raise ProtocolViolation(f"{self._address} sent text over the WebSocket")
        elif frame.opcode is Opcode.CLOSE:
            self._ended = True

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:  # An empty one would half-close, which MQTT has no use for.
                self._inner.write(data)


async def upgrade(
    inner: Stream, address: Address, door: Door, packet_bytes_max: int
) -> WebSocketStream:
    """Makes a WebSocket of a connection.

    Args:
        inner: Fresh; the caller aborts it if this raises.
        address: For messages, and the name that the peer is asked under.
        door: Path and headers.
        packet_bytes_max: Largest packet that is read, in bytes.

    Raises:
        Refused: The peer lets nobody in, or not this client (401 and 403).
        Unreachable: The peer has no such path, or answers otherwise over HTTP.
        ProtocolViolation: The peer speaks no WebSocket, or not for MQTT.
        ConnectionLost: It closed instead of answering.
    """
    path, _, query = door.path.partition("?")
    port = address.port or 80
    uri = WebSocketURI(address.tls is not None, address.host, port, path, query)
    protocol = ClientProtocol(
        uri,
        # No extension is offered: compression would let a small frame become a large one.
        subprotocols=[SUBPROTOCOL],
        max_size=(None, packet_bytes_max + _FRAME_BYTES_SPARE),
        logger=_LOG,
    )
    stream = WebSocketStream(inner, protocol, address)
    await stream.shake_hands(door)
    return stream


def _explain(error: Exception, address: Address) -> ClientError:
    if isinstance(error, InvalidStatus):
        return _explain_status(error.response.status_code, address)
    if isinstance(error, NegotiationError):
        return ProtocolViolation(
            f"{address} opened a WebSocket on other terms than were offered", cause=_words(error)
        )
    if isinstance(error.__cause__, EOFError):
        return ConnectionLost(f"{address} closed the connection")
    if isinstance(error, InvalidUpgrade | InvalidHandshake):
        return ProtocolViolation(
            f"{address} does not speak WebSocket",
            cause=_words(error),
            hint="this may be the port of MQTT without WebSocket, or of another service",
        )
    return ProtocolViolation(f"{address} does not speak WebSocket", cause=type(error).__name__)


def _explain_status(status: int, address: Address) -> ClientError:
    if status in (401, 403):
        return Refused(
            f"{address} refused the WebSocket with HTTP status {status}",
            reason_code=_NOT_AUTHORIZED,
            hint="check user name, password and websocket_headers, and the broker's origins",
        )
    if 300 <= status < 400:
        return Unreachable(
            f"{address} answered with HTTP status {status}, a redirection, which is not followed",
            hint="name the place itself",
        )
    if status == 404:
        return Unreachable(
            f"{address} has no WebSocket on that path",
            cause=f"HTTP status {status}",
            hint='check the path; many brokers use "/mqtt"',
        )
    return Unreachable(
        f"{address} opened no WebSocket",
        cause=f"HTTP status {status}",
        hint="is this the port of a broker's WebSocket, and does it expect TLS?",
    )


def _words(error: BaseException) -> str:
    """Gives what the library says; what the peer wrote in it can do no harm on a terminal."""
    return ascii(str(error))[1:-1][:_WORDS_MAX]
