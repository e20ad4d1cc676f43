"""Starting again with much that is kept: how long until clients are let in, and what it needs."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from bench import keepers, machine
from bench.cases import Case
from bench.measure import Settings, run
from bench.peers import Missing, Peer, Reach
from bench.study import Found, Study
from bench.wire import Wire, numbered

# Fewer of them in a test.
SESSIONS = 100_000
QUEUED = 1_000_000
# Of one user and at a time: ours keeps no more for one, and a process has few more sockets.
CROWD = 10_000

TOPIC = "users/some/bench/queue"
AWAY = "bench-away"
START_S_MAX = 120

ACCEPTED, ADMITTED = "s to the first connection", "s to the first session"
STARTED_MEMORY = "MiB at most until then"
FETCHED, RATE, FETCHED_MEMORY = "s to take all", "taken a second", "MiB at most in all"
COLUMNS = (ACCEPTED, ADMITTED, STARTED_MEMORY, FETCHED, RATE, FETCHED_MEMORY)


def measure(known: Sequence[Peer], settings: Settings, say: Callable[[str], None]) -> Study:
    """Measures starts of ours, each with the same kept data.

    Args:
        known: Ours is measured where it is among them.
        settings: How many rounds.
        say: Is told of each step, in a line.

    Returns:
        For each spread of what is queued: when the broker let clients in, and how long the session
        that comes back needed for what was queued for it.
    """
    study = Study("recovery", COLUMNS, settings, say)
    if keepers.DISK not in known:
        return study
    with ExitStack() as stack:
        study.about["disk"] = stack.enter_context(keepers.on_disk())
        for words, spread in (("for one session", False), ("for all sessions", True)):
            row = f"casemate, {QUEUED:,} {words} of {SESSIONS:,}"
            with study.careful(row):
                house = stack.enter_context(_filled(spread=spread, say=say))
                study.add(row, partial(_once, house, spread=spread))
        study.carry_out()
    return study


@contextmanager
def _filled(*, spread: bool, say: Callable[[str], None]) -> Iterator[keepers.House]:
    """Gives a home that keeps so many sessions and messages."""
    with keepers.DISK.built([f"crowd{first}" for first in _crowds()]) as house:
        with house.served() as reach, machine.beside_broker():
            _settle(house, reach)
            say(f"recovery: {SESSIONS:,} sessions are there")
            with Wire(reach, "bench-fills", "all") as wire:
                wire.keep(_messages(spread=spread))
            say(f"recovery: {QUEUED:,} messages are queued")
        yield house


def _crowds() -> range:
    """Gives the first session of each user; one more session is that of the client that returns."""
    return range(0, SESSIONS - 1, CROWD)


def _settle(house: keepers.House, reach: Reach) -> None:
    """Makes the sessions, which stay."""
    with Wire(reach, AWAY, lasting=True) as away:
        away.subscribe([TOPIC], 1)
    for first in _crowds():
        count = min(CROWD, SESSIONS - 1 - first)
        words = ("idle", "--connections", str(count), "--at-once", "100", "--warm-up", "0")
        kept = ("--lasting", "600000", "--leave-sessions", "-i", f"away{first}")
        case = Case("recovery", "", (*words, *kept), 1)
        report = run(case, house.words(f"crowd{first}"), reach.pid, Settings(seconds=0.1))
        if report["connected"] != count:
            raise RuntimeError(f"only {report['connected']:,} of {count:,} sessions were made")


def _messages(*, spread: bool) -> Iterator[tuple[str, bytes]]:
    """Yields what is queued: for one session, or for each of the others in turn."""
    for number in range(QUEUED):
        if not spread:
            yield TOPIC, numbered(number)
            continue
        session = number % (SESSIONS - 1)
        first = session - session % CROWD
        yield topic_of(first, session), numbered(number)


def topic_of(first: int, session: int) -> str:
    """Gives the topic that a session of the crowd which begins with `first` subscribes to."""
    return f"users/crowd{first}/bench/idle/{session - first}/command"


def _once(house: keepers.House, *, spread: bool) -> Found:
    again = replace(house, folder=house.folder.with_name(f"{house.folder.name}-again"))
    shutil.copytree(house.folder, again.folder)
    try:
        with machine.beside_broker():
            return _start(again, spread=spread)
    finally:
        shutil.rmtree(again.folder, ignore_errors=True)


def _start(house: keepers.House, *, spread: bool) -> Found:
    from_s = time.monotonic()
    with house.run() as process:
        _accepted(house, from_s + START_S_MAX)
        accepted_s = time.monotonic() - from_s
        reach = Reach(process.pid, house.words(), house.port, house.proofs)
        with Wire(reach, AWAY, lasting=True) as away:
            found = {
                ACCEPTED: round(accepted_s, 3),
                ADMITTED: round(time.monotonic() - from_s, 3),
                STARTED_MEMORY: _mebibytes(process.pid),
            }
            if not away.resumed:
                raise RuntimeError("the broker has forgotten a session")
            if spread:
                return found
            from_s = time.monotonic()
            away.fetch(TOPIC, QUEUED)
            taken_s = time.monotonic() - from_s
        return {
            **found,
            FETCHED: round(taken_s, 3),
            RATE: round(QUEUED / taken_s),
            FETCHED_MEMORY: _mebibytes(process.pid),
        }


def _accepted(house: keepers.House, until_s: float) -> None:
    """Waits for the first connection.

    Raises:
        Missing: There was none in time.
    """
    while time.monotonic() < until_s:
        try:
            with socket.create_connection(("127.0.0.1", house.port), timeout=1):
                return
        except OSError:
            time.sleep(0.001)
    raise Missing(f"nothing accepts connections after {START_S_MAX} s")


def _mebibytes(pid: int) -> float:
    return round(machine.memory_bytes(pid, most=True) / 1024 / 1024, 1)
