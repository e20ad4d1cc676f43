"""Blocks with messages of their own, requests and answers, against the real broker and a script.

What only another broker would do (no subscription ids, late messages, a lost session) is scripted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from casemate.client import Client, Message, Properties, Subscription, TopicPattern
from casemate.client.inbox import Inbox
from casemate.errors import ClientError, ConnectionLost, DeadlinePassed, NotConnected, Refused
from casemate.testing import ThrowAwayBroker
from tests.unit.python.scripted import (
    CONNACK_4,
    CONNACK_5,
    CONNACK_5_RESUMED,
    Peer,
    client,
    publish,
    scripted,
    take,
)

VERSIONS = (3, 4, 5)


@pytest.fixture(scope="module")
def broker() -> Iterator[ThrowAwayBroker]:
    with ThrowAwayBroker() as one:
        yield one


async def some(messages: Inbox, count: int) -> list[str]:
    async with asyncio.timeout(10):
        return [(await anext(messages)).text for _ in range(count)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_each_block_gets_its_own_messages_and_the_client_the_rest(
    broker: ThrowAwayBroker, version: int
) -> None:
    async with broker.client("one", version=version) as one:
        await one.subscribe("rest/#", qos=1)
        async with (
            one.subscription("a/+", qos=1) as a,
            one.subscription(TopicPattern("b/{x}/{y}"), "c", qos=2) as b,
        ):
            for topic in ("a/1", "rest/1", "b/1/2", "c", "a/2"):
                await one.publish(topic, topic, qos=1)
            assert await some(a, 2) == ["a/1", "a/2"]
            assert await some(b, 2) == ["b/1/2", "c"]
            assert await some(one.messages, 1) == ["rest/1"]
        assert set(one._exchange.session.subscriptions) == {"rest/#"}
        await one.publish("a/3", qos=1)
        await one.publish("rest/2", "rest/2", qos=1)
        assert await some(one.messages, 1) == ["rest/2"]
        assert len(a) == len(b) == 0


async def test_stored_messages_come_to_the_block(broker: ThrowAwayBroker) -> None:
    async with broker.client("one") as one:
        await one.publish("stored", "kept", qos=1, retain=True)
        async with one.subscription("stored", qos=1) as messages:
            assert await some(messages, 1) == ["kept"]
        async with one.subscription("stored", retain_handling=2) as messages:
            await one.publish("stored", b"", retain=True, qos=1)
            assert await some(messages, 1) == [""]


async def test_a_message_for_two_blocks_is_acknowledged_when_both_have_it(
    broker: ThrowAwayBroker,
) -> None:
    async with (
        broker.client("one", receive_max=1) as one,
        one.subscription("a/+", qos=1) as first,
        one.subscription("a/1", qos=1) as both,
    ):
        await one.publish("a/1", "x", qos=1)
        await one.publish("a/2", "y", qos=1)
        assert await some(both, 1) == ["x"]
        # The first block has not taken it: the broker may send no other yet.
        await one.publish("elsewhere", qos=1)
        assert len(first) == 1
        assert await some(first, 2) == ["x", "y"]


@pytest.mark.parametrize("version", [4, 5])
async def test_a_filter_belongs_to_one(broker: ThrowAwayBroker, version: int) -> None:
    async with broker.client("one", version=version) as one:
        await one.subscribe("a")
        with pytest.raises(ValueError, match="already"):
            async with one.subscription("b", "a"):
                pass
        assert set(one._exchange.session.subscriptions) == {"a"}
        async with one.subscription("b"):
            with pytest.raises(ValueError, match="already"):
                async with one.subscription("b"):
                    pass
            for wrong in (one.subscribe("b"), one.unsubscribe("b")):
                with pytest.raises(ValueError, match="already"):
                    await wrong
        assert await one.subscribe("b") == [0]


async def test_a_block_that_is_refused_leaves_nothing(broker: ThrowAwayBroker) -> None:
    async with broker.client("t7", role="sensor") as one:
        with pytest.raises(Refused, match="not authorized"):
            async with one.subscription("devices/t7/commands/#", "devices/#"):
                pytest.fail("it was refused")
        assert not one._exchange.session.subscriptions
        async with one.subscription("devices/t7/commands/#"):
            pass


@pytest.mark.parametrize("wrong", [(), ("a#",), ("",)])
async def test_a_block_without_a_filter_that_can_be_is_refused(
    broker: ThrowAwayBroker, wrong: tuple[str, ...]
) -> None:
    async with broker.client("one") as one:
        with pytest.raises(ValueError, match="filter"):
            async with one.subscription(*wrong):
                pass


async def test_what_nobody_took_when_a_block_ends_is_acknowledged(broker: ThrowAwayBroker) -> None:
    """Were it not, the broker's window would fill for ever with what nobody reads."""
    async with broker.client("one", receive_max=2) as one:
        for _ in range(3):
            async with one.subscription("a", qos=2):
                for number in range(5):
                    await one.publish("a", str(number), qos=0)
        async with one.subscription("a", qos=2) as messages:
            await one.publish("a", "last", qos=2)
            assert await some(messages, 1) == ["last"]


