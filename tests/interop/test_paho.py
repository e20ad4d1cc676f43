"""paho-mqtt against a lab: 3.1.1 and 5.0 over each transport at each QoS, and over cuts."""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.interop.conftest import REQUIRED, TRANSPORTS, RunningLab, Transport

if REQUIRED:
    import paho.mqtt.client as paho
else:
    paho = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_S = 15.0
VERSIONS = {"3.1.1": paho.MQTTv311, "5.0": paho.MQTTv5}


class Paho:
    """Is one paho client with its network thread."""

    def __init__(self, way: Transport, version: str, client_id: str, *, keep: bool = False) -> None:
        self.way = way
        self.version = version
        self.keep = keep
        self.messages: queue.Queue[Any] = queue.Queue()
        self.connected: queue.Queue[tuple[bool, int]] = queue.Queue()
        self.subscribed: queue.Queue[list[int]] = queue.Queue()
        self.lost = threading.Event()
        session = {} if version == "5.0" else {"clean_session": not keep}
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=VERSIONS[version],
            **session,
        )
        if way.ca_file:
            self.client.tls_set(way.ca_file, way.cert_file, way.key_file)
        if way.username:
            self.client.username_pw_set(way.username, way.password)
        self.client.on_message = lambda _client, _data, message: self.messages.put(message)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda _c, _d, _mid, codes, _p: self.subscribed.put(
            [code.value for code in codes]
        )
        self.client.on_disconnect = lambda *_: self.lost.set()

    def _on_connect(
        self,
        _client: object,
        _data: object,
        flags: Any,  # noqa: ANN401 - paho's.
        reason: Any,  # noqa: ANN401 - paho's.
        _properties: object,
    ) -> None:
        self.connected.put((flags.session_present, reason.value))

    def connect(self) -> tuple[bool, int]:
        """Connects; gives session present and the reason."""
        extra: dict[str, Any] = {}
        if self.version == "5.0":
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 300 if self.keep else 0
            extra = {"clean_start": not self.keep, "properties": properties}
        self.client.connect(self.way.host, self.way.port, keepalive=30, **extra)
        self.client.loop_start()
        return self.connected.get(timeout=PATIENCE_S)

    def subscribe(self, topic: str, qos: int) -> list[int]:
        self.client.subscribe(topic, qos)
        return self.subscribed.get(timeout=PATIENCE_S)

    def publish(self, topic: str, payload: str, qos: int, *, retain: bool = False) -> None:
        info = self.client.publish(topic, payload, qos, retain=retain)
        info.wait_for_publish(PATIENCE_S)
        assert info.is_published()

    def take(self) -> Any:  # noqa: ANN401 - paho's.
        return self.messages.get(timeout=PATIENCE_S)

    def cut(self) -> None:
        """Closes the socket without DISCONNECT."""
        self.client.loop_stop()
        raw = self.client.socket()
        assert raw is not None
        raw.close()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def connected(way: Transport, version: str, client_id: str = "") -> Iterator[Paho]:
    one = Paho(way, version, client_id or f"paho-{secrets.token_hex(4)}")
    assert one.connect() == (False, 0)
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_of_each_qos_arrive_in_order(
    lab: RunningLab, transport: str, version: str
) -> None:
    way = lab.transport(transport)
    topic = f"public/{secrets.token_hex(4)}"
    with connected(way, version) as subscriber, connected(way, version) as publisher:
        assert subscriber.subscribe(f"{topic}/+", 2) == [2]
        for qos in (0, 1, 2):
            for number in range(20):
                publisher.publish(f"{topic}/{qos}", str(number), qos)
            found = [subscriber.take() for _ in range(20)]
            assert [(one.topic, one.qos) for one in found] == [(f"{topic}/{qos}", qos)] * 20
            assert [int(one.payload) for one in found] == list(range(20))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_retained_message_is_kept_and_deleted(lab: RunningLab, version: str) -> None:
    way = lab.transport("tls")
    topic = f"public/{secrets.token_hex(4)}"
    with connected(way, version) as publisher:
        publisher.publish(topic, "kept", 1, retain=True)
        with connected(way, version) as subscriber:
            subscriber.subscribe(topic, 1)
            assert (subscriber.take().payload, publisher.messages.qsize()) == (b"kept", 0)
        publisher.publish(topic, "", 1, retain=True)
        with connected(way, version) as subscriber:
            subscriber.subscribe(topic, 1)
            publisher.publish(topic, "live", 1)
            assert subscriber.take().payload == b"live"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_cut_publishes_the_will_and_a_goodbye_does_not(
    lab: RunningLab, transport: str, version: str
) -> None:
    way = lab.transport(transport)
    topic = f"public/{secrets.token_hex(4)}"
    with connected(way, version) as watcher:
        watcher.subscribe(f"{topic}/#", 1)
        polite = Paho(way, version, f"polite-{secrets.token_hex(4)}")
        polite.client.will_set(f"{topic}/polite", "will", 1)
        polite.connect()
        polite.close()
        dying = Paho(way, version, f"dying-{secrets.token_hex(4)}")
        dying.client.will_set(f"{topic}/dying", "will", 1)
        dying.connect()
        dying.cut()
        assert watcher.take().topic == f"{topic}/dying"
        watcher.publish(f"{topic}/end", "end", 1)
        assert watcher.take().topic == f"{topic}/end"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
