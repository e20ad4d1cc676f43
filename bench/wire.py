"""A few bytes of MQTT 3.1.1 by hand: clients that are cheap, still, or do not read at all.

What a case needs beside the load of `casemate bench` and no client library gives: a subscriber that
never reads, a hundred thousand messages taken without one object for each, filters by the
thousand. Only for brokers of a measurement, on loopback.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from bench.peers import Reach

PATIENCE_S = 120
READ_BYTES = 256 * 1024
# Filters of one SUBSCRIBE: some KiB, which every broker takes.
FILTERS_EACH = 100
# A report under `$SYS/` that is whole, and the one that shows that it is.
REPORTS = 2
# Messages of QoS 1 that are unacknowledged at a time.
WINDOW = 1_000

_FILLER = b"x" * 57
_PUBACK = 0x40
_CONNACK, _PUBLISH, _SUBACK, _UNSUBACK, _PINGRESP = 0x20, 0x30, 0x90, 0xB0, 0xD0
_KINDS = 0xF0
_RETAINED = 0x01


class Wire:
    """One connection, which publishes at QoS 0 unless it says otherwise."""

    def __init__(
        self,
        reach: Reach,
        name: str,
        user: str = "some",
        *,
        slow: bool = False,
        lasting: bool = False,
    ) -> None:
        """Connects, and proves itself where the broker asks for it.

        Args:
            reach: The broker.
            name: Client id.
            user: One of those that the broker knows.
            slow: Let the kernel hold as little as it can for who does not read.
            lasting: Go on with the session of this name, which then outlives the connection.

        Raises:
            RuntimeError: The broker refuses it or does not answer.
        """
        self._socket = socket.socket()
        self._held = bytearray()
        self._next_id = 0
        try:
            if slow:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self._socket.settimeout(PATIENCE_S)
            self._socket.connect(("127.0.0.1", reach.port))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.resumed = self._greet(name, user, reach.proofs.get(user), lasting=lasting)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Wire:
        """Gives itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Says goodbye where that is possible without waiting, and closes."""
        try:
            self._socket.settimeout(0)
            self._socket.sendall(b"\xe0\x00")
        except OSError:
            # A broker that has ended it before is no fault of this side.
            pass
        finally:
            self._socket.close()

    def fileno(self) -> int:
        """The socket, for `select`."""
        return self._socket.fileno()

    def publish(self, topic: str, payload: bytes) -> None:
        """Publishes one message."""
        self.send(message(topic, payload))

    def send(self, packets: bytes | bytearray) -> None:
        """Sends packets that were made before.

        Raises:
            RuntimeError: The broker takes nothing, or has closed.
        """
        try:
            self._socket.sendall(packets)
        except OSError as error:
            raise RuntimeError(f"the broker takes nothing: {error}") from error

    def settle(self) -> None:
        """Waits until the broker has taken in all that was sent: it answers in order."""
        self.send(b"\xc0\x00")
        self._await(_PINGRESP)

    def subscribe(self, filters: Sequence[str], qos: int = 0) -> None:
        """Subscribes, so many filters at a time, and waits until all are granted.

        Raises:
            RuntimeError: One is refused.
        """
        for granted in self._ask(0x82, _SUBACK, filters, bytes([qos])):
            if any(code > 2 for code in granted):
                raise RuntimeError("the broker refused a subscription")

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Takes subscriptions back, and waits until all are gone."""
        for _ in self._ask(0xA2, _UNSUBACK, filters, b""):
            pass

    def messages(self) -> Iterator[tuple[bool, bytes, bytes]]:
        """Yields messages as they come, without end: retained, topic, payload."""
        while True:
            kind, body = self._take()
            if kind & _KINDS == _PUBLISH:
                length = int.from_bytes(body[:2], "big")
                yield bool(kind & _RETAINED), body[2 : 2 + length], body[2 + length :]

    def arrived(self) -> Iterator[bytes]:
        """Reads once, and yields the payload of each message that is here whole then."""
        self._fill()
        while (packet := self._held_packet()) is not None:
            kind, body = packet
            if kind & _KINDS == _PUBLISH:
                yield body[2 + int.from_bytes(body[:2], "big") :]

    def count(self, most: int) -> None:
        """Takes so many messages and looks at none.

        Raises:
            RuntimeError: Nothing came for `PATIENCE_S`, or the broker closed.
        """
        got = 0
        while got < most:
            kind, _ = self._take()
            got += kind & _KINDS == _PUBLISH

    def keep(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publishes at QoS 1, so many at a time, and waits until all of it is acknowledged.

        Raises:
            RuntimeError: The broker answers something else, or nothing.
        """
        rest = iter(messages)
        while some := list(islice(rest, WINDOW)):
            numbered = enumerate(some, 1)
            packets = [_packet(0x32, _text(to) + _two(at) + what) for at, (to, what) in numbered]
            self.send(b"".join(packets))
            for _ in some:
                kind, _ = self._take()
                if kind != _PUBACK:
                    raise RuntimeError("the broker does not acknowledge a message")

    def fetch(self, topic: str, count: int) -> None:
        """Takes and acknowledges messages of QoS 1 whose payloads are `numbered`, in order.

        Whole reads are looked at by column, as one object for each message would be slower than
        the broker.

        Raises:
            RuntimeError: One is missing, out of order or not as it was.
        """
        packet = _packet(0x32, _text(topic) + _two(1) + numbered(0))
        size, at_id = len(packet), len(packet) - len(numbered(0)) - 2
        taken = 0
        while taken < count:
            some = min(len(self._held) // size, count - taken)
            if not some:
                self._fill()
                continue
            block = bytes(self._held[: some * size])
            del self._held[: some * size]
            expected = b"".join(numbered(taken + index) for index in range(some))
            width = len(numbered(0))
            got = b"".join(block[at : at + width] for at in range(at_id + 2, len(block), size))
            if got != expected or block[::size].strip(b"\x32\x3a"):
                raise RuntimeError(f"message {taken:,} or one after it is not what it should be")
            answers = bytearray(b"\x40\x02\x00\x00" * some)
            answers[2::4], answers[3::4] = block[at_id::size], block[at_id + 1 :: size]
            self.send(answers)
            taken += some

    def replay(self, topic_filter: str, most: int) -> None:
        """Subscribes, and takes so many messages, which may come before the answer.

        Raises:
            RuntimeError: As `count`, or the subscription is refused.
        """
        self.send(_packet(0x82, b"\x00\x01" + _text(topic_filter) + b"\x00"))
        got, granted = 0, False
        while got < most or not granted:
            kind, body = self._take()
            if kind & _KINDS == _PUBLISH:
                got += 1
            elif kind & _KINDS == _SUBACK:
                if body[2] > 2:
                    raise RuntimeError("the broker refused a subscription")
                granted = True

    # Inside

    def _greet(self, name: str, user: str, password: str | None, *, lasting: bool) -> bool:
        self.send(_connect(name, user, password, lasting=lasting))
        _, body = self._await(_CONNACK)
        if body[1] != 0:
            raise RuntimeError(f"the broker refuses {name}: return code {body[1]}")
        return bool(body[0])

    def _ask(
        self, kind: int, answer: int, filters: Sequence[str], behind: bytes
    ) -> Iterator[bytes]:
        for first in range(0, len(filters), FILTERS_EACH):
            self._next_id = self._next_id % 65_535 + 1
            packet_id = self._next_id.to_bytes(2, "big")
            asked = b"".join(_text(one) + behind for one in filters[first : first + FILTERS_EACH])
            self.send(_packet(kind, packet_id + asked))
            _, body = self._await(answer)
            if body[:2] != packet_id:
                raise RuntimeError("the broker answered another packet")
            yield body[2:]

    def _await(self, kind: int) -> tuple[int, bytes]:
        """Waits for a packet; messages that come before it are dropped."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            got, body = self._take()
            if got & _KINDS == kind:
                return got, body
        raise RuntimeError(f"no answer after {PATIENCE_S} s")

    def _take(self) -> tuple[int, bytes]:
        """Waits for the next packet: its first byte, and what is behind its length."""
        while (packet := self._held_packet()) is None:
            self._fill()
        return packet

    def _held_packet(self) -> tuple[int, bytes] | None:
        """Gives the next packet that is here whole."""
        held, length = self._held, 0
        for at in range(1, min(len(held), 5)):
            length |= (held[at] & 0x7F) << 7 * (at - 1)
            if held[at] < 0x80:
                ends = at + 1 + length
                if len(held) < ends:
                    return None
                packet = held[0], bytes(held[at + 1 : ends])
                del held[:ends]
                return packet
        if len(held) >= 5:
            raise RuntimeError("the broker sends no MQTT")
        return None

    def _fill(self) -> None:
        try:
            more = self._socket.recv(READ_BYTES)
        except OSError as error:
            raise RuntimeError(f"the broker sends nothing: {error}") from error
        if not more:
            raise RuntimeError("the broker closed the connection")
        self._held += more


def numbered(number: int) -> bytes:
    """Gives the payload of 64 bytes of a message that has a number below ten million."""
    return b"%07d" % number + _FILLER


def message(topic: str, payload: bytes, *, retain: bool = False) -> bytes:
    """Makes a message of QoS 0."""
    return _packet(_PUBLISH | (_RETAINED if retain else 0), _text(topic) + payload)


def dropped(reach: Reach) -> int:
    """Gives how many messages a broker says that it dropped, by its next report under `$SYS/`.

    Raises:
        RuntimeError: It makes no such report.
    """
    topic, uptime = b"$SYS/broker/publish/messages/dropped", b"$SYS/broker/uptime"
    count, reports = 0, 0
    with Wire(reach, "bench-dropped", "all") as wire:
        wire.subscribe([topic.decode(), uptime.decode()])
        for retained, said, payload in wire.messages():
            if said == topic:
                count = int(payload)
            elif said == uptime and not retained:
                reports += 1
                # The first may have been begun before this; between the two all of it has come.
                if reports == REPORTS:
                    return count
    raise RuntimeError("the broker does not say how many messages it dropped")


def _connect(name: str, user: str, password: str | None, *, lasting: bool) -> bytes:
    # No keep-alive: who measures says when it ends.
    flags, proof = 0x00 if lasting else 0x02, b""
    if password is not None:
        flags, proof = flags | 0xC0, _text(user) + _text(password)
    return _packet(0x10, _text("MQTT") + bytes([4, flags, 0, 0]) + _text(name) + proof)


def _packet(kind: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(digits) + body


def _two(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded
