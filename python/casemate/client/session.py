"""What outlives a connection: messages on their way, subscriptions, and what was received.

Nothing here waits or touches a socket; the client asks and writes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from casemate import native
from casemate.client.message import Properties
from casemate.errors import ClientError, ConnectionLost, ProtocolViolation, Refused

PACKET_ID_MAX = 65_535

_PACKET_ID_NOT_FOUND = 0x92
_REFUSAL = 0x80


@dataclass(slots=True, eq=False)
class Outgoing:
    """Holds a message of QoS 1 or 2 until its last acknowledgement.

    Attributes:
        topic: Topic name.
        payload: Bytes.
        qos: 1 or 2.
        retain: Ask the broker to store it.
        properties: What travels with it.
        done: Gets the reason code of the last acknowledgement.
        packet_id: Given when it enters the session.
        stage: What the broker still owes: `new` was never sent, `sent` awaits PUBACK or PUBREC,
            `released` awaits PUBCOMP.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties
    done: asyncio.Future[int]
    packet_id: int = 0
    stage: Literal["new", "sent", "released"] = "new"

    def encode(self, version: int, packet_bytes_max: int, *, dup: bool) -> bytes:
        """Gives the PUBLISH.

        Raises:
            native.TooLarge: It passes what the broker takes.
        """
        return native.encode_publish(
            version,
            self.topic,
            self.payload,
            qos=self.qos,
            retain=self.retain,
            dup=dup,
            packet_id=self.packet_id,
            packet_bytes_max=packet_bytes_max,
            **self.properties.arguments(),
        )


@dataclass(frozen=True, slots=True)
class Subscription:
    """Holds one filter with its options, so that it can be restored.

    Attributes:
        filter: Topic filter, `$share/GROUP/…` included.
        qos: Highest quality that is wanted.
        no_local: Own messages are not wanted (5.0).
        retain_as_published: Keep the publisher's retain flag (5.0).
        retain_handling: 0 send what is stored, 1 only if the subscription is new, 2 never (5.0).
        subscription_id: Number that comes with each message, 1–268,435,455 (5.0).

    Example:
        ```python
        from casemate import Broker
        from casemate.client import Subscription

        async with Broker() as broker, broker.client("probe") as client:
            wanted = Subscription("lab/#", qos=1), Subscription("$share/desk/jobs/#", qos=2)
            print(await client.subscribe(*wanted))  # [1, 2]
        ```
    """

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    subscription_id: int | None = None

    def with_id(self, subscription_id: int | None) -> Subscription:
        """Gives the same with another id.

        Args:
            subscription_id: 1–268,435,455; None for none.
        """
        return replace(self, subscription_id=subscription_id)

    def line(self) -> tuple[str, int, bool, bool, int]:
        """Gives the line of a SUBSCRIBE."""
        return (
            self.filter,
            self.qos,
            self.no_local,
            self.retain_as_published,
            self.retain_handling,
        )


@dataclass(slots=True, eq=False)
class Incoming:
    """Says how far a received message of QoS 1 or 2 has come.

    Attributes:
        taken: The program has it.
        owed: This connection has brought it and not yet seen our last acknowledgement.
        in_line: It stands in `Session.lines`.
    """

    taken: bool = False
    owed: bool = True
    in_line: bool = False