async def test_blocks_are_restored_on_a_new_connection(broker: ThrowAwayBroker) -> None:
    with broker.relay() as relay:
        async with (
            broker.client("one", through=relay, reconnect_s_max=0.1) as one,
            one.subscription("a", qos=1) as messages,
        ):
            relay.cut()
            async with asyncio.timeout(10):
                await one.wait_disconnected()
                await one.wait_connected()
            await one.publish("a", "again", qos=1)
            assert await some(messages, 1) == ["again"]


async def test_a_block_ends_with_its_client(broker: ThrowAwayBroker) -> None:
    one = broker.client("one")
    await one.connect()
    async with one.subscription("a") as messages:
        await one.close()
        assert [message async for message in messages] == []


async def test_a_block_hears_why_its_client_failed() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept(CONNACK_4)
        _, body = await peer.expect(8)
        await peer.say(b"\x90\x03" + body[:2] + b"\x00")
        peer.cut()

    async with (
        scripted(story) as port,
        client(port, version=4, reconnect=False) as one,
        one.subscription("a") as messages,
    ):
        with pytest.raises(ConnectionLost):
            await anext(messages)


def message_4(topic: str) -> bytes:
    return bytes([0x30, len(topic) + 3, 0, len(topic)]) + topic.encode() + b"x"


async def test_what_comes_late_for_a_block_does_not_fill_the_clients_queue() -> None:
    """After UNSUBACK a broker may still send what it had under way."""

    async def story(peer: Peer) -> None:
        await peer.accept(CONNACK_4)
        for kind, answer in ((8, b"\x90\x03%b\x00"), (8, b"\x90\x03%b\x00"), (10, b"\xb0\x02%b")):
            _, body = await peer.expect(kind)
            await peer.say(answer % body[:2])
        await peer.say(message_4("a/1") + message_4("a/b") + message_4("z"))
        await peer.gone()

    async with scripted(story) as port, client(port, version=4) as one:
        await one.subscribe("+/b")
        async with one.subscription("a/+"):
            pass
        # "a/b" answers what still stands; "z" was never asked for by a block.
        found = [message.topic for message in await take(one, 2)]
        assert found == ["a/b", "z"]
        assert one._delivery.late == 1


@pytest.mark.parametrize(("qos", "ack"), [(1, 0x40), (2, 0x50)])
async def test_acknowledgements_leave_in_the_order_of_arrival(qos: int, ack: int) -> None:
    """[MQTT-4.6.0-2] [MQTT-4.6.0-3] though the block that is read first got the second message."""

    def publish_4(topic: str, packet_id: int) -> bytes:
        return bytes([0x30 | qos << 1, 5, 0, 1]) + topic.encode() + bytes([0, packet_id])

    async def story(peer: Peer) -> None:
        await peer.accept(CONNACK_4)
        for _ in range(2):
            _, body = await peer.expect(8)
            await peer.say(b"\x90\x03" + body[:2] + bytes([qos]))
        await peer.say(publish_4("a", 1) + publish_4("b", 2) + publish_4("b", 3))
        assert await peer.is_silent()
        go_on.set()
        for expected in (1, 2, 3):
            first, body = await peer.packet()
            assert (first, body) == (ack, bytes([0, expected]))
        told.set()
        await peer.gone()

    go_on, told = asyncio.Event(), asyncio.Event()
    async with scripted(story) as port, client(port, version=4, reconnect=False) as one:
        one_block, other = one.subscription("a", qos=qos), one.subscription("b", qos=qos)
        # Left by the end of the client: the script answers no UNSUBSCRIBE.
        a, b = await one_block.__aenter__(), await other.__aenter__()
        await some(b, 2)
        await go_on.wait()
        await some(a, 1)
        async with asyncio.timeout(5):
            await told.wait()


