"""One connection to a broker, from CONNECT to its end: reading, writing, keep alive."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from casemate import native
from casemate.client.address import Address
from casemate.client.explain import explain
from casemate.client.session import hint, words
from casemate.client.stream import Stream, open_stream
from casemate.errors import (
    ClientError,
    ConnectionLost,
    DeadlinePassed,
    ProtocolViolation,
    Refused,
)

Packet = (
    native.Publish
    | native.Ack
    | native.Suback
    | native.Unsuback
    | native.Pingresp
    | native.Disconnect
    | native.Auth
    | native.Connack
)

_WIRE_BYTES_MAX = 268_435_460
_RECEIVE_MAX = 65_535

_INFLIGHT_MAX_BEFORE_5 = 20
"""Older brokers cannot say how much they take at once, and some drop what is more than a little."""

_PROTOCOL_ERROR = 0x82

_PING_SHARE = 0.75
"""A ping leaves after this part of the keep alive, so that it arrives in time."""

_PING_ANSWER_S_MIN = 5.0
"""Least time that an answer to a ping may take, in seconds."""

_PING_LOOK_S = 0.5
"""How often the answer to a ping is looked for, in seconds."""

_HUNG_UP = {
    False: "does it expect TLS, or another protocol?",
    True: "the broker's log says why; it may know this client under another name",
}

_CLOSE_S = 2.0
"""Time that a closing connection may take to say goodbye, in seconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Says what the broker takes, as its CONNACK announced it.

    Attributes:
        receive_max: QoS 1 and 2 messages that may be on their way.
        packet_bytes_max: Largest packet, in bytes.
        qos_max: Highest QoS.
        retain: Whether it stores messages.
        keep_alive_s: In force on this connection; 0 is none.
        subscription_ids: Whether it tells which subscription a message answers (5.0).

    Example:
        ```python
        from casemate import Broker

        async with Broker() as broker, broker.client("probe") as client:
            limits = client.limits
            print(limits.qos_max, limits.retain, limits.keep_alive_s)  # 2 True 60
        ```
    """

    receive_max: int
    packet_bytes_max: int
    qos_max: int
    retain: bool
    keep_alive_s: int
    subscription_ids: bool


class Receiver(Protocol):
    """Is what a connection brings its packets to."""

    def take(self, packet: Packet) -> None:
        """Takes a packet; a ClientError that it raises ends the connection."""

    def is_full(self, *, overdraft: bool) -> bool:
        """Says whether so many messages wait for the program that reading should stop."""

    async def changed(self) -> None:
        """Waits until a message was taken, or somebody began to await an answer."""

    def is_waiting(self) -> bool:
        """Says whether somebody awaits an answer, so that reading must go on if it can."""

    def overdrawn(self) -> None:
        """Is told that an answer is awaited but cannot be read, as too many messages wait."""


class Link:
    """Carries packets for a client until it is lost; `lost` then holds why."""

    def __init__(
        self,
        address: Address,
        version: int,
        stream: Stream,
        packet_bytes_max: int,
    ) -> None:
        """Takes over a connected transport.

        Args:
            address: For messages.
            version: 3, 4 or 5.
            stream: As `open_stream` gave it.
            packet_bytes_max: Largest packet that is read, in bytes.
        """
        self._address = address
        self._version = version
        self._stream = stream
        self._decoder = native.Decoder(version, packet_bytes_max)
        self._early: list[Packet] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._sent_at = self._heard_at = time.monotonic()
        self._reading = True
        self.aliases: dict[int, str] = {}
        self.lost: asyncio.Future[ClientError] = asyncio.get_running_loop().create_future()
        self.limits: Limits = Limits(_RECEIVE_MAX, _WIRE_BYTES_MAX, 2, True, 0, False)

    @classmethod
    async def open(
        cls,
        address: Address,
        version: int,
        connect: bytes,
        keep_alive_s: int,
        packet_bytes_max: int,
        timeout_s: float,
    ) -> tuple[Link, native.Connack]:
        """Connects, sends CONNECT, and waits for the CONNACK that accepts it.

        Raises:
            Refused: The broker said no.
            ClientError: As `open_stream`, or the answer was none.
        """
        stream = await open_stream(address, packet_bytes_max, timeout_s)
        link = cls(address, version, stream, packet_bytes_max)
        try:
            async with asyncio.timeout(timeout_s):
                link.write(connect)
                connack = await link._first()
        except TimeoutError as error:
            link.abort()
            raise DeadlinePassed(
                f"{address} did not answer CONNECT within {timeout_s:g} s",
                hint="is this the port of an MQTT broker, and does it expect TLS?",
            ) from error
        except BaseException:
            link.abort()
            raise
        if connack.reason != 0:
            link.abort()
            raise Refused(
                f"{address} refused the connection: {words(connack.reason)}",
                reason_code=connack.reason,
                cause=connack.reason_string or "",
                hint=hint(connack.reason),
            )
        if connack.server_keep_alive_s is not None:  # [MQTT-3.1.2-21]
            keep_alive_s = connack.server_keep_alive_s
        link.limits = Limits(
            connack.receive_max or (_RECEIVE_MAX if version == 5 else _INFLIGHT_MAX_BEFORE_5),
            connack.packet_bytes_max or _WIRE_BYTES_MAX,
            2 if connack.qos_max is None else connack.qos_max,
            connack.retain_available is not False,
            keep_alive_s,
            version == 5 and connack.subscription_ids_available is not False,
        )
        return link, connack

    def start(self, receiver: Receiver) -> None:
        """Begins to read and to ping."""
        self._tasks = [
            asyncio.create_task(self._guard(partial(self._read, receiver))),
            asyncio.create_task(self._guard(self._ping)),
        ]

    def write(self, data: bytes) -> None:
        """Hands bytes to the transport; what it cannot take at once waits in memory."""
        if self.lost.done():
            return
        self._stream.write(data)
        self._sent_at = time.monotonic()

    async def drain(self) -> None:
        """Waits until the transport has room again.

        Raises:
            ConnectionLost: It never will.
        """
        if self.lost.done():
            raise self.lost.result()
        try:
            await self._stream.drain()
        except OSError as error:
            lost = self._explained(error)
            self.lose(lost)
            raise lost from error

    def lose(self, error: ClientError) -> None:
        """Gives the connection up; the first error stands."""
        if not self.lost.done():
            self.lost.set_result(error)
        self.abort()

    def abort(self) -> None:
        """Closes at once, without a word."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._stream.abort()

    async def close(self, goodbye: bytes) -> None:
        """Says goodbye and closes, within two seconds."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # A goodbye may have an answer, and only one can read.
            await asyncio.wait(self._tasks)
        with contextlib.suppress(OSError, TimeoutError, ClientError):
            async with asyncio.timeout(_CLOSE_S):
                self._stream.write(goodbye)
                await self._stream.drain()
                await self._stream.close()
        self.lose(ConnectionLost("the client was closed"))

    async def _first(self) -> native.Connack:
        while True:
            try:
                packets = await self._more()
            except ConnectionLost as error:
                # Whoever hangs up on CONNECT may have expected something else.
                error.hint = error.hint or _HUNG_UP[self._address.tls is not None]
                raise
            if packets:
                first, *self._early = packets
                if not isinstance(first, native.Connack):
                    raise ProtocolViolation(
                        f"{self._address} answered CONNECT by {type(first).__name__.upper()}"
                    )
                return first

    async def _more(self) -> list[Packet]:
        """Reads once; gives the packets that are complete now, perhaps none."""
        try:
            self._decoder.check()
            data = await self._stream.read()
            if not data:
                raise ConnectionLost(f"{self._address} closed the connection")
            packets = self._decoder.feed(data)
        except native.Malformed as error:
            message, _reason = error.args
            raise ProtocolViolation(
                f"{self._address} sent bytes that are no MQTT", cause=message
            ) from error
        except OSError as error:
            raise self._explained(error) from error
        self._heard_at = time.monotonic()
        return packets

    async def _read(self, receiver: Receiver) -> None:
        packets = self._early
        while True:
            for packet in packets:
                receiver.take(packet)
            while _must_wait(receiver):
                self._reading = False
                await receiver.changed()
            self._reading, self._heard_at = True, time.monotonic()
            packets = await self._more()

    async def _ping(self) -> None:
        keep_alive_s = self.limits.keep_alive_s
        if keep_alive_s == 0:
            return
        answer_s = max(keep_alive_s / 2, _PING_ANSWER_S_MIN)
        while True:
            # Sending alone proves nothing about the peer, so silence counts too.
            due = min(self._sent_at, self._heard_at) + keep_alive_s * _PING_SHARE
            asked_at = time.monotonic()
            if asked_at < due:
                await asyncio.sleep(due - asked_at)
                continue
            self.write(native.encode_pingreq())
            while self._heard_at < asked_at:
                left_s = asked_at + answer_s - time.monotonic()
                if not self._reading:
                    # Nothing is read while the program does not take its messages.
                    self._heard_at = time.monotonic()
                elif left_s <= 0:
                    raise ConnectionLost(f"{self._address} did not answer a ping in {answer_s:g} s")
                else:
                    await asyncio.sleep(min(left_s, _PING_LOOK_S))

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except ProtocolViolation as error:
            if self._version == 5:
                self.write(native.encode_disconnect(5, reason=_PROTOCOL_ERROR))
            self.lose(error)
        except ClientError as error:
            self.lose(error)
        except Exception:
            # A fault of ours must not leave a connection that looks alive; the task reports it.
            self.lose(ConnectionLost("the client failed"))
            raise

    def _explained(self, error: OSError) -> ClientError:
        return explain(error, self._address)


def _must_wait(receiver: Receiver) -> bool:
    """Says whether reading must stop until the program has taken messages."""
    if not receiver.is_full(overdraft=False):
        return False
    if not receiver.is_waiting():
        return True
    # An answer may stand behind what is not read yet; a program that publishes between two
    # messages would otherwise wait for itself.
    if receiver.is_full(overdraft=True):
        receiver.overdrawn()
        return True
    return False
