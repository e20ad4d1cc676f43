"""The codec as Python sees it: the same packets however the bytes are cut, and bounded memory."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import native

STREAM = bytes.fromhex(
    "20 03 00 00 00"  # CONNACK
    "3b 0a 00 01 74 00 07 03 23 00 01 78"  # PUBLISH, QoS 1, an alias
    "30 05 00 01 74 00 79"  # PUBLISH, QoS 0
    "40 02 00 07  50 02 00 08  62 02 00 08  70 02 00 08"
    "90 04 00 09 00 02  b0 04 00 0a 00 00"
    "d0 00  e0 01 8b"
)
KINDS = [
    "Connack", "Publish", "Publish", "Ack", "Ack", "Ack", "Ack", "Suback", "Unsuback", "Pingresp",
    "Disconnect",
]  # fmt: skip


def kinds(packets: list[object]) -> list[str]:
    return [type(packet).__name__ for packet in packets]


def test_a_stream_gives_its_packets_in_order() -> None:
    packets = native.Decoder(5, 1_000).feed(STREAM)
    assert kinds(packets) == KINDS
    first = packets[1]
    assert isinstance(first, native.Publish)
    assert (first.topic, first.payload, first.qos, first.dup, first.retain) == (
        "t", b"x", 1, True, True,
    )  # fmt: skip
    assert (first.packet_id, first.topic_alias) == (7, 1)


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=12))
def test_any_cut_of_a_stream_gives_the_same_packets(cuts: list[int]) -> None:
    decoder = native.Decoder(5, 1_000)
    places = [0, *sorted(cuts), len(STREAM)]
    found: list[object] = []
    for begin, end in itertools.pairwise(places):
        found += decoder.feed(STREAM[begin:end])
    decoder.check()
    assert kinds(found) == KINDS


@given(st.binary(max_size=200), st.sampled_from([3, 4, 5]))
def test_random_bytes_never_do_more_than_end_the_stream(data: bytes, version: int) -> None:
    decoder = native.Decoder(version, 1_000)
    decoder.feed(data)
    try:
        decoder.check()
    except native.Malformed as error:
        message, reason = error.args
        assert isinstance(message, str)
        assert reason >= 0x80
        with pytest.raises(native.Malformed):
            decoder.feed(b"\xd0\x00")


def test_cve_2017_7651_an_announced_size_costs_nothing() -> None:
    """A length of 256 MiB with four bytes behind it is refused at once."""
    decoder = native.Decoder(5, 1_000)
    assert decoder.feed(b"\x30\xff\xff\xff\x7f" + b"x" * 4) == []
    with pytest.raises(native.Malformed, match="maximum"):
        decoder.check()


def test_the_maximum_is_exact() -> None:
    packet = native.encode_publish(5, "t", b"x" * 50)
    assert kinds(native.Decoder(5, len(packet)).feed(packet)) == ["Publish"]
    refused = native.Decoder(5, len(packet) - 1)
    assert refused.feed(packet) == []
    with pytest.raises(native.Malformed):
        refused.check()
    assert native.encode_publish(5, "t", b"x" * 50, packet_bytes_max=len(packet)) == packet
    with pytest.raises(native.TooLarge) as large:
        native.encode_publish(5, "t", b"x" * 50, packet_bytes_max=len(packet) - 1)
    assert large.value.args[1:] == (len(packet), len(packet) - 1)


@pytest.mark.parametrize("version", [0, 1, 2, 6, 255])
def test_versions_that_are_none_are_refused(version: int) -> None:
    with pytest.raises(ValueError, match="3, 4 or 5"):
        native.Decoder(version, 1_000)


def test_what_no_packet_can_carry_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="too long"):
        native.encode_publish(5, "t" * 65_536, b"")
    with pytest.raises(ValueError, match="packet id"):
        native.encode_publish(5, "t", b"", qos=1)
    with pytest.raises(ValueError, match="packet id"):
        native.encode_publish(5, "t", b"", packet_id=1)
    with pytest.raises(ValueError, match="QoS"):
        native.encode_publish(5, "t", b"", qos=3, packet_id=1)
    with pytest.raises(ValueError, match="at least one"):
        native.encode_subscribe(5, 1, [])
    with pytest.raises(ValueError, match="reason code"):
        native.encode_disconnect(5, reason=0x05)


def test_a_password_is_not_shown() -> None:
    will = native.Will("t", b"canary")
    for shown in (repr(will), str(will)):
        assert "canary" not in shown


def test_reasons_have_names() -> None:
    assert (native.reason_name(0x87) or "").lower().startswith("not authorized")
    assert native.reason_name(0x05) is None
