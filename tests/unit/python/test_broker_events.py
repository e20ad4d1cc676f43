"""Events as a stream: filtered, bounded, several readers at once, and an end with the broker."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from casemate.broker import (
    Broker,
    Connected,
    Denied,
    Disconnected,
    Event,
    Malformed,
    Missed,
    PeerEvent,
    SessionChanged,
    Stranger,
)
from casemate.errors import BrokerStopped, DeadlinePassed, Refused
from casemate.testing import ThrowAwayBroker


@pytest.fixture
async def broker() -> AsyncIterator[ThrowAwayBroker]:
    async with ThrowAwayBroker(kinds=("tls", "tcp")) as one:
        one.identity("a")
        yield one


async def visit(broker: ThrowAwayBroker, count: int = 1) -> None:
    for number in range(count):
        async with broker.client("a", client_id=f"c{number}"):
            pass


async def test_events_come_as_they_happen_and_end_with_the_broker() -> None:
    broker = ThrowAwayBroker()
    await broker.__aenter__()
    seen: list[Event] = []

    async def read() -> None:
        seen.extend([event async for event in broker.events()])

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await visit(broker)
    assert not reading.done()
    await broker.__aexit__(None, None, None)
    await asyncio.wait_for(reading, 10)
    assert [type(one) for one in seen] == [Connected, SessionChanged, Disconnected]
    first = seen[0]
    assert isinstance(first, Connected)
    assert (first.name, first.client_id, first.listener) == ("a", "c0", "tls")
    assert not first.session_present


async def test_only_the_kinds_that_were_asked_for_come(broker: ThrowAwayBroker) -> None:
    ends = broker.events(Disconnected)
    either = broker.events(SessionChanged, Denied)
    peers = broker.events(PeerEvent)
    async with broker.client("a", client_id="x") as client:
        with pytest.raises(Refused):
            await client.publish("$SYS/mine", qos=1)
    assert isinstance(await anext(ends), Disconnected)
    assert [type(await anext(either)) for _ in range(2)] == [SessionChanged, Denied]
    found = [type(await anext(peers)) for _ in range(4)]
    assert found == [Connected, SessionChanged, Denied, Disconnected]


async def test_every_reader_gets_every_event(broker: ThrowAwayBroker) -> None:
    readers = [broker.events(Connected) for _ in range(5)]
    await visit(broker, 20)
    for reader in readers:
        names = []
        async for event in reader:
            assert isinstance(event, Connected)
            names.append(event.client_id)
            if len(names) == 20:
                break
        assert names == [f"c{number}" for number in range(20)]


async def test_a_slow_reader_is_told_how_much_it_has_missed(broker: ThrowAwayBroker) -> None:
    slow, all_of_it = broker.events(Connected, waiting_max=3), broker.events(Connected)
    await visit(broker, 10)
    for _ in range(10):
        await anext(all_of_it)
    first = [await anext(slow) for _ in range(4)]
    assert [type(one) for one in first] == [Connected] * 3 + [Missed]
    assert isinstance(first[-1], Missed)
    assert first[-1].count == 7
    await visit(broker)
    assert isinstance(await anext(slow), Connected)


async def test_a_reader_that_was_forgotten_costs_nothing_more(broker: ThrowAwayBroker) -> None:
    async def look_once() -> None:
        async for _ in broker.events():
            break

    looking = asyncio.create_task(look_once())
    await asyncio.sleep(0)
    await visit(broker)
    await looking
    gc.collect()
    # Whoever is told next finds out that nobody reads any more.
    following = broker.events(Connected)
    await visit(broker)
    await anext(following)
    assert len(broker._streams._open) == 1


async def test_readers_end_by_close_and_from_another_thread(broker: ThrowAwayBroker) -> None:
    stream = broker.events()
    threading.Timer(0.05, stream.close).start()
    async with asyncio.timeout(10):
        assert [event async for event in stream] == []
    stream.close()


async def test_a_stream_belongs_to_one_loop(broker: ThrowAwayBroker) -> None:
    stream = broker.events()
    await visit(broker)
    await anext(stream)

    async def other() -> None:
        await anext(stream)

    with pytest.raises(RuntimeError, match="belongs to the event loop"):
        await asyncio.to_thread(lambda: asyncio.run(other()))


def test_a_broker_that_does_not_run_has_no_events() -> None:
    broker = ThrowAwayBroker()
    with pytest.raises(BrokerStopped):
        broker.events()
    with broker, pytest.raises(ValueError, match="at least 1"):
        broker.events(waiting_max=0)
    with pytest.raises(BrokerStopped):
        broker.events()


async def test_what_a_stranger_does_is_an_event_with_its_address(broker: ThrowAwayBroker) -> None:
    stream = broker.events(Stranger, Malformed)
    for kind, bytes_sent in (("tls", b"GET / HTTP/1.1\r\n\r\n"), ("tcp", b"\x10\x05\xff\xff")):
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.listening(kind).port)
        writer.write(bytes_sent + b"\xff" * 10)
        port = writer.get_extra_info("sockname")[1]
        event = await asyncio.wait_for(anext(stream), 10)
        assert isinstance(event, Stranger | Malformed)
        assert event.address == f"127.0.0.1:{port}"
        assert event.name == ""
        writer.close()
        del reader


# Without an event loop


def test_events_come_without_an_event_loop() -> None:
    with Broker.blocking() as broker:
        stream = broker.events(Connected)
        with pytest.raises(DeadlinePassed):
            stream.take(timeout_s=0.01)
        for number in range(3):
            with broker.client("a", client_id=f"c{number}"):
                pass
        names = []
        for event in stream:
            assert isinstance(event, Connected)
            names.append(event.client_id)
            if len(names) == 3:
                break
        assert names == ["c0", "c1", "c2"]
        rest: list[Any] = []
        reading = threading.Thread(target=lambda: rest.extend(stream))
        reading.start()
    reading.join(10)
    assert not reading.is_alive()
    assert rest == []
