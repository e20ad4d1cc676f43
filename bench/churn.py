"""Many subscriptions that messages are matched against, still, changing, and of somebody else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from bench.beside import answer, begin, beside, is_over
from bench.cases import Case
from bench.measure import Settings, run, suits
from bench.peers import FLOOR, Peer, Reach
from bench.study import Found, Study
from bench.wire import Wire

# Fewer of them in a test.
TOTALS = (10, 100_000, 1_000_000)
PUBLISHERS = 10
# Below that, what a broker needs for anything else is more.
WEIGHED_FROM = 100_000
TOPIC = "users/some/bench"

# A topic costs more when it is used for the first time: so many of them are used each second
# before the measured time begins.
WARMED_PER_S = 150_000

FEW = ("fan-in", "--publishers", str(PUBLISHERS), "--subscribers", "1", "-t", TOPIC)

# Filters of one change, and changes a second: as many come as go.
CHANGED = 100
CHANGES_PER_S = 10

COST, RATE = "µs of CPU for each delivery", "delivered a second"
CHANGES, MEMORY = "subscribed and taken back a second", "bytes of memory for each subscription"
COLUMNS = (COST, RATE, CHANGES, MEMORY)


def measure(peers: Sequence[Peer], settings: Settings, say: Callable[[str], None]) -> Study:
    """Measures each broker with few and with many subscriptions, still and changing.

    Args:
        peers: Who takes part, where they can.
        settings: How much.
        say: Is told of each run, in a line.

    Returns:
        For each broker and number of subscriptions, what a delivery and a subscription cost.
    """
    study = Study("churn", COLUMNS, settings, say)
    for peer in peers:
        for total in TOTALS:
            many = ("--topics", str(total // PUBLISHERS), "--single-filters")
            case = Case(study.suite, "", (*FEW, *many))
            if peer is FLOOR or not suits(peer, case):
                continue
            for changing, shown in ((False, "still"), (True, "others change")):
                once = partial(_once, study, peer, case, total, changing=changing)
                study.add(f"{peer.name}, {total:,}, {shown}", once)
        few = Case(study.suite, "", (*FEW, "--topics", "1", "--single-filters"))
        if peer is not FLOOR and suits(peer, few):
            once = partial(_among, study, peer, few)
            study.add(f"{peer.name}, {TOTALS[0]:,} of {TOTALS[-1]:,} in use", once)
    study.carry_out()
    return study


def _once(study: Study, peer: Peer, case: Case, total: int, *, changing: bool) -> Found:
    with peer.serving() as reach, ExitStack() as stack:
        if changing:
            answers = stack.enter_context(beside("bench.churn", reach))
        settings = study.longer(peer)
        warm_up_s = max(settings.warm_up_s, total / WARMED_PER_S)
        settings = replace(settings, warm_up_s=warm_up_s)
        report = run(case, reach.words, reach.pid, settings)
        stack.close()
    if not report["delivered"]:
        raise RuntimeError("nothing was delivered in the measured time")
    found: dict[str, float] = {
        COST: report["broker"]["cpu_us_each"],
        RATE: report["delivered_per_s"],
    }
    for name, count in report["harm"].items():
        if count:
            study.note(f"{peer.name}, {total:,}", f"{name.replace('_', ' ')} in a run")
    if changing:
        found[CHANGES] = round(answers[0]["changes"] / answers[0]["seconds"])
    if total >= WEIGHED_FROM:
        before, after = report["broker"]["memory_bytes"]
        found[MEMORY] = round((after - before) / total, 1)
    return found


def _among(study: Study, peer: Peer, case: Case) -> Found:
    with peer.serving() as reach, beside("bench.churn", reach, str(TOTALS[-1])):
        report = run(case, reach.words, reach.pid, study.longer(peer))
    return {COST: report["broker"]["cpu_us_each"], RATE: report["delivered_per_s"]}


def crowd(total: int, reach: Reach) -> int:
    """Subscribes to so many filters that no message of the load answers to, and holds them.

    Returns:
        How many there were.
    """
    with Wire(reach, "bench-crowd") as wire:
        for first in range(0, total, CHANGED):
            rooms = (f"+/{n}" if n % 5 == 4 else f"r/{n}" for n in range(first, first + CHANGED))
            wire.subscribe([f"{TOPIC}/out/{room}" for room in rooms])
        begin()
        while not is_over(60):
            pass
    return total


def stir(reach: Reach) -> dict[str, Any]:
    """Subscribes and takes back, until stdin ends; gives how much, and in how long."""
    changes = 0
    with Wire(reach, "bench-churn") as wire:
        begin()
        from_s = time.monotonic()
        while not is_over(from_s + changes / CHANGES_PER_S - time.monotonic()):
            filters = _filters(changes)
            wire.subscribe(filters)
            wire.unsubscribe(filters)
            changes += 1
        return {"changes": changes * CHANGED, "seconds": time.monotonic() - from_s}


def _filters(change: int) -> list[str]:
    """Gives filters below the levels that the load uses, every fifth with a wildcard.

    No message of the load answers to one of them.
    """
    found = []
    for number in range(CHANGED):
        room = "+" if number % 5 == 4 else number
        publisher = (change + number) % PUBLISHERS
        found.append(f"{TOPIC}/in/0/{publisher}/{room}/new-{number}")
    return found


if __name__ == "__main__":
    sys.exit(answer(partial(crowd, int(sys.argv[1])) if sys.argv[1:] else stir))
