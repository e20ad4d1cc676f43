"""A fleet at work: each device a client of its own, counted together, ended at one bound."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from casemate.cli.fleet import Device, Publish, filled, payloads
from casemate.client import Client
from casemate.errors import CasemateError, Refused

_CONNECTING_AT_ONCE = 20
"""Devices that connect at a time: a fleet must not be a storm of handshakes."""

_LOOK_S = 1.0


@dataclass(slots=True)
class Tally:
    """Counts what a fleet does.

    Attributes:
        devices: How many there are.
        connected: How many are connected now.
        sent: Messages that left, and with QoS 1 and 2 were taken.
        received: Messages that came.
        refused: Messages that the broker refused.
        failed: Devices that cannot go on.
        problems: The first reasons, one for each message of an error, ten at most.
    """

    devices: int
    connected: int = 0
    sent: int = 0
    received: int = 0
    refused: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)

    def trouble(self, name: str, error: CasemateError) -> None:
        """Keeps a reason, once, however many devices have it."""
        words = f"{name}: {error}"
        known = [one.partition(": ")[2] for one in self.problems]
        if str(error) not in known and len(self.problems) < 10:
            self.problems.append(words)


@dataclass(frozen=True, slots=True)
class Member:
    """Is one device of a fleet.

    Attributes:
        name: Its name.
        number: Its number among those alike, from 1.
        described: What it does.
        arguments: Of its `Client`.
    """

    name: str
    number: int
    described: Device
    arguments: Mapping[str, Any]


class Swarm:
    """Runs the devices of a fleet until a bound is reached or an end is asked for."""

    def __init__(self, members: list[Member], *, count: int | None, seed: int) -> None:
        """Takes a fleet.

        Args:
            members: At least one.
            count: Messages after which it ends; None for no such bound.
            seed: Of payloads and waits.
        """
        self.tally: Tally = Tally(len(members))
        self._members = members
        self._left = count
        self._under_way = 0
        self._seed = seed
        self._over = asyncio.Event()
        self._gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)

    def end(self) -> None:
        """Asks for the end."""
        self._over.set()

    async def run(self, seconds: float | None, show: Callable[[Tally], None]) -> None:
        """Runs to the end; every client has said good-bye when it returns.

        Args:
            seconds: After which it ends; None for no such bound.
            show: Called once a second.
        """
        until = None if seconds is None else time.monotonic() + seconds
        working = [asyncio.create_task(self._live(one)) for one in self._members]
        try:
            while not self._over.is_set() and not all(one.done() for one in working):
                left_s = _LOOK_S if until is None else until - time.monotonic()
                if left_s <= 0:
                    break
                await self._pause(min(left_s, _LOOK_S))
                show(self.tally)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return

    async def _live(self, member: Member) -> None:
        try:
            async with self._connected(member) as client, asyncio.TaskGroup() as group:
                for position, series in enumerate(member.described.publish):
                    group.create_task(self._publish(client, member, position, series))
                if member.described.subscribe:
                    group.create_task(self._receive(client))
                # Who has nothing to say stays connected all the same.
                group.create_task(self._over.wait())
        except* CasemateError as errors:
            self.tally.failed += 1
            first = errors.exceptions[0]
            if isinstance(first, CasemateError):
                self.tally.trouble(member.name, first)

    @asynccontextmanager
    async def _connected(self, member: Member) -> AsyncIterator[Client]:
        async with AsyncExitStack() as stack:
            async with self._gate:
                client = await stack.enter_async_context(Client(**member.arguments))
                for one in member.described.subscribe:
                    topic_filter = filled(one.filter, member.name, member.number)
                    await client.subscribe(topic_filter, qos=one.qos)
            self.tally.connected += 1
            try:
                yield client
            finally:
                self.tally.connected -= 1

    async def _publish(
        self, client: Client, member: Member, position: int, series: Publish
    ) -> None:
        chance = random.Random(f"{self._seed}/{member.name}/{position}")  # noqa: S311 - readings.
        topic = filled(series.topic, member.name, member.number)
        # Begun at random, or all devices would speak in the same moment.
        await asyncio.sleep(chance.uniform(0, series.every_s))
        for payload in payloads(series.payload, chance):
            if not self._take():
                return
            try:
                await client.publish(topic, payload, qos=series.qos, retain=series.retain)
                self.tally.sent += 1
            except Refused as error:
                self.tally.refused += 1
                self.tally.trouble(member.name, error)
            finally:
                self._settle()
            spread = chance.uniform(-series.jitter, series.jitter)
            await asyncio.sleep(series.every_s * (1 + spread))

    async def _receive(self, client: Client) -> None:
        async for _ in client.messages:
            self.tally.received += 1

    def _take(self) -> bool:
        """Takes one message of those that are left."""
        if self._left is None:
            return True
        if self._left == 0:
            return False
        self._left -= 1
        self._under_way += 1
        return True

    def _settle(self) -> None:
        """Notes that a message is done with; the last one ends the fleet."""
        self._under_way -= 1
        if self._left == 0 and self._under_way == 0:
            self._over.set()
