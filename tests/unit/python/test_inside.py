"""Programs inside the broker's process: lists of messages in, lists of messages out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from casemate import Broker, native
from casemate.broker.inside import LISTS_A_TURN
from casemate.config import Configuration, Limits, Listener
from casemate.errors import BrokerStopped, Refused

AT = (Listener(kind="tcp", host="127.0.0.1", port=0),)


@pytest.fixture(scope="module")
def broker() -> AsyncIterator[Broker]:
    with Broker() as broker:
        yield broker


async def heard(subscriber: object, count: int) -> list[native.Publish]:
    """Takes so many messages."""
    messages: list[native.Publish] = []
    async for batch in subscriber.batches:
        messages.extend(batch)
        if len(messages) >= count:
            return messages
    raise AssertionError(f"only {len(messages)} of {count} came")


async def test_lists_arrive_whole_and_in_order_at_every_qos(broker: Broker) -> None:
    for qos in (0, 1, 2):
        filters = (f"lab/{qos}", qos)
        async with broker.subscriber(filters) as subscriber, broker.publisher() as publisher:
            sent = [(f"lab/{qos}", str(number).encode(), qos) for number in range(5_000)]
            hearing = asyncio.create_task(heard(subscriber, len(sent)))
            await publisher.publish(sent)
            messages = await hearing
        assert [one.payload for one in messages] == [payload for _, payload, _ in sent]
        assert {one.qos for one in messages} == {qos}


async def test_messages_come_one_by_one_where_that_is_asked_for(broker: Broker) -> None:
    async with broker.subscriber("one/#") as subscriber, broker.publisher() as publisher:
        await publisher.publish([("one/a", b"1"), ("one/b", b"2"), ("one/c", b"3")])
        topics = []
        async for message in subscriber:
            topics.append(message.topic)
            if len(topics) == 3:
                break
    assert topics == ["one/a", "one/b", "one/c"]


async def test_retain_is_kept_for_whoever_subscribes_later(broker: Broker) -> None:
    with broker.publisher() as publisher:
        publisher.publish_now([("kept/a", b"x", 1, True)])
    async with broker.subscriber("kept/a") as subscriber:
        (message,) = await heard(subscriber, 1)
    assert message.retain
    assert message.payload == b"x"


async def test_clients_of_the_network_hear_programs_inside(broker: Broker) -> None:
    async with broker.client("listener-1") as client, broker.publisher() as publisher:
        await client.subscribe("both/#")
        await publisher.publish([("both/ways", b"x", 1)])
        assert (await anext(aiter(client.messages))).topic == "both/ways"


async def test_a_role_that_may_nothing_is_refused(broker: Broker) -> None:
    with pytest.raises(Refused, match="lab/#"):
        broker.subscriber("lab/#", role="nobody")
    with broker.publisher(role="nobody") as publisher:
        publisher.publish_now([("lab/a", b"x")])
        with pytest.raises(Refused, match="2 of 3 messages") as caught:
            publisher.publish_now([("a", b"x"), ("b", b"x", 1), ("c", b"x", 2)])
    assert caught.value.reason_code == 0x87


@pytest.mark.parametrize(
    "message",
    [("lab/#", b"x"), ("", b"x"), ("a\0b", b"x"), ("a", b"x", 3), ("a", b"x" * 2_000_000)],
)
async def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    broker: Broker, message: tuple[str, bytes]
) -> None:
    async with broker.subscriber("lab/#") as subscriber, broker.publisher() as publisher:
        with pytest.raises(ValueError, match=r"."):
            publisher.publish_now([("lab/a", b"before"), message])
        publisher.publish_now([("lab/a", b"after")])
        (first, *_) = await heard(subscriber, 1)
    assert first.payload == b"after"


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "ab",
        ["a", b"x"],
        (),
        ("a",),
        ("a", b"x", 0, False, 1),
        (b"a", b"x"),
        ("a", "x"),
        ("a", None),
        ("a", 3),
        ("a", b"x", "1"),
        ("a", b"x", 0, "yes"),
    ],
)
async def test_what_is_no_message_is_refused_by_its_place(broker: Broker, wrong: object) -> None:
    async with broker.subscriber("lab/#") as subscriber, broker.publisher() as publisher:
        with pytest.raises(TypeError, match="message 1"):
            publisher.publish_now([("lab/a", b"before"), wrong])
        publisher.publish_now([("lab/a", b"after")])
        (first, *_) = await heard(subscriber, 1)
    assert first.payload == b"after"


@pytest.mark.parametrize("wrong", [-1, 3, 256, 2**70])
def test_a_number_that_is_no_qos_is_refused_by_its_place(broker: Broker, wrong: int) -> None:
    with broker.publisher() as publisher, pytest.raises(ValueError, match="message 2"):
        publisher.publish_now([("a", b"x"), ("a", b"x", 1), ("a", b"x", wrong)])


async def test_every_form_of_a_message_and_any_iterable_is_taken(broker: Broker) -> None:
    """Goal: topics in turn and one after the other arrive as they are, in whatever form."""
    topics = ["t/\u00e4", "t/b", "t/b", "t/\U0001f600", "t/b", "t/" + "x" * 1_000]
    forms = [
        lambda topic, payload: (topic, payload),
        lambda topic, payload: (topic, payload, 1),
        lambda topic, payload: (topic, payload, 2, False),
        lambda topic, payload: (topic, bytearray(payload), 0, False),
    ]
    sent = [(topic, f"{topic} {number}".encode()) for number, topic in enumerate(topics * 10)]
    async with broker.subscriber(("t/#", 2)) as subscriber, broker.publisher() as publisher:
        publisher.publish_now(forms[number % 4](*one) for number, one in enumerate(sent))
        publisher.publish_now([])
        messages = await heard(subscriber, len(sent))
    assert sorted((one.topic, one.payload) for one in messages) == sorted(sent)


@pytest.mark.parametrize("wrong", ["a/#/b", "", "a+"])
def test_a_filter_that_means_nothing_is_refused(broker: Broker, wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        broker.subscriber(wrong)


async def test_a_program_that_does_not_keep_up_holds_nobody_and_loses_only_qos_0(
    broker: Broker,
) -> None:
    """Goal: a list is not fetched before there is room. Method: nobody iterates for a while."""
    async with broker.subscriber(("slow", 1), batch_max=10) as subscriber:
        with broker.publisher() as publisher:
            publisher.publish_now([("slow", str(number).encode(), 1) for number in range(3_000)])
        messages = await heard(subscriber, 3_000)
    assert [int(one.payload) for one in messages] == list(range(3_000))


async def test_the_end_of_the_broker_ends_what_iterates() -> None:
    broker = Broker()
    await asyncio.to_thread(broker.start)
    subscriber = broker.subscriber("#")
    publisher = broker.publisher()
    waiting = asyncio.create_task(heard(subscriber, 1))
    await asyncio.sleep(0)
    await asyncio.to_thread(broker.stop)
    with pytest.raises(BrokerStopped):
        await waiting
    with pytest.raises(BrokerStopped):
        publisher.publish_now([("a", b"x")])
    with pytest.raises(BrokerStopped):
        broker.publisher()
    subscriber.close()
    subscriber.close()


async def test_closing_ends_what_iterates(broker: Broker) -> None:
    subscriber = broker.subscriber("quiet")

    async def all_of_it() -> int:
        return len([message async for message in subscriber])

    waiting = asyncio.create_task(all_of_it())
    await asyncio.sleep(0)
    subscriber.close()
    assert await waiting == 0


async def test_closing_in_another_thread_ends_what_iterates(broker: Broker) -> None:
    subscriber = broker.subscriber("quiet")
    waiting = asyncio.create_task(anext(aiter(subscriber.batches)))
    await asyncio.sleep(0)
    await asyncio.to_thread(subscriber.close)
    with pytest.raises(StopAsyncIteration):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(aiter(subscriber))


async def test_who_stops_waiting_loses_nothing(broker: Broker) -> None:
    """Goal: a list that arrived for a task that was cancelled meanwhile is the next one's.

    Method: the task is cancelled in the very turn in which the list has woken it.
    """
    async with broker.subscriber(("late", 1)) as subscriber, broker.publisher() as publisher:
        waiting = asyncio.create_task(anext(aiter(subscriber.batches)))
        await asyncio.sleep(0)
        publisher.publish_now([("late", b"1", 1)])  # The loop has no turn of its own meanwhile.
        while not subscriber._arrived.is_set():  # noqa: ASYNC110 - turn by turn is the point.
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await publisher.publish([("late", b"2", 1)])
        assert [one.payload for one in await heard(subscriber, 2)] == [b"1", b"2"]


async def test_two_tasks_share_what_one_subscriber_gets(broker: Broker) -> None:
    payloads: list[bytes] = []

    async def share() -> None:
        async for message in subscriber:
            payloads.append(message.payload)
            await asyncio.sleep(0)
            if len(payloads) == 200:
                subscriber.close()

    subscriber = broker.subscriber(("shared", 1), batch_max=3)
    async with subscriber, broker.publisher() as publisher:
        tasks = [asyncio.create_task(share()) for _ in range(2)]
        await publisher.publish([("shared", str(number).encode(), 1) for number in range(200)])
        await asyncio.gather(*tasks)
    assert sorted(map(int, payloads)) == list(range(200))


async def test_the_loop_has_its_turns_while_more_is_always_there(broker: Broker) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with broker.subscriber(("much", 1), batch_max=10) as subscriber:
        with broker.publisher() as publisher:
            publisher.publish_now([("much", b"x", 1)] * 3_000)
        counting = asyncio.create_task(count())
        await heard(subscriber, 3_000)
        counting.cancel()
    assert turns >= 300 // LISTS_A_TURN


async def test_what_nobody_asks_for_does_not_wake_the_loop(broker: Broker) -> None:
    """Goal: a program that is long over a list costs nothing, though the next has arrived."""
    loop = asyncio.get_running_loop()
    async with broker.subscriber("calm") as subscriber, broker.publisher() as publisher:
        batches = aiter(subscriber.batches)
        waiting = asyncio.create_task(anext(batches))
        await asyncio.sleep(0)
        await publisher.publish([("calm", b"1")])
        await waiting
        await publisher.publish([("calm", b"2")])
        while subscriber._is_watching:  # noqa: ASYNC110 - a look is in a turn of its own.
            await asyncio.sleep(0)
        assert not loop.remove_reader(subscriber._link.fileno())
        assert (await anext(batches))[0].payload == b"2"


async def test_a_word_is_said_however_long_the_program_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Goal: the next word is due before the broker has had enough, from the first list on."""
    loop = asyncio.get_running_loop()
    due: list[tuple[float, Callable[..., None]]] = []
    with Broker(configuration=Configuration(listeners=AT, limits=Limits(keep_alive_s_max=6))) as it:
        async with it.subscriber("calm") as subscriber, it.publisher() as publisher:
            await publisher.publish([("calm", b"1")])
            with monkeypatch.context() as patched:
                patched.setattr(loop, "call_later", lambda *words: due.append(words[:2]))
                async for _ in subscriber:
                    break
                assert [0 < seconds <= 3 for seconds, _ in due] == [True]
                due[0][1](loop)
                assert len(due) == 2
        due[1][1](loop)
        assert len(due) == 2, "nothing is said after the end"


def test_a_link_belongs_to_one_thread_at_a_time(broker: Broker) -> None:
    """Goal: a second thread is told, and not kept waiting with the interpreter in its hand."""
    with broker.publisher() as publisher:
        link = publisher._link
        link.subscribe([("never", 0)])
        begun = threading.Event()
        outcomes: list[object] = []

        def wait() -> None:
            begun.set()
            try:
                link.receive(1, 60.0)
            except native.LinkLost as error:
                outcomes.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        begun.wait()
        told = False
        for _ in range(1_000_000):
            try:
                link.is_silent()
            except RuntimeError:
                told = True
                break
        link.close()
        thread.join()
    assert told
    assert len(outcomes) == 1