async def test_a_block_that_ends_without_a_connection_is_ended_at_the_next() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept(CONNACK_5)
        _, body = await peer.expect(8)
        await peer.say(b"\x90\x04" + body[:2] + b"\x00\x00")
        peer.cut()

    async def second(peer: Peer) -> None:
        await go_on.wait()
        await peer.accept(CONNACK_5_RESUMED)
        _, body = await peer.expect(10)
        assert body[5:] == b"a"
        await peer.say(b"\xb0\x04" + body[:2] + b"\x00\x00")
        told.set()
        await peer.gone()

    go_on, told = asyncio.Event(), asyncio.Event()
    options = {"client_id": "c", "clean_start": False, "session_expiry_s": 60}
    async with scripted(first, second) as port, client(port, **options) as one:
        async with one.subscription("a"):
            await one.wait_disconnected()
        go_on.set()
        async with asyncio.timeout(5):
            await told.wait()


async def test_without_subscription_ids_the_topic_tells() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept(bytes.fromhex("20 05 00 00 02 29 00"))
        _, body = await peer.expect(8)
        assert body[2] == 0, "no property, as the broker takes no id"
        await peer.say(
            b"\x90\x04" + body[:2] + b"\x00\x00" + bytes.fromhex("30 06 00 03 612f31 00")
        )
        _, body = await peer.expect(10)
        await peer.say(b"\xb0\x04" + body[:2] + b"\x00\x00")
        await peer.gone()

    async with scripted(story) as port, client(port) as one, one.subscription("a/+") as messages:
        assert await some(messages, 1) == [""]


async def test_the_clients_queue_and_the_blocks_are_bounded_each(broker: ThrowAwayBroker) -> None:
    """A block that is not read stops the reading, and a publish in it fails in words."""
    async with broker.client("one", queue_messages_max=5) as one, one.subscription("a") as messages:
        for number in range(5):
            await one.publish("a", str(number))
        async with asyncio.timeout(5):
            while len(messages) < 5:  # noqa: ASYNC110 - there is no event for a full queue.
                await asyncio.sleep(0.01)
        assert one._exchange.is_full(overdraft=False)
        assert await some(messages, 5) == ["0", "1", "2", "3", "4"]
        assert not one._exchange.is_full(overdraft=False)


# By hand


async def test_a_message_is_acknowledged_when_the_program_says_so() -> None:
    """In the order of arrival, whatever the order of the calls [MQTT-4.6.0-2]."""

    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.say(publish(1, 7) + publish(1, 8) + publish(0, 0))
        assert await peer.is_silent()
        go_on.set()
        for expected in (7, 8):
            _, body = await peer.expect(4)
            assert body[:2] == bytes([0, expected])
        told.set()
        assert await peer.is_silent()

    go_on, told = asyncio.Event(), asyncio.Event()
    async with scripted(story) as port, client(port, acknowledge_by_hand=True) as one:
        first, second, third = await take(one, 3)
        one.acknowledge(third)
        one.acknowledge(second)
        await go_on.wait()
        one.acknowledge(first)
        one.acknowledge(first)
        async with asyncio.timeout(5):
            await told.wait()


async def test_what_was_not_acknowledged_by_hand_comes_again(broker: ThrowAwayBroker) -> None:
    options = {"clean_start": False, "session_expiry_s": 60, "acknowledge_by_hand": True}
    async with broker.client("careful", **options) as one:
        await one.subscribe("work", qos=1)
        for number in range(3):
            await one.publish("work", str(number), qos=1)
        messages = await take(one, 3)
        one.acknowledge(messages[0])
        await one.publish("elsewhere", qos=1)
    async with broker.client("careful", **options) as one:
        assert [message.text for message in await take(one, 2)] == ["1", "2"]
    with pytest.raises(ValueError, match="acknowledge_by_hand"):
        one.acknowledge(Message("t", b"", 1, False, False, Properties(), ()))


async def test_a_block_that_ends_acknowledges_what_nobody_took(broker: ThrowAwayBroker) -> None:
    async with broker.client("one", receive_max=2, acknowledge_by_hand=True) as one:
        for _ in range(3):
            async with one.subscription("a", qos=1):
                for number in range(5):
                    await one.publish("a", str(number))
        async with one.subscription("a", qos=1) as messages:
            await one.publish("a", "last", qos=1)
            assert await some(messages, 1) == ["last"]


# Requests


async def answering(one: Client, topic: str, entered: asyncio.Event) -> None:
    async with one.subscription(topic, qos=1) as requests:
        entered.set()
        async for request in requests:
            await one.reply(request, request.payload.upper())


@pytest.fixture
async def echo(broker: ThrowAwayBroker) -> AsyncIterator[Client]:
    async with broker.client("echo") as one:
        entered = asyncio.Event()
        task = asyncio.create_task(answering(one, "echo", entered))
        await entered.wait()
        yield one
        task.cancel()


