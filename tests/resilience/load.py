"""Load for a broker in a process of its own: publishers that count what was acknowledged."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from casemate import config
from casemate.client import Client
from casemate.errors import ClientError
from casemate.home import Home, LocalIdentity
from tests.unit.python.commands import Running, running
from tests.unit.python.test_reload import tls

READER = "reader"
WRITERS = ("w1", "w2", "w3", "w4")

_PARALLEL = 8
"""Messages that one publisher has under way."""


@dataclass
class Ledger:
    """Holds what was promised and what came.

    Attributes:
        acknowledged: Payload of each message whose publisher holds an acknowledgement, by QoS.
        received: How often each payload came.
        lost: Errors of clients, which all are lost connections.
    """

    acknowledged: dict[int, set[str]] = field(default_factory=lambda: {1: set(), 2: set()})
    received: Counter[str] = field(default_factory=Counter)
    lost: list[ClientError] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def promise(self, qos: int, payload: str) -> None:
        """Notes that a message was acknowledged."""
        self.acknowledged[qos].add(payload)
        self._news.set()

    def receive(self, payload: str) -> None:
        """Notes that a message came."""
        self.received[payload] += 1
        self._news.set()

    async def until(self, holds: Callable[[], bool], within_s: float = 60.0) -> None:
        """Waits until what is noted here makes something true."""
        async with asyncio.timeout(within_s):
            while not holds():
                self._news.clear()
                await self._news.wait()

    @property
    def promised(self) -> int:
        """How many messages were acknowledged."""
        return sum(len(payloads) for payloads in self.acknowledged.values())

    def missing(self) -> set[str]:
        """What was acknowledged and never came."""
        return set().union(*self.acknowledged.values()) - set(self.received)

    def doubled(self) -> set[str]:
        """What came more than once and must not have."""
        return {payload for payload in self.acknowledged[2] if self.received[payload] > 1}


class Scene:
    """Is a home with the identities that the load needs, listening on one TLS port."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        """Makes the home; `options` are lines of `casemate.toml`."""
        self.home = folder / "home"
        self.port = port
        Home.init(self.home)
        self.options = "".join(f"{line}\n" for line in options)
        self.listen(tls(port))
        opened = Home.open(self.home)
        for name in (READER, *WRITERS):
            opened.add_device(name, "operator")

    def listen(self, listeners: str) -> None:
        """Writes `casemate.toml`."""
        (self.home / config.FILE_NAME).write_text(self.options + listeners)

    def renew(self) -> None:
        """Gives the home another server certificate."""
        issued = Home.open(self.home).authority().issue_server(["localhost", "127.0.0.1"])
        (self.home / config.SERVER_KEY).write_bytes(issued.key_pem)
        (self.home / config.SERVER_CERTIFICATE).write_bytes(issued.chain_pem)

    def identity(self, name: str) -> LocalIdentity:
        """Gives the files of an identity."""
        return Home.open(self.home).local_identity(name)

    def client(self, name: str, client_id: str = "") -> Client:
        """Gives a client that never connects again by itself: a lost connection is an error."""
        files = self.identity(name)
        return Client(
            "127.0.0.1",
            self.port,
            client_id=client_id or name,
            ca_file=files.ca,
            cert_file=files.certificate,
            key_file=files.key,
            reconnect=False,
        )

    @contextmanager
    def served(self) -> Iterator[Running]:
        """Serves the home in a process of its own."""
        with running("run", "--home", self.home) as one:
            one.until("listening")
            yield one


async def read(client: Client, ledger: Ledger) -> None:
    """Counts what arrives until the connection ends."""
    with suppress(ClientError):
        async for message in client.messages:
            ledger.receive(message.text)


async def write(scene: Scene, name: str, qos: int, ledger: Ledger, over: asyncio.Event) -> None:
    """Publishes, several messages at a time, until it is over or the connection is lost."""
    numbers = itertools.count()

    async def publish(client: Client) -> None:
        while not over.is_set():
            payload = f"{name}-{qos}-{next(numbers)}"
            await client.publish(f"load/{name}", payload, qos=qos)
            ledger.promise(qos, payload)

    try:
        async with scene.client(name, f"{name}-{qos}") as client, asyncio.TaskGroup() as group:
            for _ in range(_PARALLEL):
                group.create_task(publish(client))
    except* ClientError as lost:
        ledger.lost += [one for one in lost.exceptions if isinstance(one, ClientError)]
