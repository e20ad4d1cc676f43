"""What is asked of each client: one table of scenarios, run over every client and transport."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.interop.clients import Client, PeerFault, Running
from tests.interop.conftest import RunningLab
from tests.interop.relay import Relay

KEEP_S = 300
LARGE_BYTES = 300 * 1024

# Not authorized and bad user name or password, in 3.1.1 and in 5.0; some tell it in words only.
REFUSALS = {4, 5, 0x86, 0x87}
REFUSAL = re.compile(r"not ?authori[sz]ed|bad ?user", re.IGNORECASE)


@dataclass
class Stage:
    """Is where a scenario plays: a lab, one client library, one version, one transport."""

    lab: RunningLab
    peer: Running
    version: str
    transport: str
    _relays: list[Relay] = field(default_factory=list)
    _open: list[Client] = field(default_factory=list)

    def way(self, user: str = "all") -> dict[str, Any]:
        """Gives the way to the lab."""
        return asdict(self.lab.transport(self.transport, user))

    def relayed(self) -> tuple[Relay, dict[str, Any]]:
        """Gives a relay to the lab, and the way through it."""
        way = self.way()
        relay = self.relay(way["port"])
        return relay, {**way, "port": relay.port}

    def relay(self, port: int, *cuts: int) -> Relay:
        """Gives a relay to a port, which makes these cuts by itself."""
        one = Relay(port, *cuts)
        self._relays.append(one)
        return one

    def client(
        self,
        *filters: str,
        way: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401 - of the line.
    ) -> Client:
        """Gives a client that is connected and subscribed."""
        one = Client(self.peer)
        self.open(one, *filters, way=way, **options)
        self._open.append(one)
        return one

    def open(
        self,
        one: Client,
        *filters: str,
        way: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401 - of the line.
    ) -> None:
        """Connects a client, once more where it was dropped."""
        answer = one.open(way or self.way(), self.version, *filters, **options)
        assert "refused" not in answer, answer
        assert one.granted == [options.get("qos", 0)] * len(one.granted)

    def end(self) -> None:
        """Closes what is open; whatever has failed has been told already."""
        for one in self._open:
            if one.connected:
                with contextlib.suppress(PeerFault):
                    one.close()
        for relay in self._relays:
            relay.cut()


def topic() -> str:
    return f"public/{secrets.token_hex(6)}"


def delivered(qos: int) -> Callable[[Stage], None]:
    """Publish and subscribe at one QoS: each payload exact, and in order."""

    def play(stage: Stage) -> None:
        name = topic()
        subscriber = stage.client(f"{name}/#", qos=2)
        publisher = stage.client()
        payloads = [b"", bytes(range(256)), "größer".encode(), os.urandom(LARGE_BYTES)]
        payloads += [str(number).encode() for number in range(12)]
        assert publisher.publish(f"{name}/{qos}", *payloads, qos=qos) == [None] * len(payloads)
        found = subscriber.take(len(payloads))
        came = [one.payload for one in found]
        # What is not acknowledged has no order among connections.
        unordered = stage.peer.kind.apart and qos == 0
        assert (sorted(came) if unordered else came) == (
            sorted(payloads) if unordered else payloads
        )
        assert {(one.topic, one.qos, one.retain) for one in found} == {
            (f"{name}/{qos}", qos, False)
        }

    return play


def will(stage: Stage) -> None:
    """A cut publishes the will, a goodbye does not, unless it asks for it (reason 0x04)."""
    name = topic()
    watcher = stage.client(f"{name}/#", qos=1)

    def with_will(whose: str) -> dict[str, Any]:
        payload = f"{whose} is gone".encode().hex()
        return {"topic": f"{name}/{whose}", "payload": payload, "qos": 1, "retain": False}

    polite = stage.client("public/own", will=with_will("polite"))
    polite.close()
    if stage.peer.kind.wilful and stage.version == "5.0":
        assert watcher.take()[0].topic == f"{name}/polite"
    relay, way = stage.relayed()
    dying = stage.client("public/own", way=way, will=with_will("dying"))
    relay.cut()
    dying.drop()
    (found,) = watcher.take()
    assert (found.topic, found.payload) == (f"{name}/dying", b"dying is gone")
    watcher.publish(f"{name}/end", b"end", qos=1)
    assert watcher.take()[0].topic == f"{name}/end"


def retained(stage: Stage) -> None:
    """A retained message is kept, replayed to who comes later, and cleared."""
    name = topic()
    publisher = stage.client()
    publisher.publish(name, b"kept", qos=1, retain=True)
    (found,) = stage.client(name, qos=1).take()
    assert (found.payload, found.retain) == (b"kept", True)
    publisher.publish(name, b"", qos=1, retain=True)
    later = stage.client(name, qos=1)
    publisher.publish(name, b"live", qos=1)
    (found,) = later.take()
    assert (found.payload, found.retain) == (b"live", False)


def resumed(stage: Stage) -> None:
    """A session outlives a cut: what came meanwhile arrives once and in order."""
    name = topic()
    kept: dict[str, Any] = {"clean": False, "keep_s": KEEP_S}
    relay, way = stage.relayed()
    subscriber = stage.client(f"{name}/#", way=way, qos=2, **kept)
    assert subscriber.present in (False, None)
    relay.cut()
    subscriber.drop()
    publisher = stage.client()
    for qos in (1, 2):
        publisher.publish(f"{name}/{qos}", *(bytes([number]) for number in range(6)), qos=qos)
    stage.open(subscriber, **kept)
    assert subscriber.present in (stage.version != "3.1", None)
    found = subscriber.take(12)
    for qos in (1, 2):
        own = [one for one in found if one.topic == f"{name}/{qos}"]
        assert [one.payload for one in own] == [bytes([number]) for number in range(6)]
        assert {one.qos for one in own} == {qos}
    publisher.publish(f"{name}/end", b"end", qos=2)
    assert subscriber.take()[0].payload == b"end"
    subscriber.close()
    stage.open(subscriber, f"{name}/#", qos=2)
    assert subscriber.present in (False, None)


CUTS_BYTES = (900, 1_100, 1_300)


def _interrupted(stage: Stage, sends: bool) -> None:
    name = topic()
    way = stage.way()
    relay = stage.relay(way["port"], *CUTS_BYTES)
    cut: dict[str, Any] = {
        "way": {**way, "port": relay.port},
        "clean": False,
        "keep_s": KEEP_S,
        "reconnect": True,
    }
    subscriber = stage.client(name, qos=2, **({} if sends else cut))
    publisher = stage.client(**(cut if sends else {}))
    sent = [f"{number:032}".encode() for number in range(48)]
    publisher.publish(name, *sent, qos=2)
    found = [one.payload for one in subscriber.take(len(sent))]
    # Whoever sends out of order is owed no order; once is once all the same.
    assert (sorted(found) if sends and stage.peer.kind.shuffles else found) == sent
    stage.client().publish(name, b"end", qos=2)
    assert subscriber.take()[0].payload == b"end"
    assert relay.is_through


def interrupted_sender(stage: Stage) -> None:
    """Its connection is cut at any byte and it connects again: each message once, in order."""
    _interrupted(stage, sends=True)


def interrupted_receiver(stage: Stage) -> None:
    """Its connection is cut at any byte and it connects again: each message once, in order."""
    _interrupted(stage, sends=False)


def refused(stage: Stage) -> None:
    """Who proves nothing is refused: by a password, or by a certificate where one is required."""
    way = stage.way()
    if stage.transport == "mtls":
        strangers: list[dict[str, str | None]] = [{"cert_file": None, "key_file": None}]
    else:
        strangers = [
            {"password": "not this one"},
            {"username": "nobody"},
            {"username": None, "password": None},
        ]
    for other in strangers:
        try:
            answer = Client(stage.peer).open({**way, **other}, stage.version, "public/#")
        except PeerFault:
            # A handshake that failed is all that the client sees where TLS refuses.
            assert stage.transport == "mtls"
            continue
        reason = answer.get("refused")
        assert reason in REFUSALS or REFUSAL.search(str(reason)), answer


def denied(stage: Stage) -> None:
    """A topic without a right is not heard, and what is published there is not delivered."""
    one = Client(stage.peer)
    answer = one.open(stage.way(), stage.version, "$private/#", qos=1)
    # 3.1 has no code for it: the broker grants what it will never deliver.
    assert stage.version == "3.1" or answer["granted"] in ([0x80], [0x87]), answer
    one.close()
    if stage.transport == "mtls":
        # The lab's only certificate may publish to all topics.
        return
    name = f"secret/{secrets.token_hex(6)}"
    watcher = stage.client(name, f"{name}/end", qos=1)
    ordinary = stage.client("public/own", way=stage.way("some"))
    try:
        reasons = ordinary.publish(name, b"not for you", qos=1)
    except PeerFault:
        # Before 5.0 the only answer to a publish without a right is the end of the connection.
        reasons = []
    assert stage.version != "5.0" or stage.peer.kind.silent or reasons != [None]
    watcher.publish(f"{name}/end", b"end", qos=1)
    assert watcher.take()[0].payload == b"end"


def properties(stage: Stage) -> None:
    """User properties and content type arrive as they were sent, in their order."""
    name = topic()
    subscriber = stage.client(name, qos=1)
    user = [("a", "1"), ("b", "2"), ("b", "3")]
    publisher = stage.client()
    publisher.publish(name, b"x", qos=1, user=user, content_type="text/plain")
    (found,) = subscriber.take()
    assert (found.user, found.content_type) == (user, "text/plain")


def aliases_sent(stage: Stage) -> None:
    """The client replaces a topic by an alias, and the broker knows what it means."""
    name = topic()
    subscriber = stage.client(name, qos=1)
    publisher = stage.client()
    assert publisher.publish(name, b"first", qos=1, alias=1) == [None]
    assert publisher.publish("", b"second", qos=1, alias=1) == [None]
    found = subscriber.take(2)
    assert [(one.topic, one.payload) for one in found] == [(name, b"first"), (name, b"second")]


def aliases_received(stage: Stage) -> None:
    """The broker replaces a topic by an alias, and the client knows what it means."""
    name = topic()
    relay, way = stage.relayed()
    subscriber = stage.client(name, way=way, qos=1, alias_max=10)
    publisher = stage.client()
    publisher.publish(name, b"1", b"2", b"3", qos=1)
    assert [one.topic for one in subscriber.take(3)] == [name] * 3
    assert relay.witness.aliased == 2


def answered(stage: Stage) -> None:
    """A question carries where to answer, and the answer what it belongs to."""
    name = topic()
    correlation = b"\xff\x01\xfe"
    asking = stage.client(f"{name}/answer", qos=1)
    answering = stage.client(f"{name}/question", qos=1)
    asking.publish(
        *(f"{name}/question", b"?"),
        qos=1,
        response_topic=f"{name}/answer",
        correlation=correlation.hex(),
    )
    (question,) = answering.take()
    assert question.response_topic == f"{name}/answer"
    answering.publish(question.response_topic, b"!", qos=1, correlation=question.correlation.hex())
    (answer,) = asking.take()
    assert (answer.payload, answer.correlation) == (b"!", correlation)


def identified(stage: Stage) -> None:
    """A message names the subscription that it comes for."""
    name = topic()
    subscriber = stage.client(f"{name}/+", qos=1, identifier=268)
    stage.client().publish(f"{name}/x", b"x", qos=1)
    assert subscriber.take()[0].identifiers == [268]


def shared(stage: Stage) -> None:
    """Members of a group get each message once between them."""
    name = topic()
    members = [stage.client(f"$share/{name[7:]}/{name}", f"{name}/end", qos=1) for _ in range(2)]
    publisher = stage.client()
    sent = [bytes([number]) for number in range(20)]
    publisher.publish(name, *sent, qos=1)
    publisher.publish(f"{name}/end", b"end", qos=1)
    found = []
    for member in members:
        while (one := member.take()[0]).payload != b"end":
            found.append(one.payload)
    assert sorted(found) == sent


def message_expiry(stage: Stage) -> None:
    """A message that waited for too long is gone, and another says how long it still has."""
    name = topic()
    kept: dict[str, Any] = {"clean": False, "keep_s": KEEP_S}
    relay, way = stage.relayed()
    subscriber = stage.client(name, way=way, qos=1, **kept)
    relay.cut()
    subscriber.drop()
    publisher = stage.client()
    publisher.publish(name, b"short", qos=1, expiry_s=1)
    publisher.publish(name, b"long", qos=1, expiry_s=600)
    time.sleep(2)
    stage.open(subscriber, **kept)
    (found,) = subscriber.take()
    assert found.payload == b"long"
    assert found.expiry_s is not None
    assert 540 <= found.expiry_s < 600


def session_expiry(stage: Stage) -> None:
    """A session whose time is over is gone with all that waited in it."""
    name = topic()
    kept: dict[str, Any] = {"clean": False, "keep_s": 1}
    relay, way = stage.relayed()
    subscriber = stage.client(name, way=way, qos=1, **kept)
    relay.cut()
    subscriber.drop()
    publisher = stage.client()
    publisher.publish(name, b"waits", qos=1)
    time.sleep(2.5)
    stage.open(subscriber, name, qos=1, **kept)
    assert subscriber.present in (False, None)
    publisher.publish(name, b"end", qos=1)
    assert subscriber.take()[0].payload == b"end"


def receive_maximum(stage: Stage) -> None:
    """No more messages are under way than the client takes at once, and all arrive."""
    name = topic()
    kept: dict[str, Any] = {"clean": False, "keep_s": KEEP_S, "receive_max": 3}
    relay, way = stage.relayed()
    subscriber = stage.client(f"{name}/+", way=way, qos=2, **kept)
    relay.cut()
    subscriber.drop()
    publisher = stage.client()
    sent = [bytes([number]) for number in range(20)]
    for qos in (1, 2):
        publisher.publish(f"{name}/{qos}", *sent, qos=qos)
    relay, way = stage.relayed()
    stage.open(subscriber, way=way, **kept)
    found = subscriber.take(40)
    for qos in (1, 2):
        assert [one.payload for one in found if one.topic == f"{name}/{qos}"] == sent
    assert relay.witness.unacknowledged_max == 3


def packet_maximum(stage: Stage) -> None:
    """A message that is longer than the client takes is not sent to it."""
    name = topic()
    relay, way = stage.relayed()
    subscriber = stage.client(name, way=way, qos=1, packet_bytes_max=1_000)
    publisher = stage.client()
    publisher.publish(name, bytes(3_000), b"short", qos=1)
    assert subscriber.take()[0].payload == b"short"
    assert relay.witness.packet_bytes_max <= 1_000


@dataclass(frozen=True)
class Scenario:
    """Is one row of the table.

    Attributes:
        name: Its key.
        title: How the table of results calls it.
        play: What is done.
        plain: It is about the protocol only, or about its bytes: TCP is enough.
        fifth: It needs MQTT 5.0, and is plain.
    """

    name: str
    title: str
    play: Callable[[Stage], None]
    fifth: bool = False
    plain: bool = False


SCENARIOS = (
    Scenario("qos0", "QoS 0", delivered(0)),
    Scenario("qos1", "QoS 1", delivered(1)),
    Scenario("qos2", "QoS 2", delivered(2)),
    Scenario("will", "will", will),
    Scenario("retained", "retained", retained),
    Scenario("resumed", "resumed", resumed),
    Scenario("interrupted_sender", "cut, sending", interrupted_sender, plain=True),
    Scenario("interrupted_receiver", "cut, receiving", interrupted_receiver, plain=True),
    Scenario("refused", "refused", refused),
    Scenario("denied", "denied", denied),
    Scenario("properties", "user properties", properties, fifth=True),
    Scenario("answered", "request and response", answered, fifth=True),
    Scenario("aliases_sent", "aliases sent", aliases_sent, fifth=True),
    Scenario("aliases_received", "aliases received", aliases_received, fifth=True),
    Scenario("identified", "subscription identifiers", identified, fifth=True),
    Scenario("shared", "shared subscriptions", shared, fifth=True),
    Scenario("message_expiry", "message expiry", message_expiry, fifth=True),
    Scenario("session_expiry", "session expiry", session_expiry, fifth=True),
    Scenario("receive_maximum", "receive maximum", receive_maximum, fifth=True),
    Scenario("packet_maximum", "maximum packet size", packet_maximum, fifth=True),
)
