"""What a client sends and receives: messages, their properties, and the will."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from casemate import native
from casemate.client.topic import topic_fault

Payload = bytes | bytearray | memoryview | str


@dataclass(frozen=True, slots=True)
class Properties:
    """Holds what MQTT 5.0 lets travel with a message; older versions send none of it.

    Attributes:
        payload_is_text: True says that the payload is UTF-8; None says nothing.
        message_expiry_s: Seconds after which nobody wants it any more.
        content_type: What the payload is, such as `application/json`.
        response_topic: Where an answer should go.
        correlation_data: What an answer should repeat.
        user: Pairs of text, in order; names may repeat.

    Example:
        ```python
        from casemate import Broker
        from casemate.client import Properties

        async with Broker() as broker, broker.client("probe") as client:
            await client.subscribe("lab/#", qos=1)
            said = Properties(content_type="text/plain", user=(("unit", "K"),))
            await client.publish("lab/1", "294.6", qos=1, properties=said)
            came = (await anext(client.messages)).properties
            print(came.content_type, came.user)  # text/plain (('unit', 'K'),)
        ```
    """

    payload_is_text: bool | None = None
    message_expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()

    def arguments(self) -> dict[str, Any]:
        """Gives them as the encoder's keyword arguments."""
        return {
            "payload_is_text": self.payload_is_text,
            "message_expiry_s": self.message_expiry_s,
            "content_type": self.content_type,
            "response_topic": self.response_topic,
            "correlation_data": self.correlation_data,
            "user": list(self.user),
        }


NO_PROPERTIES = Properties()


@dataclass(frozen=True, slots=True)
class Message:
    """Holds one message that a broker delivered.

    Attributes:
        topic: Topic name, aliases already resolved.
        payload: The bytes as they were published.
        qos: 0, 1 or 2: the quality of this delivery.
        retain: True where it was stored before the subscription asked for it.
        duplicate: True where the broker sends it again (QoS 1 and 2).
        properties: What travels with it.
        subscription_ids: Numbers of the subscriptions that it answers.
        receipt: What `Client.acknowledge` calls; only there with `acknowledge_by_hand`.
        packet_id: What the broker has numbered this delivery by, for diagnosis; None for QoS 0.

    Example:
        ```python
        from casemate import Broker, Message

        async with Broker() as broker, broker.client("probe") as client:
            await client.publish("lab/door", "closed", qos=1, retain=True)
            await client.subscribe("lab/#", qos=1)
            message: Message = await anext(client.messages)
            print(message.topic, message.text, message.retain)  # lab/door closed True
        ```
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    properties: Properties
    subscription_ids: tuple[int, ...]
    receipt: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    packet_id: int | None = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The payload read as UTF-8.

        Raises:
            UnicodeDecodeError: It is something else.
        """
        return self.payload.decode()


@dataclass(frozen=True, slots=True)
class Will:
    """Holds the message that a broker publishes when this client is lost.

    Attributes:
        topic: Topic name.
        payload: Any bytes, at most 65,535; text is sent as UTF-8.
        qos: 0, 1 or 2.
        retain: Whether it is stored.
        delay_s: Seconds that the broker waits for the client to return (5.0).
        properties: What travels with it (5.0).

    Example:
        ```python
        from casemate import Will
        from casemate.testing import ThrowAwayBroker

        with ThrowAwayBroker() as broker, broker.relay() as relay:
            watching = broker.client("desk").blocking()
            will = Will("t7/is", "gone", qos=1)
            lost = broker.client("t7", through=relay, will=will, reconnect=False).blocking()
            with watching, lost:
                watching.subscribe("t7/is", qos=1)
                relay.cut()
                print(watching.messages.take(timeout_s=5).text)  # gone
        ```
    """

    topic: str
    payload: Payload = b""
    qos: int = 0
    retain: bool = False
    delay_s: int | None = None
    properties: Properties = NO_PROPERTIES

    def native(self) -> native.Will:
        """Gives the will as the encoder takes it.

        Raises:
            ValueError: The topic or the QoS cannot be.
        """
        fault = topic_fault(self.topic)
        if fault is not None:
            raise ValueError(f"invalid topic name of the will: {fault}")
        return native.Will(
            self.topic,
            to_bytes(self.payload),
            qos=self.qos,
            retain=self.retain,
            delay_s=self.delay_s,
            **self.properties.arguments(),
        )


def to_bytes(payload: Payload) -> bytes:
    """Gives the bytes of a payload; text is written as UTF-8."""
    return payload.encode() if isinstance(payload, str) else bytes(payload)


def from_packet(packet: native.Publish, topic: str) -> Message:
    """Makes the message of a PUBLISH whose alias stands for `topic`."""
    user = packet.user
    properties = NO_PROPERTIES
    if (
        user
        or packet.payload_is_text is not None
        or packet.message_expiry_s is not None
        or packet.content_type is not None
        or packet.response_topic is not None
        or packet.correlation_data is not None
    ):
        properties = Properties(
            packet.payload_is_text,
            packet.message_expiry_s,
            packet.content_type,
            packet.response_topic,
            packet.correlation_data,
            tuple(user),
        )
    return Message(
        topic,
        packet.payload,
        packet.qos,
        packet.retain,
        packet.dup,
        properties,
        tuple(packet.subscription_ids),
        packet_id=packet.packet_id,
    )
