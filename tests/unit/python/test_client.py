"""The client against the real broker, over TLS with a certificate of its own.

Each test has a throw-away broker of its own; nothing is simulated.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from casemate.client import Client, Message, Properties, Will
from casemate.errors import Refused
from casemate.testing import Relay, ThrowAwayBroker

VERSIONS = (3, 4, 5)


@pytest.fixture
def broker(casemate_broker: ThrowAwayBroker) -> ThrowAwayBroker:
    return casemate_broker


async def take(one: Client, count: int) -> list[Message]:
    async with asyncio.timeout(15):
        return [await anext(one.messages) for _ in range(count)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_messages_of_each_qos_arrive_in_order(broker: ThrowAwayBroker, version: int) -> None:
    async with (
        broker.client("one", version=version) as publisher,
        broker.client("two", version=version) as subscriber,
    ):
        assert await subscriber.subscribe("lab/+/temp", "lab/#", qos=2) == [2, 2]
        await subscriber.unsubscribe("lab/#")
        for qos in (0, 1, 2):
            for number in range(50):
                await publisher.publish("lab/1/temp", str(number), qos=qos)
            found = await take(subscriber, 50)
            assert [message.text for message in found] == [str(number) for number in range(50)]
            assert {message.qos for message in found} == {qos}


@pytest.mark.parametrize("version", VERSIONS)
async def test_many_messages_at_once_arrive_once_each(
    broker: ThrowAwayBroker, version: int
) -> None:
    async with (
        broker.client("one", version=version) as publisher,
        broker.client("two", version=version) as subscriber,
    ):
        await subscriber.subscribe("t", qos=2)
        work = [publisher.publish("t", str(number), qos=2) for number in range(2_000)]
        _, found = await asyncio.gather(asyncio.gather(*work), take(subscriber, 2_000))
        assert [message.text for message in found] == [str(number) for number in range(2_000)]


async def test_properties_travel_unchanged(broker: ThrowAwayBroker) -> None:
    properties = Properties(
        payload_is_text=True,
        content_type="text/plain",
        response_topic="answer",
        correlation_data=b"\x00\xff",
        user=(("b", "2"), ("a", "1"), ("b", "2")),
    )
    async with broker.client("one") as one:
        await one.subscribe("t", qos=1, subscription_id=7)
        await one.publish("t", "x", qos=1, properties=properties)
        (message,) = await take(one, 1)
    assert message.properties == properties
    assert message.subscription_ids == (7,)


async def test_message_expiry_counts_down(broker: ThrowAwayBroker) -> None:
    async with broker.client("one") as one:
        await one.publish("t", "x", retain=True, properties=Properties(message_expiry_s=100))
        await one.subscribe("t")
        (message,) = await take(one, 1)
    assert message.properties.message_expiry_s is not None
    assert 95 <= message.properties.message_expiry_s <= 100


@pytest.mark.parametrize("version", VERSIONS)
async def test_retained_messages_are_kept_and_deleted(
    broker: ThrowAwayBroker, version: int
) -> None:
    async with broker.client("one", version=version) as one:
        await one.publish("t", "kept", qos=1, retain=True)
        await one.subscribe("t")
        (message,) = await take(one, 1)
        assert (message.text, message.retain) == ("kept", True)
        await one.publish("t", b"", qos=1, retain=True)
        assert (await take(one, 1))[0].payload == b""
    async with broker.client("two", version=version) as two:
        await two.subscribe("t")
        await two.publish("t", "live", qos=1)
        assert (await take(two, 1))[0].text == "live"


async def test_no_local_and_retain_as_published_are_obeyed(broker: ThrowAwayBroker) -> None:
    async with broker.client("one") as one, broker.client("two") as two:
        await one.subscribe("t", no_local=True, retain_as_published=True)
        await one.publish("t", "mine", qos=1)
        await two.publish("t", "theirs", qos=1, retain=True)
        (message,) = await take(one, 1)
        assert (message.text, message.retain) == ("theirs", True)


async def test_a_shared_subscription_gives_each_message_to_one(broker: ThrowAwayBroker) -> None:
    async with broker.client("one") as one, broker.client("two") as two:
        await one.subscribe("$share/g/t", qos=1)
        await two.subscribe("$share/g/t", qos=1)
        for number in range(20):
            await one.publish("t", str(number), qos=1)
        async with asyncio.timeout(5):
            while len(one.inbox) + len(two.inbox) < 20:  # noqa: ASYNC110 - two queues, one sum.
                await asyncio.sleep(0.01)
        found = await take(one, len(one.inbox)) + await take(two, len(two.inbox))
        assert sorted(int(message.text) for message in found) == list(range(20))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_will_is_published_when_the_connection_is_cut(
    broker: ThrowAwayBroker, casemate_relay: Relay, version: int
) -> None:
    async with broker.client("watcher") as watcher:
        await watcher.subscribe("wills/#")
        options = {"through": casemate_relay, "version": version, "reconnect": False}
        for name in ("polite", "dying"):
            one = broker.client(name, will=Will(f"wills/{name}", b"x"), **options)
            await one.connect()
            if name == "polite":
                await one.close()
            else:
                casemate_relay.cut()
        assert [message.topic for message in await take(watcher, 1)] == ["wills/dying"]
        await one.close()


async def test_a_goodbye_can_ask_for_the_will(broker: ThrowAwayBroker) -> None:
    async with broker.client("watcher") as watcher:
        await watcher.subscribe("wills/#")
        one = broker.client("one", will=Will("wills/one", b"x"))
        await one.connect()
        await one.close(with_will=True)
        assert (await take(watcher, 1))[0].topic == "wills/one"


@pytest.mark.parametrize("qos", [1, 2])
async def test_nothing_is_lost_or_doubled_over_cuts(
    broker: ThrowAwayBroker, casemate_relay: Relay, qos: int
) -> None:
    """Cuts both connections again and again while messages flow; the sessions must hold."""
    total = 400
    options = {"clean_start": False, "session_expiry_s": 300, "reconnect_s_max": 0.2}
    async with (
        broker.client("one", through=casemate_relay, **options) as publisher,
        broker.client("two", through=casemate_relay, **options) as subscriber,
    ):
        await subscriber.subscribe("t", qos=qos)
        done = asyncio.Event()

        async def disturb() -> None:
            while not done.is_set():
                await asyncio.sleep(0.4)
                casemate_relay.cut()

        async def publish() -> None:
            for number in range(total):
                await publisher.publish("t", str(number), qos=qos)
                await asyncio.sleep(0.002)

        async def receive() -> list[int]:
            found: list[int] = []
            async for message in subscriber.messages:
                found.append(int(message.text))
                if found[-1] == total - 1:
                    break
            return found

        disturbing = asyncio.create_task(disturb())
        async with asyncio.timeout(60):
            _, found = await asyncio.gather(publish(), receive())
        done.set()
        await disturbing
        assert casemate_relay.accepted > 4
    if qos == 2:
        assert found == list(range(total))
    else:
        assert sorted(set(found)) == list(range(total))


async def test_a_denied_publish_and_subscription_are_refused_in_words(
    broker: ThrowAwayBroker,
) -> None:
    async with broker.client("t7", role="sensor") as one:
        with pytest.raises(Refused, match="not authorized"):
            await one.subscribe("devices/#")
        with pytest.raises(Refused, match="not authorized"):
            await one.publish("devices/t8/temp", "1", qos=1)
        await one.publish("devices/t7/temp", "1", qos=1)
        assert await one.subscribe("devices/t7/commands/#", qos=1) == [1]


async def test_a_large_message_arrives_whole(broker: ThrowAwayBroker) -> None:
    payload = os.urandom(1_000_000)
    async with broker.client("one") as one:
        await one.subscribe("t", qos=2)
        await one.publish("t", payload, qos=2)
        assert (await take(one, 1))[0].payload == payload


async def test_a_message_above_the_brokers_maximum_is_refused_here(broker: ThrowAwayBroker) -> None:
    async with broker.client("one") as one:
        assert one.limits.packet_bytes_max == 1_048_576
        with pytest.raises(Refused) as refused:
            await one.publish("t", bytes(1_048_576), qos=1)
        assert refused.value.reason_code == 0x95
        await one.publish("t", b"still here", qos=1)


async def test_an_idle_connection_lives_by_its_pings(broker: ThrowAwayBroker) -> None:
    async with broker.client("one", keep_alive_s=1, reconnect=False) as one:
        await asyncio.sleep(2.5)
        await one.publish("t", qos=1)
