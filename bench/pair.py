"""A well-behaved pair beside a load: few messages at a fixed rate, and how long each took.

It runs in a process of its own that sleeps between two messages, so that it says what a quiet
client feels while others flood the broker. The generator of the load would not do: it never
sleeps, and its own work would stand in the latency of the pair.
"""

from __future__ import annotations

import math
import select
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from bench.beside import answer, begin, beside
from bench.peers import Reach
from bench.wire import Wire

RATE_PER_S = 500
TOPIC = "users/some/pair"
# What is under way when the pair is stopped may still come.
GRACE_S = 1.0


@dataclass
class Pair:
    """Holds what the pair has felt.

    Attributes:
        felt: For each message the moment at which it should have been sent, in seconds of the
            clock of the machine, and µs until it arrived; None where it never did.
    """

    felt: list[tuple[float, float | None]] = field(default_factory=list)

    def between(self, from_unix_s: float, to_unix_s: float) -> tuple[list[float], int]:
        """Gives the latencies of the messages of that time, and how many of them never came."""
        inside = [took for at, took in self.felt if from_unix_s <= at < to_unix_s]
        came = [took for took in inside if took is not None]
        return came, len(inside) - len(came)


def percentile(values: Sequence[float], part: float) -> float:
    """Gives the least of the values, of which there is one, that so many (0 to 1) do not exceed."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


@contextmanager
def talking(reach: Reach) -> Iterator[Pair]:
    """Lets the pair talk while the block runs; what it felt is there afterwards.

    Raises:
        RuntimeError: It could not; its own last words.
    """
    found = Pair()
    with beside("bench.pair", reach) as answers:
        yield found
    for felt in answers:
        found.felt.extend((at, took) for at, took in felt)


def talk(reach: Reach) -> list[tuple[float, float | None]]:
    """Sends and receives until stdin ends; gives what each message felt."""
    with Wire(reach, "bench-pair-to") as listening, Wire(reach, "bench-pair-from") as speaking:
        listening.subscribe([TOPIC])
        begin()
        first_s, unix_s = time.monotonic(), time.time() - time.monotonic()
        arrived: dict[int, float] = {}
        sent, ends_s = 0, math.inf
        heard: list[Wire | TextIO] = [listening, sys.stdin]
        while (now_s := time.monotonic()) < ends_s:
            due_s = first_s + sent / RATE_PER_S
            if ends_s == math.inf and now_s >= due_s:
                speaking.publish(TOPIC, sent.to_bytes(8, "big"))
                sent += 1
                continue
            wakes_s = due_s if ends_s == math.inf else ends_s
            ready, _, _ = select.select(heard, [], [], max(0.0, wakes_s - now_s))
            if listening in ready:
                for payload in listening.arrived():
                    arrived.setdefault(int.from_bytes(payload, "big"), time.monotonic())
            if sys.stdin in ready:
                heard.remove(sys.stdin)
                ends_s = time.monotonic() + GRACE_S
        return [_felt(number, arrived, first_s, unix_s) for number in range(sent)]


def _felt(
    number: int, arrived: dict[int, float], first_s: float, unix_s: float
) -> tuple[float, float | None]:
    due_s = first_s + number / RATE_PER_S
    came_s = arrived.get(number)
    return due_s + unix_s, None if came_s is None else round((came_s - due_s) * 1e6, 1)


if __name__ == "__main__":
    sys.exit(answer(talk))
