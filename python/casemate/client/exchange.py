"""What a client and a broker say to each other over one connection after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from casemate import native
from casemate.client.delivery import Delivery
from casemate.client.link import Link, Packet
from casemate.client.message import Properties, from_packet
from casemate.client.session import (
    Incoming,
    Session,
    Subscription,
    fail,
    refusal,
    words,
)
from casemate.errors import ClientError, ProtocolViolation, Refused

ALIASES_MAX = 32
"""Topic aliases that the broker may set."""

_REFUSAL = 0x80
_PACKET_ID_NOT_FOUND = 0x92

Answer = native.Suback | native.Unsuback
Encode = Callable[[int, int], bytes]
"""Makes a request out of a packet id and the largest packet that the broker takes."""


class Exchange:
    """Joins the session, the inbox and the connection that there is at the moment.

    Attributes:
        version: 3, 4 or 5.
        delivery: Where messages go.
        session: What outlives the connection.
        link: The connection; None while there is none.
    """

    def __init__(self, version: int, delivery: Delivery, receive_max: int) -> None:
        """Starts without a connection.

        Args:
            version: 3, 4 or 5.
            delivery: Where messages go.
            receive_max: QoS 1 and 2 messages that the broker may have on their way to us.
        """
        self.version = version
        self.delivery = delivery
        self.session: Session = Session()
        self.link: Link | None = None
        self._receive_max = receive_max
        self._requests: dict[int, asyncio.Future[Answer]] = {}
        self._changed = asyncio.Event()

    def take(self, packet: Packet) -> None:
        """Takes a packet from the connection."""
        if isinstance(packet, native.Publish):
            self._take_publish(packet)
        elif isinstance(packet, native.Ack):
            self._take_ack(packet)
        elif isinstance(packet, native.Suback | native.Unsuback):
            answer = self._requests.get(packet.packet_id)
            if answer is not None and not answer.done():
                answer.set_result(packet)
        elif isinstance(packet, native.Disconnect):
            raise _farewell(packet)
        elif not isinstance(packet, native.Pingresp):
            raise ProtocolViolation(f"the broker sent {type(packet).__name__.upper()} unasked")

    def is_full(self, *, overdraft: bool) -> bool:
        """Says whether so many messages wait for the program that reading should stop."""
        return self.delivery.is_full(overdraft=overdraft)

    async def changed(self) -> None:
        """Waits until a message was taken, or somebody began to await an answer."""
        await self.delivery.changed()

    def is_waiting(self) -> bool:
        """Says whether an answer is awaited."""
        return bool(self._requests) or any(
            not message.done.done() for message in self.session.outgoing.values()
        )

    def overdrawn(self) -> None:
        """Fails whoever awaits an answer behind messages that nobody takes."""
        error = ClientError(
            f"{self.delivery.waiting()} messages wait to be taken, and an answer waits behind them",
            hint="iterate over client.messages, or the subscription's, in a task of its own",
        )
        for message in self.session.outgoing.values():
            fail(message.done, error)
        self.fail_requests(error)

    def encode(
        self, link: Link, topic: str, data: bytes, retain: bool, properties: Properties
    ) -> bytes:
        """Gives a PUBLISH of QoS 0.

        Raises:
            Refused: It is larger than the broker takes.
        """
        try:
            return native.encode_publish(
                self.version,
                topic,
                data,
                retain=retain,
                packet_bytes_max=link.limits.packet_bytes_max,
                **properties.arguments(),
            )
        except native.TooLarge as error:
            raise too_large(error) from None

    def pump(self) -> None:
        """Sends what the broker's receive maximum has room for [MQTT-3.3.4-7]."""
        link, session = self.link, self.session
        if link is None:
            return
        while session.unsent and session.in_flight() < link.limits.receive_max:
            _, message = session.unsent.popitem(last=False)
            if message.stage == "released":
                link.write(native.encode_ack(self.version, "pubrel", message.packet_id))
                continue
            try:
                data = message.encode(
                    self.version, link.limits.packet_bytes_max, dup=message.stage == "sent"
                )
            except native.TooLarge as error:
                session.drop(message)
                fail(message.done, too_large(error))
                continue
            message.stage = "sent"
            link.write(data)

    async def ask(self, link: Link, encode: Encode) -> Answer:
        """Sends a request and waits for its answer on the same connection.

        Raises:
            ConnectionLost: The connection ended first.
            Refused: The request is larger than the broker takes.
        """
        while not self.session.has_free_id():
            await self.change()
        packet_id = self.session.fresh_id()
        answer: asyncio.Future[Answer]
        answer = asyncio.get_running_loop().create_future()
        self.session.requests.add(packet_id)
        self._requests[packet_id] = answer
        try:
            link.write(encode(packet_id, link.limits.packet_bytes_max))
            self.delivery.wake()
            await link.drain()
            either: list[asyncio.Future[Any]] = [answer, link.lost]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise link.lost.result()
        except native.TooLarge as error:
            raise too_large(error) from None
        finally:
            self.session.requests.discard(packet_id)
            self._requests.pop(packet_id, None)

    def subscribe_packet(self, subscription_id: int | None, lines: list[Subscription]) -> Encode:
        """Gives what makes the SUBSCRIBE of these lines."""
        return lambda packet_id, packet_bytes_max: native.encode_subscribe(
            self.version,
            packet_id,
            [one.line() for one in lines],
            subscription_id=subscription_id,
            packet_bytes_max=packet_bytes_max,
        )

    def unsubscribe_packet(self, filters: list[str]) -> Encode:
        """Gives what makes the UNSUBSCRIBE of these filters."""
        return lambda packet_id, packet_bytes_max: native.encode_unsubscribe(
            self.version, packet_id, filters, packet_bytes_max=packet_bytes_max
        )

    def granted(self, lines: list[Subscription], answer: Answer) -> Refused | None:
        """Keeps what was granted; gives the first refusal."""
        if len(answer.codes) != len(lines):
            raise ProtocolViolation("the broker answered another number of filters than asked")
        refused = None
        for one, code in zip(lines, answer.codes, strict=True):
            if code < _REFUSAL:
                self.session.subscriptions[one.filter] = one
            else:
                self.session.subscriptions.pop(one.filter, None)
                refused = refused or refusal(
                    f'the subscription to "{one.filter}"', code, answer.reason_string
                )
        return refused

    def fail_requests(self, error: ClientError) -> None:
        """Tells whoever awaits an answer that none will come."""
        for answer in self._requests.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()
        self._requests.clear()

    def tell_change(self) -> None:
        """Wakes whoever waits for a connection or a free packet id."""
        self._changed.set()

    async def change(self) -> None:
        """Waits until there is a connection, its end, or a free packet id."""
        self._changed.clear()
        await self._changed.wait()

    def _take_publish(self, packet: native.Publish) -> None:
        link = self.link
        if link is None:
            return
        topic = packet.topic
        if packet.topic_alias is not None:
            topic = _resolve(link, packet.topic_alias, topic)
        packet_id, subscribed = packet.packet_id, self.session.subscriptions
        if packet_id is None:
            self.delivery.put(from_packet(packet, topic), None, subscribed)
            return
        known = self.session.incoming.get(packet_id)
        # A QoS 2 message is the same until PUBREL [MQTT-4.3.3-10]; one of QoS 1 that still waits
        # here is the same where the broker says that it repeats it.
        if known is not None and (packet.qos == 2 or packet.dup):
            known.owed = True
            self.session.line_up(packet_id, packet.qos, known)
            self._acknowledge(link, packet.qos)
            return
        if self.version == 5 and self._is_over_receive_max():  # [MQTT-3.3.4-9]
            raise ProtocolViolation("the broker sent more at once than was allowed")
        state = Incoming()
        self.session.incoming[packet_id] = state
        qos = packet.qos
        self.session.line_up(packet_id, qos, state)
        self.delivery.put(from_packet(packet, topic), lambda: self._receipt(qos, state), subscribed)

    def _is_over_receive_max(self) -> bool:
        incoming = self.session.incoming
        if len(incoming) < self._receive_max:
            return False
        # What an earlier connection brought and this one has not repeated does not count.
        return sum(state.owed for state in incoming.values()) >= self._receive_max

    def _receipt(self, qos: int, state: Incoming) -> None:
        """Hears that the program has the message."""
        state.taken = True
        if self.link is not None:
            self._acknowledge(self.link, qos)

    def _acknowledge(self, link: Link, qos: int) -> None:
        """Tells the broker of all that the program has, in the order in which it came."""
        for packet_id in self.session.ready(qos):
            if qos == 1:
                del self.session.incoming[packet_id]
            kind = "puback" if qos == 1 else "pubrec"
            link.write(native.encode_ack(self.version, kind, packet_id))

    def _take_ack(self, ack: native.Ack) -> None:
        link = self.link
        if link is None:
            return
        version, session = self.version, self.session
        if ack.kind == "pubrel":
            known = session.incoming.pop(ack.packet_id, None) is not None
            reason = 0 if known or version < 5 else _PACKET_ID_NOT_FOUND
            link.write(native.encode_ack(version, "pubcomp", ack.packet_id, reason))
            return
        if session.acknowledge(ack):
            known = ack.packet_id in session.outgoing
            reason = 0 if known or version < 5 else _PACKET_ID_NOT_FOUND
            link.write(native.encode_ack(version, "pubrel", ack.packet_id, reason))
        self.pump()
        self._changed.set()


def _resolve(link: Link, alias: int, topic: str) -> str:
    if alias > ALIASES_MAX:
        raise ProtocolViolation(f"the broker used topic alias {alias}, which was not offered")
    if topic:
        link.aliases[alias] = topic
        return topic
    known = link.aliases.get(alias)
    if known is None:
        raise ProtocolViolation(f"the broker used topic alias {alias} before it gave it a topic")
    return known


def _farewell(packet: native.Disconnect) -> Refused:
    return Refused(
        f"the broker ended the connection: {words(packet.reason)}",
        reason_code=packet.reason,
        cause=packet.reason_string or "",
    )


def too_large(error: native.TooLarge) -> Refused:
    """Makes the client's error of a packet that the broker does not take."""
    message, _packet_bytes, _packet_bytes_max = error.args
    return Refused(
        f"the broker does not take it: {message}",
        reason_code=0x95,
        hint="send less at once, or raise packet_bytes_max at the broker",
    )