async def test_a_request_gets_its_own_answer(broker: ThrowAwayBroker, echo: Client) -> None:
    async with broker.client("one") as one:
        texts = [f"hello {number}" for number in range(50)]
        answers = await asyncio.gather(*(one.request("echo", text) for text in texts))
        assert [answer.text for answer in answers] == [text.upper() for text in texts]
        assert {answer.topic for answer in answers} == {"responses/one"}
        assert set(one._exchange.session.subscriptions) == {"responses/one"}
        assert len(one.inbox) == 0


async def test_a_request_takes_its_own_response_topic(
    broker: ThrowAwayBroker, echo: Client
) -> None:
    async with broker.client("one") as one:
        properties = Properties(content_type="text/plain")
        answer = await one.request("echo", "x", response_topic="mine/1", properties=properties)
        assert (answer.topic, answer.text) == ("mine/1", "X")


async def test_a_request_to_nobody_fails_at_once_where_the_broker_says_so() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        _, body = await peer.expect(8)
        await peer.say(b"\x90\x04" + body[:2] + b"\x00\x01")
        _, body = await peer.expect(3)
        await peer.say(b"\x40\x04" + body[7:9] + b"\x10\x00")
        await peer.gone()

    async with scripted(story) as port, client(port, client_id="c") as one:
        with pytest.raises(ClientError, match="nobody has subscribed"):
            await one.request("other", timeout_s=5)


async def test_a_request_without_an_answer_ends_at_the_deadline(broker: ThrowAwayBroker) -> None:
    async with broker.client("one") as one, broker.client("two") as two:
        await two.subscribe("silent")
        with pytest.raises(DeadlinePassed, match=r"no answer to \"silent\" came within 0\.1 s"):
            await one.request("silent", timeout_s=0.1)
        request = (await take(two, 1))[0]
        # The answer comes all the same; nobody waits, and nothing piles up.
        await two.reply(request, "late")
        await two.publish("responses/one", "no correlation", qos=1)
        assert len(one.inbox) == 0
        assert one._subscriber._answers["responses/one"]._awaited == {}


async def test_a_request_needs_mqtt_5(broker: ThrowAwayBroker) -> None:
    async with broker.client("one", version=4) as one:
        with pytest.raises(ClientError, match=r"need MQTT 5\.0"):
            await one.request("echo")


async def test_a_request_whose_answer_may_not_be_heard_is_refused(broker: ThrowAwayBroker) -> None:
    async with broker.client("t7", role="sensor") as one:
        for _ in range(2):
            with pytest.raises(Refused, match=r'subscription to "responses/t7"'):
                await one.request("devices/t7/temp")


async def test_a_message_that_asks_for_nothing_is_not_answered(broker: ThrowAwayBroker) -> None:
    async with broker.client("one") as one:
        await one.subscribe("plain")
        await one.publish("plain", "x", qos=1)
        with pytest.raises(ValueError, match="no response topic"):
            await one.reply((await take(one, 1))[0])


@pytest.mark.parametrize("topic", ["a/+", "#", "a\0b", ""])
async def test_a_response_topic_that_cannot_be_is_refused(
    broker: ThrowAwayBroker, topic: str
) -> None:
    request = Message("t", b"", 0, False, False, Properties(response_topic=topic), ())
    async with broker.client("one") as one:
        with pytest.raises(ValueError, match="topic name"):
            await one.reply(request)


async def test_requests_fail_when_the_client_closes(broker: ThrowAwayBroker) -> None:
    async with broker.client("two") as two:
        await two.subscribe("silent")
        one = broker.client("one")
        await one.connect()
        asking = asyncio.create_task(one.request("silent", timeout_s=30))
        await take(two, 1)
        await one.close()
        with pytest.raises((NotConnected, ClientError)):
            await asyncio.wait_for(asking, 5)


async def test_the_broker_can_suggest_where_answers_come() -> None:
    async def story(peer: Peer) -> None:
        connect = await peer.accept(bytes.fromhex("20 0a 00 00 07 1a 00 04") + b"me/1")
        assert b"\x19\x01" in connect, "response information was asked for"
        _, body = await peer.expect(8)
        assert b"me/1" in body
        await peer.say(b"\x90\x04" + body[:2] + b"\x00\x01")
        await peer.expect(3)
        peer.cut()

    async with scripted(story) as port, client(port, reconnect=False) as one:
        with pytest.raises(ConnectionLost):
            await one.request("echo")


async def test_a_subscription_with_options_may_be_given_as_one(broker: ThrowAwayBroker) -> None:
    async with broker.client("one") as one:
        await one.subscribe(Subscription("a", 1, no_local=True), TopicPattern("b/{x}"))
        assert set(one._exchange.session.subscriptions) == {"a", "b/+"}
        await one.unsubscribe("a", TopicPattern("b/{x}"))
        assert not one._exchange.session.subscriptions