@dataclass(slots=True)
class Session:
    """Keeps the client's half of an MQTT session.

    Attributes:
        subscriptions: What was granted, by filter.
        unwanted: Filters that a lost connection kept from being unsubscribed.
        outgoing: QoS 1 and 2 messages by packet id, in the order of their first sending.
        unsent: Those that this connection has not sent yet, in order.
        incoming: QoS 1 and 2 messages by packet id that are not acknowledged for good.
        lines: For QoS 1 and 2, packet ids whose first acknowledgement this connection owes, in the
            order in which it brought the messages [MQTT-4.6.0-2] [MQTT-4.6.0-3].
        requests: Packet ids of SUBSCRIBE and UNSUBSCRIBE that await their answer.
    """

    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    unwanted: set[str] = field(default_factory=set)
    outgoing: dict[int, Outgoing] = field(default_factory=dict)
    unsent: OrderedDict[int, Outgoing] = field(default_factory=OrderedDict)
    incoming: dict[int, Incoming] = field(default_factory=dict)
    lines: dict[int, deque[tuple[int, Incoming]]] = field(
        default_factory=lambda: {1: deque(), 2: deque()}
    )
    requests: set[int] = field(default_factory=set)
    _last_id: int = 0

    def has_free_id(self) -> bool:
        """Says whether another message or request may begin."""
        return len(self.outgoing) + len(self.requests) < PACKET_ID_MAX

    def fresh_id(self) -> int:
        """Gives a packet id that is not in use; `has_free_id` must hold [MQTT-2.2.1-3]."""
        candidate = self._last_id
        while True:
            candidate = candidate % PACKET_ID_MAX + 1
            if candidate not in self.outgoing and candidate not in self.requests:
                self._last_id = candidate
                return candidate

    def add(self, message: Outgoing) -> None:
        """Takes a message in; it is sent when the window allows."""
        message.packet_id = self.fresh_id()
        self.outgoing[message.packet_id] = message
        self.unsent[message.packet_id] = message

    def drop(self, message: Outgoing) -> None:
        """Forgets a message: it is acknowledged, or was never sent and nobody waits."""
        if self.outgoing.get(message.packet_id) is message:
            del self.outgoing[message.packet_id]
            self.unsent.pop(message.packet_id, None)

    def in_flight(self) -> int:
        """Gives how many messages this connection has sent without a last acknowledgement."""
        return len(self.outgoing) - len(self.unsent)

    def resume(self) -> None:
        """Prepares for a connection on which the broker still has the session [MQTT-4.4.0-1]."""
        self.unsent = OrderedDict(self.outgoing)
        for line in self.lines.values():
            line.clear()
        for state in self.incoming.values():
            state.owed = state.in_line = False

    def renew(self) -> None:
        """Prepares for a connection on which the broker has no session.

        A QoS 2 message that was sent may or may not have been published: sending it again could
        publish it twice, so that its publisher is told instead.
        """
        self.incoming.clear()
        for line in self.lines.values():
            line.clear()
        for message in list(self.outgoing.values()):
            if message.qos == 2 and message.stage != "new":
                del self.outgoing[message.packet_id]
                fail(
                    message.done,
                    ConnectionLost(
                        "the broker forgot the session while a QoS 2 message was on its way",
                        hint="it may have been published or not; a session that outlives the "
                        "connection (session_expiry_s, clean_start=False) would know",
                    ),
                )
            else:
                message.stage = "new"
        self.unsent = OrderedDict(self.outgoing)

    def line_up(self, packet_id: int, qos: int, state: Incoming) -> None:
        """Puts the first acknowledgement of a message in its place, where it is not there yet."""
        if not state.in_line:
            state.in_line = True
            self.lines[qos].append((packet_id, state))

    def ready(self, qos: int) -> Iterator[int]:
        """Takes out the packet ids that may be acknowledged now: the taken ones in front."""
        line = self.lines[qos]
        while line and line[0][1].taken:
            packet_id, state = line.popleft()
            state.in_line = False
            # A broker that has given the id to another message meanwhile gets no answer to both.
            if self.incoming.get(packet_id) is state:
                yield packet_id

    def acknowledge(self, ack: native.Ack) -> bool:
        """Takes a PUBACK, PUBREC or PUBCOMP; says whether it must be answered by PUBREL.

        Raises:
            ProtocolViolation: It acknowledges what was not sent that way.
        """
        message = self.outgoing.get(ack.packet_id)
        if message is None:
            # A PUBREC that comes twice is answered twice; other late ones say nothing new.
            return ack.kind == "pubrec" and ack.reason < _REFUSAL
        if message.stage == "new" or (ack.kind == "puback") != (message.qos == 1):
            raise ProtocolViolation(
                f"the broker answered packet {ack.packet_id} by {ack.kind.upper()}, "
                "which does not fit what was sent"
            )
        if ack.kind == "pubrec" and ack.reason < _REFUSAL:
            message.stage = "released"
            return True
        if ack.kind == "pubcomp" and message.stage != "released":
            raise ProtocolViolation("the broker sent PUBCOMP before PUBREC")
        self.drop(message)
        if ack.reason >= _REFUSAL and ack.reason != _PACKET_ID_NOT_FOUND:
            fail(
                message.done,
                refusal(f'the message to "{message.topic}"', ack.reason, ack.reason_string),
            )
        elif not message.done.done():
            message.done.set_result(ack.reason)
        return False

    def fail_all(self, error: ClientError) -> None:
        """Tells every publisher that nothing more will come."""
        for message in self.outgoing.values():
            fail(message.done, error)
        self.outgoing.clear()
        self.unsent.clear()

    def groups(self) -> Iterator[tuple[int | None, list[Subscription]]]:
        """Gives the subscriptions in the groups that one SUBSCRIBE each can carry."""
        groups: dict[int | None, list[Subscription]] = {}
        for subscription in self.subscriptions.values():
            groups.setdefault(subscription.subscription_id, []).append(subscription)
        yield from groups.items()


def refusal(what: str, reason: int, reason_string: str | None) -> Refused:
    """Makes the error of an answer that refuses.

    Args:
        what: What was refused, such as `the filter "a/#"`.
        reason: MQTT 5.0 reason code, 0x80–0xFF.
        reason_string: The broker's own words, if it gave some.
    """
    return Refused(
        f"the broker refused {what}: {words(reason)}",
        reason_code=reason,
        cause=reason_string or "",
        hint=hint(reason),
    )


def words(reason: int) -> str:
    """Gives a reason code in words."""
    return (native.reason_name(reason) or f"reason {reason:#04x}").lower()


def hint(reason: int) -> str:
    """Gives what helps against a refusal; may be empty."""
    return _HINTS.get(reason, "")


def fail(future: asyncio.Future[int], error: BaseException) -> None:
    """Ends a future with an error, if anybody still waits for it."""
    if not future.done():
        future.set_exception(error)
        # A publisher that was cancelled never looks; its error is not worth a warning.
        future.exception()


_HINTS = {
    0x84: "try version=4 (MQTT 3.1.1)",
    0x85: "choose another client id, or let the broker assign one",
    0x86: "check user name and password, or the certificate",
    0x87: "the policy does not allow it; at the broker the policy file says what is",
    0x89: "the broker is busy; try again in a moment",
    0x95: "send less at once, or raise packet_bytes_max at the broker",
    0x97: "a limit of the broker is reached; its configuration names it",
    0x9F: "wait before connecting again",
}
