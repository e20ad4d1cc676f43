"""Client libraries of Python in one run: what publishing and receiving a message costs each.

Each runs alone in a process of its own, on the generator's core, against the same broker on the
other; what is compared is CPU time of that process. The received messages are retained ones, as a
broker hands those out no faster than they are taken: nobody loses any, however slow.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench import machine
from bench.peers import OURS

PAYLOAD = b"x" * 64
IN_FLIGHT = 20
TOPIC = "users/some/bench/clients"
RUN_S_MAX = 120

# Fewer of them in a test.
PUBLISHED = int(os.environ.get("BENCH_MESSAGES", "5000"))
RECEIVED = 2 * PUBLISHED
COLUMNS = {"publish QoS 0": 0, "publish QoS 1": 1, "receive": 2}
LIBRARIES = ("casemate", "paho", "aiomqtt", "gmqtt")


def measure(rounds: int, say: Callable[[str], None]) -> dict[str, dict[str, list[float]]]:
    """Measures all of them, interleaved.

    Args:
        rounds: Runs of each library and each direction.
        say: Is told of each, in a line.

    Returns:
        For each library and direction, µs of CPU for each message, one value for each run.

    Raises:
        bench.peers.Missing: The broker does not start.
        RuntimeError: A library failed; its own last words.
    """
    found: dict[str, dict[str, list[float]]] = {
        name: {column: [] for column in COLUMNS} for name in LIBRARIES
    }
    with OURS.serving() as reach:
        port = reach.words[reach.words.index("-p") + 1]
        password = reach.words[reach.words.index("-P") + 1]
        _run("casemate", "store", port, password)
        for number in range(rounds):
            for column in COLUMNS:
                for name in LIBRARIES:
                    cost = _run(name, column, port, password)
                    found[name][column].append(cost)
                    say(f"clients {column}, round {number + 1}, {name}: {cost}")
    return found


def _run(library: str, column: str, port: str, password: str) -> float:
    command = [sys.executable, "-m", "bench.clients", library, column, port]
    done = subprocess.run(
        machine.on_core(machine.GENERATOR_CORE, command),
        cwd=machine.ROOT,
        # Not a word of the command line, which others on the machine may read.
        input=password,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or ["no word"]
        raise RuntimeError(f"{library}, {column}: {words[-1][:200]}")
    return float(json.loads(done.stdout)["cpu_us"])


# What runs in each process


class Watch:
    """Counts CPU time of this process between two moments."""

    def __init__(self) -> None:
        """Begins."""
        self._from_ns = time.process_time_ns()

    def each_us(self, count: int) -> float:
        """Gives µs for each of so many messages until now."""
        return round((time.process_time_ns() - self._from_ns) / 1_000 / count, 3)


async def _in_turns(publish: Callable[[], Awaitable[object]]) -> None:
    """Publishes all, with so many unacknowledged at a time."""

    async def worker() -> None:
        for _ in range(PUBLISHED // IN_FLIGHT):
            await publish()

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


async def use_casemate(column: str, port: int, password: str) -> float:
    """Measures the client of this tree."""
    from casemate import Client

    client = Client("127.0.0.1", port, username="some", password=password, tls=False)
    async with client:
        watch = Watch()
        if column == "store":
            for number in range(RECEIVED):
                await client.publish(f"{TOPIC}/kept/{number}", PAYLOAD, retain=True)
        elif column == "receive":
            await client.subscribe(f"{TOPIC}/kept/#")
            count = 0
            async for _ in client.messages:
                count += 1
                if count == RECEIVED:
                    return watch.each_us(RECEIVED)
        elif column == "publish QoS 1":
            await _in_turns(lambda: client.publish(TOPIC, PAYLOAD, qos=1))
            return watch.each_us(PUBLISHED)
        else:
            for _ in range(PUBLISHED):
                await client.publish(TOPIC, PAYLOAD)
        # All that went before it has arrived when this one is acknowledged.
        await client.publish(TOPIC, PAYLOAD, qos=1)
        return watch.each_us(PUBLISHED)


async def use_aiomqtt(column: str, port: int, password: str) -> float:
    """Measures aiomqtt."""
    import aiomqtt

    client = aiomqtt.Client(
        "127.0.0.1",
        port,
        username="some",
        password=password,
        protocol=aiomqtt.ProtocolVersion.V5,
    )
    async with client:
        watch = Watch()
        if column == "receive":
            await client.subscribe(f"{TOPIC}/kept/#")
            count = 0
            async for _ in client.messages:
                count += 1
                if count == RECEIVED:
                    return watch.each_us(RECEIVED)
        elif column == "publish QoS 1":
            await _in_turns(lambda: client.publish(TOPIC, PAYLOAD, qos=1))
            return watch.each_us(PUBLISHED)
        for _ in range(PUBLISHED):
            await client.publish(TOPIC, PAYLOAD)
        await client.publish(TOPIC, PAYLOAD, qos=1)
        return watch.each_us(PUBLISHED)


async def use_gmqtt(column: str, port: int, password: str) -> float:
    """Measures gmqtt."""
    import gmqtt
    from gmqtt.storage import PersistentStorage

    unacknowledged = PersistentStorage()
    client = gmqtt.Client("bench-gmqtt", persistent_storage=unacknowledged)
    client.set_auth_credentials("some", password)
    got, count = asyncio.Event(), 0

    def take(*_: object) -> int:
        nonlocal count
        count += 1
        if count == RECEIVED:
            got.set()
        return 0

    client.on_message = take
    await client.connect("127.0.0.1", port)
    watch = Watch()
    if column == "receive":
        client.subscribe(f"{TOPIC}/kept/#")
        await got.wait()
        cost = watch.each_us(RECEIVED)
    elif column == "publish QoS 1":
        for _ in range(PUBLISHED // IN_FLIGHT):
            for _ in range(IN_FLIGHT):
                client.publish(TOPIC, PAYLOAD, qos=1)
            await unacknowledged.wait_empty()
        cost = watch.each_us(PUBLISHED)
    else:
        for number in range(PUBLISHED):
            client.publish(TOPIC, PAYLOAD)
            if number % IN_FLIGHT == 0:
                # It writes without waiting; a program must let its loop turn.
                await asyncio.sleep(0)
        client.publish(TOPIC, PAYLOAD, qos=1)
        await unacknowledged.wait_empty()
        cost = watch.each_us(PUBLISHED)
    await client.disconnect()
    return cost


async def use_paho(column: str, port: int, password: str) -> float:
    """Measures paho with its own thread."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set("some", password)
    # No limit: it would drop what is beyond it.
    client.max_queued_messages_set(0)
    ready, got, count = threading.Event(), threading.Event(), 0

    def take(*_: Any) -> None:  # noqa: ANN401 - as paho calls it.
        nonlocal count
        count += 1
        if count == RECEIVED:
            got.set()

    client.on_message = take
    client.on_connect = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    ready.wait(RUN_S_MAX)
    watch = Watch()
    if column == "receive":
        client.subscribe(f"{TOPIC}/kept/#")
        got.wait(RUN_S_MAX)
        cost = watch.each_us(RECEIVED)
    else:
        qos = COLUMNS[column]
        sent = [client.publish(TOPIC, PAYLOAD, qos=qos) for _ in range(PUBLISHED)]
        sent.append(client.publish(TOPIC, PAYLOAD, qos=1))
        for one in sent if qos else sent[-1:]:
            one.wait_for_publish(RUN_S_MAX)
        cost = watch.each_us(PUBLISHED)
    client.disconnect()
    client.loop_stop()
    return cost


USES: dict[str, Callable[[str, int, str], Awaitable[float]]] = {
    "casemate": use_casemate, "aiomqtt": use_aiomqtt, "gmqtt": use_gmqtt, "paho": use_paho,
}  # fmt: skip


def main() -> int:
    """Measures one library once; the password is read from stdin."""
    library, column, port = sys.argv[1:]

    async def use() -> float:
        return await USES[library](column, int(port), sys.stdin.read())

    print(json.dumps({"cpu_us": asyncio.run(use())}))  # noqa: T201 - its answer.
    return 0


if __name__ == "__main__":
    sys.exit(main())
