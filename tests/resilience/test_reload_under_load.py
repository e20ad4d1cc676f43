"""Reload under load: certificates and listeners change, and nobody notices.

Publishers at QoS 1 and 2 over TLS with client certificates, a subscriber, and clients that come
and go all the time, while the server's certificate is renewed and listeners come and go.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from casemate.broker import Reload, ask_to_reload, read_status
from tests.resilience.load import READER, WRITERS, Ledger, Scene, read, write
from tests.unit.python.test_reload import free_port, shown, tcp, tls

PATIENCE_S = 30


class PahoPublisher:
    """Is somebody else's client, which publishes one message after another at QoS 1."""

    def __init__(self, scene: Scene) -> None:
        """Connects."""
        files = scene.identity(WRITERS[0])
        self.acknowledged: set[str] = set()
        self.disconnects = 0
        self._over = threading.Event()
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="paho", protocol=paho.MQTTv5
        )
        self._client.tls_set(str(files.ca), str(files.certificate), str(files.key))
        self._client.on_disconnect = self._note
        self._client.connect("127.0.0.1", scene.port, keepalive=60)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def stop(self) -> None:
        """Ends after the message that it is at, without counting the end as a loss."""
        self._over.set()
        self._thread.join(PATIENCE_S)
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def _note(self, *_: object) -> None:
        self.disconnects += 1

    def _publish(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            payload = f"paho-{number}"
            sent = self._client.publish("load/paho", payload, qos=1)
            sent.wait_for_publish(PATIENCE_S)
            if sent.is_published():
                self.acknowledged.add(payload)


@contextmanager
def publishing(scene: Scene) -> Iterator[PahoPublisher]:
    one = PahoPublisher(scene)
    try:
        yield one
    finally:
        one.stop()


async def come_and_go(scene: Scene, ledger: Ledger, over: asyncio.Event) -> int:
    """Connects again and again, so that some handshakes fall into each reload; counts them."""
    count = 0
    while not over.is_set():
        async with scene.client(WRITERS[-1], "passing") as client:
            payload = f"passing-{count}"
            await client.publish("load/passing", payload, qos=1)
            ledger.promise(1, payload)
        count += 1
    return count


async def reload_often(scene: Scene, times: int) -> list[Reload]:
    """Renews the certificate each time, and lets another listener come and go."""
    outcomes = []
    extra = free_port()
    for number in range(times):
        scene.listen(tls(scene.port) + (tcp(extra) if number % 2 == 0 else ""))
        await asyncio.to_thread(scene.renew)
        outcomes.append(await asyncio.to_thread(ask_to_reload, scene.home, PATIENCE_S))
    return outcomes


async def storm(scene: Scene, reloads: int) -> None:
    ledger, over = Ledger(), asyncio.Event()
    async with scene.client(READER) as reader:
        await reader.subscribe("load/#", qos=2)
        reading = asyncio.create_task(read(reader, ledger))
        with publishing(scene) as other:
            passing = asyncio.create_task(come_and_go(scene, ledger, over))
            writers = [
                asyncio.create_task(write(scene, name, qos, ledger, over))
                for name in WRITERS
                for qos in (1, 2)
            ]
            outcomes = await reload_often(scene, reloads)
            over.set()
            await asyncio.gather(*writers)
            passed = await passing
        ledger.acknowledged[1] |= other.acknowledged
        await ledger.until(lambda: not ledger.missing())
        assert reader.is_connected
        reading.cancel()
    assert ledger.lost == []
    assert other.disconnects == 0
    assert ledger.doubled() == set()
    assert [one.refused for one in outcomes] == [()] * reloads
    assert all("listener tls changed" in one.changed for one in outcomes)
    assert passed >= reloads
    assert len(other.acknowledged) > 0
    assert ledger.promised > 100 * reloads
    print(f"{reloads} reloads, {passed} connections, {ledger.promised} messages, none lost")


@pytest.mark.parametrize("shards", [1, 2])
def test_nobody_notices_a_reload(tmp_path: Path, shards: int) -> None:
    scene = Scene(tmp_path, free_port(), f"shards = {shards}")
    with scene.served() as one:
        before = shown(scene.port)
        asyncio.run(storm(scene, reloads=5))
        assert shown(scene.port) != before
        counters = read_status(scene.home).counters
        assert counters["handshake_failures"] == 0
        assert counters["taken_over"] == 0
        assert one.stop(signal.SIGTERM) == 0, one.text


@pytest.mark.soak
def test_nobody_notices_a_hundred_reloads(tmp_path: Path) -> None:
    scene = Scene(tmp_path, free_port(), "shards = 2")
    with scene.served() as one:
        asyncio.run(storm(scene, reloads=100))
        assert one.stop(signal.SIGTERM) == 0, one.text
