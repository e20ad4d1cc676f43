"""The client under floods, silence and loss: back-pressure, pings, and when it comes back.

A scripted broker sends more than anybody reads, or says nothing, or leaves.
"""

from __future__ import annotations

import asyncio

import pytest

from casemate.client import link as link_room
from casemate.errors import ClientError, ConnectionLost, NotConnected, Refused
from tests.unit.python.scripted import Peer, client, publish, scripted, take


async def test_a_program_that_does_not_read_stops_the_broker_and_loses_nothing() -> None:
    # Far more than the buffers of two sockets on loopback can hold.
    total, at_once = 200_000, 100
    payload = b"x" * 100

    async def story(peer: Peer) -> None:
        await peer.accept()
        for _ in range(total // at_once):
            await peer.say(publish(0, 0, payload) * at_once)
            nonlocal sent
            sent += at_once
        await peer.gone()

    sent = 0
    async with scripted(story) as port, client(port, queue_messages_max=10) as one:
        await asyncio.sleep(0.3)
        # A read of 64 KiB may stand above the ten, and what lies in the sockets' buffers.
        assert len(one.inbox) < 10 + 65_536 // 100
        assert sent < total
        async with asyncio.timeout(30):
            for _ in range(total):
                await anext(one.messages)


async def test_a_publish_between_two_messages_of_a_full_queue_is_answered() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.say(publish(0, 0) * 60)
        _, body = await peer.expect(3)
        await peer.say(publish(0, 0) * 5 + b"\x40\x02" + body[3:5])
        await peer.gone()

    async with scripted(story) as port, client(port, queue_messages_max=20) as one:
        await take(one, 1)
        async with asyncio.timeout(5):
            assert await one.publish("t", qos=1) == 0
        await take(one, 64)


async def test_an_answer_that_cannot_be_read_any_more_fails_in_words() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        _, body = await peer.expect(3)
        for _ in range(40):
            await peer.say(publish(0, 0, b"x" * 60) * 1_000)
        await peer.say(b"\x40\x02" + body[3:5])
        await peer.gone()

    async with scripted(story) as port, client(port, queue_messages_max=5) as one:
        async with asyncio.timeout(10):
            with pytest.raises(ClientError, match="wait to be taken"):
                await one.publish("t", qos=1)


async def test_a_ping_without_an_answer_loses_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.expect(12)
        assert await peer.gone()

    monkeypatch.setattr(link_room, "_PING_ANSWER_S_MIN", 0.2)
    async with scripted(story) as port, client(port, keep_alive_s=1, reconnect=False) as one:
        with pytest.raises(ConnectionLost, match="ping"):
            await take(one, 1)


async def test_the_brokers_keep_alive_stands_above_ours() -> None:
    """[MQTT-3.1.2-21]"""

    async def story(peer: Peer) -> None:
        await peer.accept(bytes.fromhex("20 06 00 00 03 13 00 01"))
        await peer.expect(12)
        await peer.say("d0 00")
        await peer.expect(12)
        await peer.say("d0 00")
        told.set()
        await peer.gone()

    told = asyncio.Event()
    async with scripted(story) as port, client(port, keep_alive_s=600) as one:
        assert one.limits.keep_alive_s == 1
        async with asyncio.timeout(5):
            await told.wait()


async def test_a_session_that_is_taken_over_is_not_fought_for() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.say("e0 01 8e")
        await peer.gone()

    async with scripted(story) as port, client(port) as one:
        with pytest.raises(Refused, match="session taken over"):
            await take(one, 1)


async def test_a_broker_that_goes_away_for_a_moment_is_waited_for() -> None:
    async def leaving(peer: Peer) -> None:
        await peer.accept()
        await peer.say("e0 01 8b")
        await peer.gone()

    async def busy(peer: Peer) -> None:
        await peer.expect(1)
        await peer.say("20 03 00 89 00")

    async def back(peer: Peer) -> None:
        await peer.accept()
        await peer.say(publish(0, 0, b"back"))
        await peer.gone()

    async with scripted(leaving, busy, back) as port, client(port) as one:
        assert (await take(one, 1))[0].payload == b"back"


async def test_without_reconnect_the_first_loss_is_the_last() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        peer.cut()

    async with scripted(story) as port, client(port, reconnect=False) as one:
        with pytest.raises(ConnectionLost):
            await take(one, 1)
        with pytest.raises(ConnectionLost):
            await one.subscribe("a")


async def test_closing_ends_iteration_and_refuses_what_follows() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.say(publish(0, 0))
        _, body = await peer.expect(14)
        assert body == b""

    async with scripted(story) as port:
        one = client(port)
        await one.connect()
        await asyncio.sleep(0.1)
        await one.close()
        assert [message.payload async for message in one.messages] == [b"x"]
        with pytest.raises(NotConnected):
            await one.publish("t")
        await one.close()
