"""The border between Python and the engine: programs inside the broker's process, in lists."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from casemate import Broker
from casemate.config import Limits
from casemate.testing import ThrowAwayBroker

# As long as the lists that a subscriber gets where it asks for no other length.
BATCH = 256
MESSAGES = 1_000 * BATCH
SINGLES = 20_000
PAYLOAD = b"x" * 64
TOPIC = "bench/border"
# Lists that the publisher may be ahead of the subscriber: what a queue holds is never exceeded.
AHEAD = 64
RUN_S_MAX = 60


def measure(rounds: int, say: Callable[[str], None]) -> dict[str, dict[str, list[float]]]:
    """Measures each way across, round by round.

    Args:
        rounds: Runs of each.
        say: Is told of each, in a line.

    Returns:
        For each way, messages a second and µs of this process's CPU for each, the broker's
        threads included, one value for each run.
    """
    found: dict[str, dict[str, list[float]]] = {
        name: {"messages a second": [], "µs of CPU, broker included": []} for name in WAYS
    }
    limits = Limits(queue_messages_max=2 * AHEAD * BATCH)
    with ThrowAwayBroker(limits=limits) as broker:
        for number in range(rounds):
            for name, way in WAYS.items():
                wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
                count = way(broker)
                wall_ns, cpu_ns = time.perf_counter_ns() - wall_ns, time.process_time_ns() - cpu_ns
                rate, cost = round(count * 1e9 / wall_ns), round(cpu_ns / 1_000 / count, 3)
                found[name]["messages a second"].append(rate)
                found[name]["µs of CPU, broker included"].append(cost)
                say(f"border {name}, round {number + 1}: {rate:,} a second, {cost} µs")
    return found


def _publish(broker: Broker, qos: int, count: int, length: int) -> int:
    batch = [(TOPIC, PAYLOAD, qos)] * length
    with broker.publisher() as publisher:
        for _ in range(count // length):
            publisher.publish_now(batch)
    return count


def _through(broker: Broker, count: int, qos: int, *, singly: bool) -> int:
    """Publishes in a thread and receives in an event loop; nothing is dropped, as room is asked."""
    room = threading.Semaphore(AHEAD)

    def publish() -> None:
        batch = [(TOPIC, PAYLOAD, qos)] * BATCH
        with broker.publisher() as publisher:
            for _ in range(count // BATCH):
                room.acquire(timeout=RUN_S_MAX)
                publisher.publish_now(batch)

    async def receive() -> None:
        got = 0
        async with asyncio.timeout(RUN_S_MAX), broker.subscriber((TOPIC, 1)) as subscriber:
            publishing = threading.Thread(target=publish)
            publishing.start()
            if singly:
                async for _ in subscriber:
                    got += 1
                    if got % BATCH == 0:
                        room.release()
                    if got == count:
                        break
            else:
                async for batch in subscriber.batches:
                    before, got = got, got + len(batch)
                    for _ in range(got // BATCH - before // BATCH):
                        room.release()
                    if got == count:
                        break
            publishing.join()

    asyncio.run(receive())
    return count


WAYS: dict[str, Callable[[Broker], int]] = {
    "publish QoS 0, in lists": lambda broker: _publish(broker, 0, MESSAGES, BATCH),
    "publish QoS 1, in lists": lambda broker: _publish(broker, 1, MESSAGES, BATCH),
    "publish QoS 0, one by one": lambda broker: _publish(broker, 0, SINGLES, 1),
    "publish, route and receive QoS 0, in lists": lambda broker: _through(
        broker, MESSAGES, 0, singly=False
    ),
    "publish, route and receive QoS 1, in lists": lambda broker: _through(
        broker, MESSAGES, 1, singly=False
    ),
    "publish in lists, receive by async for": lambda broker: _through(
        broker, MESSAGES, 1, singly=True
    ),
}
