"""`kill -9` of a real broker, twenty times under load: nothing that it has promised is lost.

Clients of ours and of paho, of MQTT 3.1.1 and 5.0, publish at QoS 1 and 2 through all of it and
never end; others read all the time, and some only at the end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from casemate.client import Client
from tests.resilience.trail import (
    House,
    PahoReader,
    PahoWriter,
    Trail,
    read_ours,
    write_ours,
)
from tests.unit.python.commands import Running
from tests.unit.python.test_reload import free_port

KILLS = 20
SEED = 20_260_711

OURS = {f"ours{version}q{qos}": version for version in (4, 5) for qos in (1, 2)}
PAHOS = {f"paho{version}q{qos}": version for version in (4, 5) for qos in (1, 2)}
READERS = {"reader-ours4": 4, "reader-ours5": 5}
PAHO_READERS = {"reader-paho4": 4, "reader-paho5": 5}
AWAY = {"away4": 4, "away5": 5}
NAMES = [*OURS, *PAHOS, *READERS, *PAHO_READERS, *AWAY, "keeper", "late"]


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.timeout(300)
def test_nothing_that_was_promised_is_lost(tmp_path: Path, shards: int) -> None:
    # Each of the two brokers is killed half of the times.
    house = House.build(tmp_path, free_port(), NAMES, "[limits]", "queue_messages_max = 1_000_000")
    toml = house.home / "casemate.toml"
    toml.write_text(f"shards = {shards}\n{toml.read_text()}")
    print(asyncio.run(live_through(house, KILLS // 2, random.Random(SEED + shards))))


async def live_through(house: House, kills: int, chance: random.Random) -> str:
    trail, over = Trail(), asyncio.Event()
    async with AsyncExitStack() as stack:
        with house.served() as broker:
            await asyncio.to_thread(broker.until, "listening")
            readers, pahos = await bring_readers(house, trail, stack)
            tasks = [
                asyncio.create_task(write_ours(house, trail, name, version, over))
                for name, version in OURS.items()
            ]
            writers = [PahoWriter(house, trail, *one, READERS) for one in PAHOS.items()]
            for one in writers:
                stack.callback(one.close)
            keeper = await stack.enter_async_context(house.ours("keeper", 5))
            await live(trail, keeper, 0, chance)
            broker.process.kill()
        for number in range(1, kills):
            with house.served() as broker:
                await return_to(broker, [*writers, *pahos])
                await live(trail, keeper, number, chance)
                broker.process.kill()
        with house.served() as broker:
            await return_to(broker, [*writers, *pahos])
            over.set()
            for one in writers:
                one.end()
            await asyncio.wait_for(asyncio.gather(*tasks), 60)
            await trail.until(lambda: all(one.is_done for one in writers), "paho has not ended")
            await see_all(house, trail, readers, stack)
            await see_retained(house, kills)
            for one in (*writers, *pahos):
                await asyncio.to_thread(one.close)
        for name in (*READERS, *PAHO_READERS, *AWAY):
            assert trail.missing(name) == {}, name
            assert trail.doubled(name) == {}, name
            assert trail.disordered(name) == [], name
    assert trail.refused == []
    count = sum(len(numbers) for numbers in trail.promised.values())
    return f"{kills} kills, {count} messages acknowledged, none lost, none of QoS 2 doubled"


async def return_to(broker: Running, pahos: Iterable[PahoWriter | PahoReader]) -> None:
    """Waits until the broker listens; those that do not by themselves come back to it."""
    await asyncio.to_thread(broker.until, "listening")
    for one in pahos:
        await asyncio.to_thread(one.come_back)


async def bring_readers(
    house: House, trail: Trail, stack: AsyncExitStack
) -> tuple[dict[str, Client], list[PahoReader]]:
    """Subscribes everybody; those who are away leave again at once."""
    readers = {}
    for name, version in READERS.items():
        client = await stack.enter_async_context(house.ours(name, version))
        await client.subscribe("load/#", qos=2)
        stack.callback(asyncio.create_task(read_ours(client, trail, name)).cancel)
        readers[name] = client
    for name, version in AWAY.items():
        async with house.ours(name, version) as client:
            await client.subscribe("load/#", qos=2)
    pahos = [
        await asyncio.to_thread(PahoReader, house, trail, name, version)
        for name, version in PAHO_READERS.items()
    ]
    for one in pahos:
        stack.callback(one.close)
    return readers, pahos


async def live(trail: Trail, keeper: Client, number: int, chance: random.Random) -> None:
    """Lets every writer get some acknowledgements, and a retained message be kept."""
    goals = {name: len(trail.promised[name]) + chance.randint(1, 40) for name in (*OURS, *PAHOS)}
    kept = asyncio.create_task(keeper.publish(f"state/{number}", f"{number}", qos=1, retain=True))
    await asyncio.wait_for(kept, 60)
    await trail.until(
        lambda: all(len(trail.promised[name]) >= goal for name, goal in goals.items()),
        f"not everybody goes on after {number} kills, wanted {goals}",
    )


async def see_all(
    house: House, trail: Trail, readers: dict[str, Client], stack: AsyncExitStack
) -> None:
    """Waits until everybody has got everything, those who were away too."""
    for name, version in AWAY.items():
        client = await stack.enter_async_context(house.ours(name, version))
        assert client.session_present, name
        stack.callback(asyncio.create_task(read_ours(client, trail, name)).cancel)
    assert all(client.session_present for client in readers.values())
    for name in (*READERS, *PAHO_READERS, *AWAY):
        await trail.until(lambda who=name: not trail.missing(who), f"{name} lacks something")


async def see_retained(house: House, kills: int) -> None:
    """Looks that each retained message that was acknowledged is there."""
    async with house.ours("late", 5) as client:
        await client.subscribe("state/#", qos=1)
        found = set()
        async with asyncio.timeout(60):
            while len(found) < kills:
                message = await anext(aiter(client.messages))
                found.add((message.topic, message.text))
    assert found == {(f"state/{number}", str(number)) for number in range(kills)}
