"""A broker with a say in who comes in: each account once, and whoever knocks too often waits.

`on_connect` is asked behind the proof, so names are names; `on_disconnect` makes room again; the
stream of refusals is what an alarm would read.

Run it: python gatekeeper.py [HOME]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter

from casemate import Broker
from casemate.broker import Connecting, ConnectRefused, Denied, Disconnected, Missed

REFUSALS_MAX = 5
"""Refusals of one account before it has to wait."""

WAIT_S = 60.0

QUOTA_EXCEEDED = 0x97
CONNECTION_RATE_EXCEEDED = 0x9F


class Gatekeeper:
    """Counts who is in, and who was refused too often."""

    def __init__(self) -> None:
        """Nobody is in."""
        self.inside: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.waits_until: dict[str, float] = {}

    async def admit(self, client: Connecting) -> None:
        """Lets an account in once at a time."""
        name = client.name
        if time.monotonic() < self.waits_until.get(name, 0.0):
            raise ConnectRefused(f"{name} has to wait", reason_code=CONNECTION_RATE_EXCEEDED)
        if self.inside[name]:
            self.refusals[name] += 1
            if self.refusals[name] >= REFUSALS_MAX:
                self.waits_until[name] = time.monotonic() + WAIT_S
                self.refusals[name] = 0
            raise ConnectRefused(f"{name} is in already", reason_code=QUOTA_EXCEEDED)
        self.inside[name] += 1

    async def leave(self, event: Disconnected) -> None:
        """Makes room; who was refused has no name in this event, and took no room."""
        if self.inside[event.name]:
            self.inside[event.name] -= 1


def guarded(broker: Broker) -> Gatekeeper:
    """Puts a gatekeeper in front of a broker."""
    gatekeeper = Gatekeeper()
    broker.on_connect(gatekeeper.admit)
    broker.on_disconnect(gatekeeper.leave)
    return gatekeeper


async def report(broker: Broker) -> None:
    """Prints refusals as long as the broker runs; what peers wrote is escaped."""
    async for event in broker.events(Denied):
        if isinstance(event, Missed):
            print(f"{event.count} events are missing")
        else:
            print(f"{event.action} of {event.name!a} refused: {event.reason!a}")


async def main(home: str | None) -> None:
    """Serves until Ctrl-C."""
    broker = Broker(home)
    guarded(broker)
    async with broker:
        print("listening on", ", ".join(f"{one.host}:{one.port}" for one in broker.addresses))
        await report(broker)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
    except KeyboardInterrupt:
        print("stopped")
