"""The lines of JSON by which the tests drive a client of others, whatever it is written in.

A peer is a program. Each line that it reads is a step, each line that it writes an answer or news;
bytes travel in hexadecimal. What stands in brackets may be absent.

    {"id", "do": "open", "as", "way": {"name", "host", "port", ["path", "ca_file", "cert_file",
        "key_file", "username", "password"]}, "version": "3.1" | "3.1.1" | "5.0", "client_id",
        "clean", ["reconnect"], ["keep_s", "receive_max", "packet_bytes_max", "alias_max"],
        ["subscriptions": [{"filter", "qos", ["identifier"]}]],
        ["will": {"topic", "payload", "qos", "retain"}]}
        → {"id", "present": bool | null, "granted": [code]}, or {"id", "refused": code | text}
    {"id", "do": "publish", "as", "topic", "payload", "qos", "retain", ["user", "response_topic",
        "correlation", "content_type", "expiry_s", "alias"]}
        → {"id", ["reason": code | text | null]} when it is acknowledged
    {"id", "do": "close", "as"}  says goodbye → {"id"}
    {"id", "do": "drop", "as"}   forgets a client whose connection was cut → {"id"}

    {"as", "message": {"topic", "payload", "qos", "retain", ["user", "response_topic",
        "correlation", "content_type", "expiry_s", "identifiers"]}}

With "reconnect" a client connects again by itself when its connection is lost, as its library does
it, and neither subscribes again nor forgets what is unacknowledged. A step that cannot be taken is
answered by {"id", "fault": text}. Steps of one client are taken in the order of their lines; a peer
ends when there are no more lines.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from abc import ABC, abstractmethod
from typing import Any

Step = dict[str, Any]
Answer = dict[str, Any]


class Refused(Exception):
    """The broker has refused a connection; the argument is its code, or a text that tells it."""


class Peer(ABC):
    """Is one client, as the peers that are written in Python have it."""

    def __init__(self, step: Step) -> None:
        """Takes the step that opens it; nothing is connected yet."""
        self.step = step

    @abstractmethod
    async def open(self) -> Answer:
        """Connects and subscribes; raises `Refused` where the broker refuses."""

    @abstractmethod
    async def publish(self, step: Step) -> Answer:
        """Publishes, and returns when that is acknowledged."""

    @abstractmethod
    async def close(self) -> None:
        """Says goodbye."""

    @abstractmethod
    async def drop(self) -> None:
        """Forgets a connection that was cut."""

    def news(self, message: dict[str, Any]) -> None:
        """Tells of a message that came."""
        write({"as": self.step["as"], "message": message})


_writing = threading.Lock()


def write(line: dict[str, Any]) -> None:
    """Writes one line, whole; from any thread."""
    text = json.dumps(line) + "\n"
    with _writing:
        sys.stdout.write(text)
        sys.stdout.flush()


def serve(kind: type[Peer]) -> None:
    """Takes steps until there are no more lines."""
    asyncio.run(_serve(kind))


async def _serve(kind: type[Peer]) -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    queues: dict[str, asyncio.Queue[Step]] = {}
    tasks = set()
    while line := await lines.get():
        step: Step = json.loads(line)
        name = step["as"]
        if name not in queues:
            queues[name] = asyncio.Queue()
            tasks.add(asyncio.create_task(_run(kind, queues[name])))
        queues[name].put_nowait(step)
        if step["do"] in ("close", "drop"):
            del queues[name]


async def _run(kind: type[Peer], steps: asyncio.Queue[Step]) -> None:
    peer: Peer | None = None
    while True:
        step = await steps.get()
        answer: Answer = {}
        try:
            if step["do"] == "open":
                peer = kind(step)
                answer = await peer.open()
            elif peer is None:
                answer = {"fault": "it was never opened"}
            elif step["do"] == "publish":
                answer = await peer.publish(step)
            elif step["do"] == "close":
                await peer.close()
            else:
                await peer.drop()
        except Refused as refused:
            answer = {"refused": refused.args[0]}
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is told.
            answer = {"fault": f"{type(error).__name__}: {error}"}
        write({"id": step["id"], **answer})
        if step["do"] in ("close", "drop"):
            return
