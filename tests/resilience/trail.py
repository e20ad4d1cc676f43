"""Clients of ours and of paho that live over the broker's deaths, and what each has seen."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from casemate import config
from casemate.client import Client
from casemate.home import Home
from tests.unit.python.commands import running
from tests.unit.python.test_reload import tls

PATIENCE_S = 60.0
KEPT_S = 3_600
WINDOW = 8
"""Messages that one publisher has under way."""

LEAD = 500
"""Messages that a writer's promises may be ahead of the slowest reader of ours.

Paho's threads would take all of a busy machine, and the readers would be given no time to prove
that nothing is lost."""

_RECONNECT_S = 0.2
_PAUSE_S = 0.005
_FAILED = 0x80
_RELEASED_BEFORE = 0x92
"""What answers a PUBREL whose first answer was lost with the broker (MQTT 5.0 §3.7.2.1)."""


class Trail:
    """Holds what was promised to writers and what readers got, from any thread."""

    def __init__(self) -> None:
        """Nothing has happened yet; belongs to the running loop."""
        self.promised: dict[str, list[int]] = defaultdict(list)
        self.got: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.refused: list[str] = []
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def promise(self, writer: str, number: int) -> None:
        """Notes that a message was acknowledged, of QoS 2 to its end."""
        with self._lock:
            self.promised[writer].append(number)
        self._tell()

    def refuse(self, words: str) -> None:
        """Notes that a broker which has all it needs refused something."""
        with self._lock:
            self.refused.append(words)
        self._tell()

    def receive(self, reader: str, topic: str, payload: str) -> None:
        """Notes that a message came."""
        with self._lock:
            self.got[reader][topic.rpartition("/")[2]].append(int(payload))
        self._tell()

    def lead(self, writer: str, readers: Iterable[str]) -> int:
        """How many messages this writer's promises are ahead of the slowest reader."""
        with self._lock:
            slowest = min(len(self.got[reader][writer]) for reader in readers)
            return len(self.promised[writer]) - slowest

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Waits until what is noted here makes something true."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    self._news.clear()
                    with self._lock:
                        if holds():
                            return
                    await self._news.wait()
        except TimeoutError as error:
            counts = {name: len(numbers) for name, numbers in self.promised.items()}
            got = {
                reader: {name: len(set(numbers)) for name, numbers in writers.items()}
                for reader, writers in self.got.items()
            }
            raise AssertionError(f"{what}: {counts}, got {got}, {self.refused}") from error

    def missing(self, reader: str) -> dict[str, set[int]]:
        """What was acknowledged and this reader has not got, by writer."""
        lost = {
            name: set(said) - set(self.got[reader][name]) for name, said in self.promised.items()
        }
        return {name: numbers for name, numbers in lost.items() if numbers}

    def doubled(self, reader: str) -> dict[str, set[int]]:
        """What this reader got more than once of writers of QoS 2."""
        found = {
            name: {one for one in numbers if numbers.count(one) > 1}
            for name, numbers in self.got[reader].items()
            if name.endswith("q2") and len(numbers) != len(set(numbers))
        }
        return {name: numbers for name, numbers in found.items() if numbers}

    def disordered(self, reader: str) -> list[str]:
        """Writers whose messages this reader has first seen in another order."""
        firsts = {name: list(dict.fromkeys(got)) for name, got in self.got[reader].items()}
        return [name for name, numbers in firsts.items() if numbers != sorted(numbers)]

    def _tell(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.set)


@dataclass(frozen=True)
class House:
    """Is a home on one TLS port with an identity for each client."""

    home: Path
    port: int

    @classmethod
    def build(cls, folder: Path, port: int, names: list[str], *options: str) -> House:
        """Makes it; `options` are lines of `casemate.toml` behind the listener."""
        Home.init(folder / "home")
        house = cls(folder / "home", port)
        text = tls(port) + "".join(f"{line}\n" for line in options)
        (house.home / config.FILE_NAME).write_text(text, encoding="utf-8")
        opened = Home.open(house.home)
        for name in names:
            opened.add_device(name, "operator")
        return house

    def served(self) -> Any:  # noqa: ANN401 - a context manager of a process.
        """Serves it in a process of its own."""
        return running("run", "--home", self.home)

    def ours(self, name: str, version: int) -> Client:
        """Gives a client of ours with a session that lasts."""
        files = Home.open(self.home).local_identity(name)
        return Client(
            "127.0.0.1",
            self.port,
            client_id=name,
            ca_file=files.ca,
            cert_file=files.certificate,
            key_file=files.key,
            version=version,
            clean_start=False,
            session_expiry_s=KEPT_S if version == 5 else 0,
            reconnect_s_max=_RECONNECT_S,
        )

    def theirs(self, name: str, version: int) -> paho.Client:
        """Gives a client of paho's with a session that lasts; not connected yet."""
        files = Home.open(self.home).local_identity(name)
        is_fifth = version == 5
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=paho.MQTTv5 if is_fifth else paho.MQTTv311,
            # At its second attempt in a row it publishes anew what it has released already: a
            # message of QoS 2 that would come twice by its own fault.
            reconnect_on_failure=False,
            **({} if is_fifth else {"clean_session": False}),
        )
        client.tls_set(str(files.ca), str(files.certificate), str(files.key))
        client.max_inflight_messages_set(WINDOW)
        return client


