"""The client against a broker that misbehaves or cuts at the worst moment.

What a real broker never says is said by a scripted one, byte by byte; what it does say is tested
against the real one in test_client.py.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from casemate.client import Client, Will
from casemate.errors import (
    ConnectionLost,
    DeadlinePassed,
    ProtocolViolation,
    Refused,
    Unreachable,
    Untrusted,
)
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


async def test_cve_2024_10525_a_suback_without_codes_ends_the_connection() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        _, body = await peer.expect(8)
        await peer.say(b"\x90\x03" + body[:2] + b"\x00")
        assert await peer.gone()

    async with scripted(story) as port, client(port, reconnect=False) as one:
        with pytest.raises(ProtocolViolation):
            await one.subscribe("a")


async def test_a_suback_with_other_codes_than_asked_is_refused() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        _, body = await peer.expect(8)
        await peer.say(b"\x90\x05" + body[:2] + b"\x00\x00\x00")

    async with scripted(story) as port, client(port, reconnect=False) as one:
        with pytest.raises(ProtocolViolation, match="another number"):
            await one.subscribe("a")


@pytest.mark.parametrize(
    "answer",
    [
        "30 03 00 01 74",  # PUBLISH before CONNACK
        "20 ff ff ff 7f",  # a CONNACK of 256 MiB
        "48 54 54 50 2f 31 2e 31 20 34 30 30 0d 0a",  # HTTP
        "10 00",  # CONNECT from a broker
        "20 03 01 87 00",  # session present in a refusal
        "20 03 02 00 00",  # a reserved flag
    ],
)
async def test_an_answer_to_connect_that_is_no_connack_is_refused(answer: str) -> None:
    async def story(peer: Peer) -> None:
        await peer.expect(1)
        await peer.say(answer)

    async with scripted(story) as port:
        with pytest.raises(ProtocolViolation):
            await client(port).connect()


async def test_a_broker_that_closes_before_connack_is_a_lost_connection() -> None:
    async def story(peer: Peer) -> None:
        await peer.expect(1)

    async with scripted(story) as port:
        with pytest.raises(ConnectionLost, match="closed the connection"):
            await client(port).connect()


async def test_a_broker_that_never_answers_connect_ends_at_the_deadline() -> None:
    async def story(peer: Peer) -> None:
        assert await peer.gone()

    async with scripted(story) as port:
        with pytest.raises(DeadlinePassed, match="did not answer CONNECT"):
            await client(port, connect_timeout_s=0.2).connect()


async def test_nothing_listening_is_said_in_words() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(Unreachable, match=r"nothing listens on 127\.0\.0\.1"):
        await client(port).connect()
    with pytest.raises(Unreachable, match="nothing listens on localhost"):
        await Client("localhost", port, tls=False).connect()


async def test_a_unix_socket_that_is_not_there_or_not_open_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="there is no socket") as missing:
        await Client(unix_socket=tmp_path / "none.sock").connect()
    assert "running" in missing.value.hint
    closed = tmp_path / "closed.sock"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(closed))
        with pytest.raises(Unreachable, match="nothing listens on"):
            await Client(unix_socket=closed).connect()
    # asyncio says that the path is too long, uvloop that there is none.
    with pytest.raises(Unreachable, match=r"cannot be reached|there is no socket"):
        await Client(unix_socket=tmp_path / ("x" * 200)).connect()


async def test_a_refusal_is_raised_with_its_reason_in_words() -> None:
    async def story(peer: Peer) -> None:
        await peer.expect(1)
        await peer.say("20 0a 00 87 07 1f 00 04 6e 6f 70 65")

    async with scripted(story) as port:
        with pytest.raises(Refused, match="not authorized") as refused:
            await client(port).connect()
    assert refused.value.reason_code == 0x87
    assert refused.value.cause == "nope"


async def test_a_return_code_of_3_1_1_is_raised_as_its_reason() -> None:
    async def story(peer: Peer) -> None:
        await peer.expect(1)
        await peer.say("20 02 00 04")

    async with scripted(story) as port:
        with pytest.raises(Refused) as refused:
            await client(port, version=4).connect()
    assert refused.value.reason_code == 0x86


def test_plaintext_off_loopback_needs_its_name() -> None:
    with pytest.raises(Untrusted, match="plaintext"):
        Client("192.0.2.1", tls=False)
    Client("192.0.2.1", tls=False, insecure_plaintext=True)
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"):
        Client(host, tls=False)


@pytest.mark.parametrize(
    "options",
    [
        {"version": 6},
        {"keep_alive_s": 65_536},
        {"keep_alive_s": -1},
        {"receive_max": 0},
        {"receive_max": 65_536},
        {"queue_messages_max": 0},
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"[0-9]"):
        Client("localhost", tls=False, **options)  # type: ignore[arg-type]


async def test_a_message_is_acknowledged_when_the_program_takes_it() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.say(publish(1, 7) + publish(2, 8))
        assert await peer.is_silent()
        taken.set()
        first, body = await peer.packet()
        assert (first, body[:2]) == (0x40, b"\x00\x07")
        first, body = await peer.packet()
        assert (first, body[:2]) == (0x50, b"\x00\x08")
        await peer.say("62 02 00 08")
        first, body = await peer.packet()
        assert (first, body[:2]) == (0x70, b"\x00\x08")

    taken = asyncio.Event()
    async with scripted(story) as port, client(port) as one:
        await taken.wait()
        await take(one, 2)
        await asyncio.sleep(0.1)


async def test_a_repeated_qos_2_publish_reaches_the_program_once() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.say(publish(2, 8) + publish(2, 8, dup=True) + publish(2, 8, dup=True))
        await peer.expect(5)
        # The broker has not seen our PUBREC: it repeats, and gets it again.
        await peer.say(publish(2, 8, dup=True))
        await peer.expect(5)
        await peer.say("62 02 00 08" + "30 04 00 01 74 00")
        await peer.expect(7)

    async with scripted(story) as port, client(port) as one:
        messages = await take(one, 2)
        assert [message.qos for message in messages] == [2, 0]


async def test_a_qos_2_message_is_not_doubled_by_a_cut_between_publish_and_pubrel() -> None:
    async def cut(peer: Peer) -> None:
        await peer.accept()
        await peer.say(publish(2, 8) + publish(2, 9) + publish(1, 10))
        await peer.expect(5)
        peer.cut()

    async def resumed(peer: Peer) -> None:
        await peer.accept(CONNACK_5_RESUMED)
        await peer.say(publish(2, 8, dup=True) + publish(2, 9, dup=True))
        await peer.say(publish(1, 10, dup=True))
        _, body = await peer.expect(5)
        assert body[:2] == b"\x00\x08"
        read_on.set()
        _, body = await peer.expect(5)
        assert body[:2] == b"\x00\x09"
        await peer.expect(4)
        await peer.say("62 02 00 08" + "62 02 00 09" + "30 05 00 01 74 00 7a")
        await peer.expect(7)
        await peer.expect(7)

    read_on = asyncio.Event()
    async with (
        scripted(cut, resumed) as port,
        client(port, client_id="c", clean_start=False, session_expiry_s=60) as one,
    ):
        await take(one, 1)
        await read_on.wait()
        rest = await take(one, 3)
        assert [message.qos for message in rest] == [2, 1, 0]


async def test_unacknowledged_messages_are_sent_again_with_dup_and_in_order() -> None:
    async def cut(peer: Peer) -> None:
        await peer.accept()
        ids.extend([(await peer.expect(3))[1][3:5] for _ in range(3)])
        await peer.say(b"\x50\x02" + ids[1])
        await peer.expect(6)
        peer.cut()

    async def resumed(peer: Peer) -> None:
        await peer.accept(CONNACK_5_RESUMED)
        first, body = await peer.packet()
        assert (first, body[3:5]) == (0x3A, ids[0])
        first, body = await peer.packet()
        assert (first, body) == (0x62, ids[1])
        first, body = await peer.packet()
        assert (first, body[3:5]) == (0x3A, ids[2])
        await peer.say(b"\x40\x02" + ids[0] + b"\x70\x02" + ids[1] + b"\x40\x02" + ids[2])
        await peer.gone()

    ids: list[bytes] = []
    async with (
        scripted(cut, resumed) as port,
        client(port, client_id="c", clean_start=False, session_expiry_s=60) as one,
    ):
        work = [asyncio.create_task(one.publish("t", qos=qos)) for qos in (1, 2, 1)]
        async with asyncio.timeout(5):
            assert await asyncio.gather(*work) == [0, 0, 0]


async def test_a_lost_session_publishes_qos_1_anew_and_tells_of_qos_2() -> None:
    async def cut(peer: Peer) -> None:
        await peer.accept()
        await peer.expect(3)
        await peer.expect(3)
        peer.cut()

    async def forgotten(peer: Peer) -> None:
        await peer.accept(CONNACK_5)
        first, body = await peer.packet()
        assert first == 0x32, "a message of a new session is no repetition"
        await peer.say(b"\x40\x02" + body[3:5])
        await peer.gone()

    async with scripted(cut, forgotten) as port, client(port) as one:
        once = asyncio.create_task(one.publish("t", qos=2))
        again = asyncio.create_task(one.publish("t", qos=1))
        with pytest.raises(ConnectionLost, match="forgot the session"):
            await once
        assert await again == 0


async def test_subscriptions_are_restored_where_the_session_is_gone() -> None:
    async def cut(peer: Peer) -> None:
        await peer.accept()
        _, body = await peer.expect(8)
        await peer.say(b"\x90\x04" + body[:2] + b"\x00\x01")
        peer.cut()

    async def forgotten(peer: Peer) -> None:
        await peer.accept(CONNACK_5)
        _, body = await peer.expect(8)
        assert body[3:] == b"\x00\x03a/b\x01"
        await peer.say(b"\x90\x04" + body[:2] + b"\x00\x01" + publish(0, 0))
        await peer.gone()

    async with scripted(cut, forgotten) as port, client(port) as one:
        assert await one.subscribe("a/b", qos=1) == [1]
        await take(one, 1)


async def test_a_subscription_under_way_is_asked_for_again_on_the_next_connection() -> None:
    async def cut(peer: Peer) -> None:
        await peer.accept()
        await peer.expect(8)
        peer.cut()

    async def back(peer: Peer) -> None:
        await peer.accept(CONNACK_5)
        _, body = await peer.expect(8)
        await peer.say(b"\x90\x04" + body[:2] + b"\x00\x01")
        await peer.gone()

    async with scripted(cut, back) as port, client(port) as one:
        # A client that asked again over the lost connection would leave nobody else a turn.
        async with asyncio.timeout(5):
            assert await one.subscribe("a/b", qos=1) == [1]


async def test_a_subscription_under_way_fails_where_nobody_connects_again() -> None:
    async def cut(peer: Peer) -> None:
        await peer.accept()
        await peer.expect(8)
        peer.cut()

    async with scripted(cut) as port, client(port, reconnect=False) as one:
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionLost, match="closed the connection"):
                await one.subscribe("a/b")


async def test_a_restored_subscription_that_is_refused_fails_the_client() -> None:
    async def cut(peer: Peer) -> None:
        await peer.accept()
        _, body = await peer.expect(8)
        await peer.say(b"\x90\x04" + body[:2] + b"\x00\x00")
        peer.cut()

    async def refused(peer: Peer) -> None:
        await peer.accept(CONNACK_5)
        _, body = await peer.expect(8)
        await peer.say(b"\x90\x04" + body[:2] + b"\x00\x87")
        await peer.gone()

    async with scripted(cut, refused) as port, client(port) as one:
        await one.subscribe("a/b")
        with pytest.raises(Refused, match="a/b"):
            await take(one, 1)
        with pytest.raises(Refused):
            await one.publish("t")


async def test_the_brokers_receive_maximum_is_honoured() -> None:
    """[MQTT-3.3.4-7] With room for one, the second message waits for the first PUBACK."""

    async def story(peer: Peer) -> None:
        await peer.accept(bytes.fromhex("20 06 00 00 03 21 00 01"))
        _, body = await peer.expect(3)
        assert await peer.is_silent()
        await peer.say(b"\x40\x02" + body[3:5])
        _, body = await peer.expect(3)
        await peer.say(b"\x40\x02" + body[3:5])
        await peer.gone()

    async with scripted(story) as port, client(port) as one:
        await asyncio.gather(one.publish("t", qos=1), one.publish("t", qos=1))


async def test_the_brokers_limits_refuse_before_anything_is_sent() -> None:
    """[MQTT-3.2.2-11] [MQTT-3.2.2-14] [MQTT-3.2.2-15]"""

    async def story(peer: Peer) -> None:
        await peer.accept(bytes.fromhex("20 0c 00 00 09 24 01 25 00 27 00 00 00 20"))
        assert await peer.is_silent()
        await peer.gone()

    async with scripted(story) as port, client(port) as one:
        with pytest.raises(Refused, match="QoS above 1"):
            await one.publish("t", qos=2)
        with pytest.raises(Refused, match="stores no messages"):
            await one.publish("t", retain=True)
        for qos in (0, 1):
            with pytest.raises(Refused, match="32 bytes") as refused:
                await one.publish("t", b"x" * 32, qos=qos)
            assert refused.value.reason_code == 0x95
        with pytest.raises(Refused, match="32 bytes"):
            await one.subscribe("x" * 32)


@pytest.mark.parametrize(
    "packet",
    [
        "40 02 00 01",  # PUBACK for a QoS 2 message
        "70 02 00 01",  # PUBCOMP before PUBREC
        "20 03 00 00 00",  # a second CONNACK
        "f0 00",  # AUTH that nobody began
        "30 07 00 00 03 23 00 01 78",  # an alias without a topic
        "30 08 00 01 74 03 23 00 ff 78",  # an alias that was not offered
        "82 06 00 01 00 00 01 74",  # SUBSCRIBE from a broker
    ],
)
async def test_a_packet_that_does_not_fit_ends_the_connection(packet: str) -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.expect(3)
        await peer.say(packet)
        assert await peer.gone()

    async with scripted(story) as port, client(port, reconnect=False) as one:
        with pytest.raises(ProtocolViolation):
            await one.publish("t", qos=2)


async def test_more_than_the_receive_maximum_ends_the_connection() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.say(publish(1, 1) + publish(1, 2) + publish(1, 3))
        await peer.gone()

    async with scripted(story) as port, client(port, receive_max=2, reconnect=False) as one:
        await take(one, 2)
        with pytest.raises(ProtocolViolation, match="more at once"):
            await take(one, 1)


async def test_messages_before_a_fault_still_reach_the_program() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        await peer.say(publish(0, 0, b"last") + b"\x00\x00")
        await peer.gone()

    async with scripted(story) as port, client(port, reconnect=False) as one:
        assert [message.payload for message in await take(one, 1)] == [b"last"]
        with pytest.raises(ProtocolViolation):
            await take(one, 1)


async def test_a_cancelled_publish_that_was_not_sent_is_forgotten() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept(bytes.fromhex("20 06 00 00 03 21 00 01"))
        _, body = await peer.expect(3)
        await peer.say(b"\x40\x02" + body[3:5])
        assert await peer.is_silent()
        await peer.gone()

    async with scripted(story) as port, client(port) as one:
        first = asyncio.create_task(one.publish("t", b"1", qos=1))
        second = asyncio.create_task(one.publish("t", b"2", qos=1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        await first
        with pytest.raises(asyncio.CancelledError):
            await second


async def test_connect_says_what_it_was_told_to() -> None:
    async def story(peer: Peer) -> None:
        body = await peer.accept(CONNACK_4)
        assert body == (
            b"\x00\x04MQTT\x04" + bytes([0b1110_1110 & ~0b10_0000 | 0b1000]) + b"\x00\x1e"
            b"\x00\x01c\x00\x01w\x00\x03bye\x00\x01u\x00\x01p"
        )
        await peer.gone()

    will = Will("w", b"bye", qos=1)
    async with (
        scripted(story) as port,
        client(
            port, version=4, client_id="c", username="u", password="p", will=will, keep_alive_s=30
        ),
    ):
        pass


async def test_what_cannot_be_a_topic_or_filter_is_refused_here() -> None:
    async def story(peer: Peer) -> None:
        await peer.accept()
        assert await peer.is_silent()
        await peer.gone()

    async with scripted(story) as port, client(port) as one:
        for topic in ("", "a/+", "#", "a\0b", "x" * 65_536):
            with pytest.raises(ValueError, match="topic name"):
                await one.publish(topic)
        for wrong in ("", "a/#/b", "a+", "$share//a", "$share/g/"):
            with pytest.raises(ValueError, match="topic filter"):
                await one.subscribe(wrong)
        with pytest.raises(ValueError, match="qos"):
            await one.publish("t", qos=3)
        with pytest.raises(ValueError, match="at least one"):
            await one.subscribe()
