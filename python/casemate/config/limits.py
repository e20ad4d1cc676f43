"""The limits: what one peer, and all together, may ask of the broker."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StrictInt, model_validator

from casemate.config.section import CONNECTIONS_MAX, Section, contradiction

_BYTES_MAX = 2**40


class Limits(Section):
    """Bounds what one peer, and all together, may ask of the broker.

    Attributes:
        packet_bytes_max: Largest MQTT packet, 128 B–268,435,460 B (what the protocol can say).
        keep_alive_s_max: Longest keep-alive, 5–65,535 s; a client that asks for more, or for
            none, gets this one. 1200 s is what large public brokers allow.
        connect_deadline_s: Time from accept to a complete CONNECT, 1–300 s.
        session_expiry_s_max: Longest life of a session without a connection,
            0–4,294,967,294 s; no session lives for ever.
        sessions_max: Sessions kept, with and without a connection, 1–10,000,000.
        connections_max: Connections open at once, 1–1,000,000.
        subscriptions_per_session_max: Filters of one session, 1–1,000,000.
        receive_max: QoS 1 and 2 messages a client may send before it is answered, 1–65,535.
        inflight_max: QoS 1 and 2 messages sent to a client before it answers, 1–65,535.
        topic_alias_max: Topic aliases a client may set, 0–65,535.
        topic_levels_max: Levels of a topic or filter, 1–1,024.
        queue_messages_max: Messages waiting for one session, 1–10,000,000.
        queue_bytes_max: Bytes waiting for one session, 128 B–1 TiB, at least one packet.
        retained_max: Retained messages, 0–100,000,000; 0 refuses them all.
        retained_bytes_max: Bytes of retained messages, 0 B–1 TiB.
    """

    packet_bytes_max: Annotated[StrictInt, Field(ge=128, le=268_435_460)] = 1_048_576
    keep_alive_s_max: Annotated[StrictInt, Field(ge=5, le=65_535)] = 1_200
    connect_deadline_s: Annotated[StrictInt, Field(ge=1, le=300)] = 10
    session_expiry_s_max: Annotated[StrictInt, Field(ge=0, le=4_294_967_294)] = 604_800
    sessions_max: Annotated[StrictInt, Field(ge=1, le=10_000_000)] = 100_000
    connections_max: Annotated[StrictInt, Field(ge=1, le=CONNECTIONS_MAX)] = 10_000
    subscriptions_per_session_max: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 1_000
    receive_max: Annotated[StrictInt, Field(ge=1, le=65_535)] = 1_024
    inflight_max: Annotated[StrictInt, Field(ge=1, le=65_535)] = 1_024
    topic_alias_max: Annotated[StrictInt, Field(ge=0, le=65_535)] = 64
    topic_levels_max: Annotated[StrictInt, Field(ge=1, le=1_024)] = 32
    queue_messages_max: Annotated[StrictInt, Field(ge=1, le=10_000_000)] = 10_000
    queue_bytes_max: Annotated[StrictInt, Field(ge=128, le=_BYTES_MAX)] = 67_108_864
    retained_max: Annotated[StrictInt, Field(ge=0, le=100_000_000)] = 100_000
    retained_bytes_max: Annotated[StrictInt, Field(ge=0, le=_BYTES_MAX)] = 268_435_456

    @model_validator(mode="after")
    def _refusecontradictions(self) -> Self:
        # A packet that is admitted but fits no queue would be acknowledged and then lost.
        if self.queue_bytes_max < self.packet_bytes_max:
            raise contradiction(
                "queue_bytes_max",
                "a queue must hold at least one packet of packet_bytes_max",
                f"use at least {self.packet_bytes_max}, or lower packet_bytes_max",
            )
        if self.retained_max > 0 and self.retained_bytes_max < self.packet_bytes_max:
            raise contradiction(
                "retained_bytes_max",
                "the retained store must hold at least one packet of packet_bytes_max",
                f"use at least {self.packet_bytes_max}, or retained_max = 0 for none at all",
            )
        if self.sessions_max < self.connections_max:
            raise contradiction(
                "sessions_max",
                "every connection needs a session",
                f"use at least {self.connections_max}, or lower connections_max",
            )
        return self
