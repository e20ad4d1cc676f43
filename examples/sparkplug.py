"""An edge node of Sparkplug B: birth, data, rebirth on command, and death as its will.

Payloads are the protobuf of Sparkplug B, written by hand for the four kinds of value that it uses;
a program with more of them takes a protobuf library. It awaits no primary host (no STATE).

Run it against any broker: MQTT_URL=mqtts://broker.example MQTT_CA=ca.crt python sparkplug.py
"""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from casemate import Client, Message, Will
from casemate.errors import ConnectionLost

GROUP, NODE = "plant", "press-3"
REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"

Value = bool | int | float | str

_INT64, _DOUBLE, _BOOLEAN, _STRING = 4, 10, 11, 12


def topic(kind: str) -> str:
    """Gives the topic of a message of this node, such as NBIRTH."""
    return f"spBv1.0/{GROUP}/{kind}/{NODE}"


def encode(metrics: dict[str, Value], seq: int | None) -> bytes:
    """Gives a payload: fields 1 (time), 2 (metrics) and 3 (sequence) of Sparkplug's `Payload`."""
    now_ms = time.time_ns() // 1_000_000
    payload = _number(1, now_ms)
    for name, value in metrics.items():
        payload += _bytes(2, _metric(name, value, now_ms))
    return payload if seq is None else payload + _number(3, seq)


def asks_for_rebirth(payload: bytes) -> bool:
    """Says whether a command holds `Node Control/Rebirth = true`.

    Raises:
        ValueError: It is no protobuf.
    """
    for field, metric in _fields(payload):
        if field == 2 and isinstance(metric, bytes):
            found = dict(_fields(metric))
            if found.get(1) == REBIRTH.encode() and found.get(14) == 1:
                return True
    return False


class Node:
    """One session of an edge node: from its birth to its death.

    Attributes:
        bd_seq: Ties the death to the birth; each session has the next number.
    """

    def __init__(self, bd_seq: int) -> None:
        """Begins a session, whose number wraps at 256."""
        self.bd_seq = bd_seq % 256
        self._seq = itertools.count()

    def will(self) -> Will:
        """Gives the death certificate, which the broker publishes when the node is lost."""
        return Will(topic("NDEATH"), encode({BD_SEQ: self.bd_seq}, None), qos=1)

    async def run(self, one: Client, readings: AsyncIterator[dict[str, Value]]) -> None:
        """Is born, reports, and is born again on command."""
        latest: dict[str, Value] = {}
        async with one.subscription(topic("NCMD"), qos=1) as commands:
            reborn = asyncio.create_task(self._obey(one, commands, latest))
            try:
                async for reading in readings:
                    born = bool(latest)
                    latest.update(reading)
                    await (self._data(one, reading) if born else self._birth(one, latest))
            finally:
                reborn.cancel()

    async def _obey(
        self, one: Client, commands: AsyncIterator[Message], latest: dict[str, Value]
    ) -> None:
        async for command in commands:
            try:
                wanted = asks_for_rebirth(command.payload)
            except ValueError:
                continue  # Whoever sent that gets no answer; the next command is read.
            if wanted:
                await self._birth(one, latest)

    async def _birth(self, one: Client, latest: dict[str, Value]) -> None:
        """Tells all metrics at once, under sequence number 0."""
        self._seq = itertools.count()
        metrics = {BD_SEQ: self.bd_seq, REBIRTH: False, **latest}
        await one.publish(topic("NBIRTH"), encode(metrics, next(self._seq)))

    async def _data(self, one: Client, reading: dict[str, Value]) -> None:
        await one.publish(topic("NDATA"), encode(reading, next(self._seq) % 256))


def _metric(name: str, value: Value, now_ms: int) -> bytes:
    head = _bytes(1, name.encode()) + _number(3, now_ms)
    if isinstance(value, bool):  # Before int, of which it is a kind.
        return head + _number(4, _BOOLEAN) + _number(14, value)
    if isinstance(value, int):
        return head + _number(4, _INT64) + _number(11, value & (2**64 - 1))
    if isinstance(value, float):
        return head + _number(4, _DOUBLE) + _varint(13 << 3 | 1) + struct.pack("<d", value)
    return head + _number(4, _STRING) + _bytes(15, value.encode())


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields each field's number and value; what is cut short raises ValueError."""
    position = 0

    def number() -> int:
        nonlocal position
        found = shift = 0
        while shift < 70 and position < len(data):
            byte = data[position]
            position += 1
            found |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return found
        raise ValueError("a number is cut short")

    while position < len(data):
        key = number()
        field, kind = key >> 3, key & 7
        if kind == 0:
            yield field, number()
            continue
        size = {1: 8, 5: 4}.get(kind) if kind != 2 else number()
        if size is None or position + size > len(data):
            raise ValueError("a field is cut short or of an unknown kind")
        yield field, data[position : position + size]
        position += size


async def measured() -> AsyncIterator[dict[str, Value]]:
    """Stands for the press: its load every second."""
    while True:
        yield {"load": os.getloadavg()[0], "running": True}
        await asyncio.sleep(1)


async def main() -> None:
    """Runs until Ctrl-C; each connection is a session with a birth and a death of its own."""
    for bd_seq in itertools.count():
        node = Node(bd_seq)
        options: dict[str, Any] = {"ca_file": os.environ.get("MQTT_CA"), "client_id": NODE}
        # A client that reconnects by itself would keep its old will, and with it the old bdSeq.
        one = Client.from_url(os.environ["MQTT_URL"], will=node.will(), reconnect=False, **options)
        await one.connect()
        try:
            await node.run(one, measured())
        except ConnectionLost:
            await asyncio.sleep(1)
        finally:
            await one.close(with_will=True)


if __name__ == "__main__":
    asyncio.run(main())