def test_a_session_resumes_after_a_cut(lab: RunningLab, version: str, qos: int) -> None:
    way = lab.transport("tcp")
    name = f"back-{secrets.token_hex(4)}"
    topic = f"public/{name}"
    first = Paho(way, version, name, keep=True)
    assert first.connect() == (False, 0)
    first.subscribe(topic, qos)
    first.cut()
    with connected(way, version) as publisher:
        for number in range(10):
            publisher.publish(topic, str(number), qos)
    again = Paho(way, version, name, keep=True)
    assert again.connect() == (True, 0)
    assert [int(again.take().payload) for _ in range(10)] == list(range(10))
    again.close()
    forget = Paho(way, version, name)
    assert forget.connect() == (False, 0)
    forget.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_wrong_and_missing_passwords_are_refused(lab: RunningLab, version: str) -> None:
    way = lab.transport("tcp")
    for username, password in (("all", "wrong"), ("all", ""), ("nobody", "wrong"), (None, None)):
        one = Paho(way, version, "", keep=False)
        one.client.username_pw_set(username, password)
        present, reason = one.connect()
        assert not present
        # paho gives return codes 4 and 5 of 3.1.1 as the reasons that they stand for.
        assert reason in (0x86, 0x87), (username, password)
        one.client.loop_stop()


def test_user_properties_and_expiry_arrive_unchanged(lab: RunningLab) -> None:
    way = lab.transport("tls")
    topic = f"public/{secrets.token_hex(4)}"
    with connected(way, "5.0") as subscriber, connected(way, "5.0") as publisher:
        subscriber.subscribe(topic, 1)
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("b", "2"), ("a", "1"), ("b", "2")]
        properties.ContentType = "text/plain"
        properties.ResponseTopic = "public/answer"
        properties.CorrelationData = b"\x00\xff"
        properties.MessageExpiryInterval = 100
        publisher.client.publish(topic, "x", 1, properties=properties)
        found = subscriber.take().properties
        assert found.UserProperty == [("b", "2"), ("a", "1"), ("b", "2")]
        assert (found.ContentType, found.ResponseTopic) == ("text/plain", "public/answer")
        assert found.CorrelationData == b"\x00\xff"
        assert 95 <= found.MessageExpiryInterval <= 100


def test_large_messages_arrive_whole(lab: RunningLab) -> None:
    for transport in TRANSPORTS:
        way = lab.transport(transport)
        topic = f"public/{secrets.token_hex(4)}"
        payload = os.urandom(1_000_000)
        with connected(way, "5.0") as subscriber, connected(way, "3.1.1") as publisher:
            subscriber.subscribe(topic, 2)
            info = publisher.client.publish(topic, payload, 2)
            info.wait_for_publish(PATIENCE_S)
            assert subscriber.take().payload == payload
