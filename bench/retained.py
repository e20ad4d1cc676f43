"""Retained messages: what it costs to store many, and to hand them to a new subscriber."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from bench import machine
from bench.measure import Settings
from bench.peers import FLOOR, Peer, Reach
from bench.study import Found, Study
from bench.wire import Wire, message

# Fewer of them in a test.
STORED = 100_000
PAYLOAD = b"x" * 64
TOPIC = "users/some/bench/kept"
# Topics below one level, as of the devices in a room.
ROOM = 1_000

STORE, STORE_US = "stored a second", "µs of CPU for each stored"
REPLAY, REPLAY_US = "replayed a second", "µs of CPU for each replayed"
MEMORY = "bytes of memory for each"
COLUMNS = (STORE, STORE_US, REPLAY, REPLAY_US, MEMORY)


def measure(peers: Sequence[Peer], settings: Settings, say: Callable[[str], None]) -> Study:
    """Measures each broker; the floor keeps nothing and is left out.

    Args:
        peers: Who takes part.
        settings: How many rounds; the time is that of the messages.
        say: Is told of each run, in a line.

    Returns:
        For each broker, what storing and replaying cost.
    """
    study = Study("retained", COLUMNS, settings, say)
    for peer in peers:
        if peer is not FLOOR and not peer.suites:
            study.add(peer.name, partial(_once, peer))
    with machine.beside_broker():
        study.carry_out()
    return study


def _once(peer: Peer) -> Found:
    packets = b"".join(
        message(f"{TOPIC}/{number // ROOM}/{number}", PAYLOAD, retain=True)
        for number in range(STORED)
    )
    with peer.serving() as reach:
        before = machine.memory_bytes(reach.pid)
        with Wire(reach, "bench-stores") as storing:

            def store() -> None:
                storing.send(packets)
                storing.settle()

            store_s, store_us = _spent(reach, store)
        grown = machine.memory_bytes(reach.pid) - before
        with Wire(reach, "bench-replays", "all") as new:
            replay_s, replay_us = _spent(reach, lambda: new.replay("#", STORED))
    return {
        STORE: round(STORED / store_s),
        STORE_US: store_us,
        REPLAY: round(STORED / replay_s),
        REPLAY_US: replay_us,
        MEMORY: round(grown / STORED),
    }


def _spent(reach: Reach, work: Callable[[], None]) -> tuple[float, float]:
    """Gives seconds, and µs of the broker's CPU for each message, that the work took."""
    cpu_s, from_s = machine.cpu_s(reach.pid), time.monotonic()
    work()
    took_s = time.monotonic() - from_s
    return took_s, round((machine.cpu_s(reach.pid) - cpu_s) * 1e6 / STORED, 3)