class PahoLife:
    """One client of paho's over many connections, in a thread for each."""

    def __init__(self, client: paho.Client, port: int) -> None:
        """Connects for the first time."""
        self.client = client
        extra: dict[str, Any] = {}
        if client.protocol == paho.MQTTv5:
            kept = Properties(PacketTypes.CONNECT)
            kept.SessionExpiryInterval = KEPT_S
            extra = {"clean_start": False, "properties": kept}
        client.connect("127.0.0.1", port, keepalive=30, **extra)
        self._thread = self._live()

    def come_back(self) -> None:
        """Connects again; the broker listens."""
        self._thread.join(PATIENCE_S)
        self.client.reconnect()
        self._thread = self._live()

    def close(self) -> None:
        """Says goodbye, and waits for the end."""
        self.client.disconnect()
        self._thread.join(PATIENCE_S)

    def _live(self) -> threading.Thread:
        # Not `loop_start`, which leaves two sockets open each time.
        living = threading.Thread(target=self.client.loop_forever, daemon=True)
        living.start()
        return living


async def write_ours(
    house: House, trail: Trail, name: str, version: int, over: asyncio.Event
) -> None:
    """Publishes numbers, some at a time and in order, until it is over and all is acknowledged."""
    qos = int(name[-1])

    async def publish(client: Client, number: int) -> None:
        await client.publish(f"load/{name}", str(number), qos=qos)
        trail.promise(name, number)

    under_way: set[asyncio.Task[None]] = set()
    async with house.ours(name, version) as client:
        for number in itertools.count():
            if over.is_set():
                break
            # Tasks begin in the order in which they were made, so that messages leave in it.
            under_way.add(asyncio.create_task(publish(client, number)))
            if len(under_way) >= WINDOW:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
        await asyncio.gather(*under_way)


async def read_ours(client: Client, trail: Trail, name: str) -> None:
    """Notes what arrives until it is cancelled."""
    async for message in client.messages:
        trail.receive(name, message.topic, message.text)


class PahoWriter:
    """Publishes numbers in order, as fast as they are acknowledged, until it is told to end.

    It waits where its promises are more than `LEAD` ahead of one of `readers`.
    """

    def __init__(
        self, house: House, trail: Trail, name: str, version: int, readers: Collection[str]
    ) -> None:
        """Connects and begins."""
        self._trail, self._name, self._qos = trail, name, int(name[-1])
        self._readers = readers
        self._numbers = itertools.count()
        self._sent: dict[int, int] = {}
        self._lock = threading.Lock()
        self._is_over = False
        self._client = house.theirs(name, version)
        self._client.on_publish = self._published
        # They wait in the client for its first connection.
        for _ in range(WINDOW):
            self._publish()
        self._life = PahoLife(self._client, house.port)

    def end(self) -> None:
        """Publishes nothing new."""
        self._is_over = True

    @property
    def is_done(self) -> bool:
        """Whether all that was published is acknowledged."""
        with self._lock:
            return self._is_over and not self._sent

    def come_back(self) -> None:
        """Connects again; the broker listens."""
        self._life.come_back()

    def close(self) -> None:
        """Ends its thread."""
        self._life.close()

    def _publish(self) -> None:
        with self._lock:
            number = next(self._numbers)
            # Without a connection it keeps the message for the next one.
            info = self._client.publish(f"load/{self._name}", str(number), self._qos)
            self._sent[info.mid] = number

    def _published(self, _c: Any, _d: Any, mid: int, reason: Any, _p: Any) -> None:  # noqa: ANN401
        with self._lock:
            number = self._sent.pop(mid)
        if reason.value >= _FAILED and reason.value != _RELEASED_BEFORE:
            self._trail.refuse(f"{self._name} {number}: {reason}")
        else:
            self._trail.promise(self._name, number)
        while not self._is_over and self._trail.lead(self._name, self._readers) > LEAD:
            time.sleep(_PAUSE_S)
        if not self._is_over:
            self._publish()


class PahoReader:
    """Subscribes each time, and notes what arrives."""

    def __init__(self, house: House, trail: Trail, name: str, version: int) -> None:
        """Connects and subscribes; returns when the broker has granted it."""
        granted = threading.Event()
        client = house.theirs(name, version)
        client.on_message = lambda _c, _d, found: trail.receive(
            name, found.topic, found.payload.decode()
        )
        client.on_subscribe = lambda *_: granted.set()
        client.on_connect = lambda *_: client.subscribe("load/#", qos=2)
        self._life = PahoLife(client, house.port)
        if not granted.wait(PATIENCE_S):
            raise AssertionError(f"{name} was granted nothing")

    def come_back(self) -> None:
        """Connects again; the broker listens."""
        self._life.come_back()

    def close(self) -> None:
        """Ends its thread."""
        self._life.close()
