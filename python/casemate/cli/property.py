"""Properties of MQTT 5.0 on the command line: mosquitto's `-D PACKET NAME VALUE`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from casemate.cli.console import WrongUsage
from casemate.cli.words import property_words

Read = Callable[[str, str], object]

_PAIR = "user-property"
_BYTES_MAX = 65_535
_U32_MAX = 4_294_967_295


@dataclass(slots=True)
class Given:
    """Collects what `-D` says, by the names of the client's arguments.

    Attributes:
        connect: Of `Client`.
        publish: Of `Properties`.
        subscribe: Of `Subscription`.
        will: Of `Properties`, and `delay_s` of `Will`.
    """

    connect: dict[str, Any] = field(default_factory=dict)
    publish: dict[str, Any] = field(default_factory=dict)
    subscribe: dict[str, Any] = field(default_factory=dict)
    will: dict[str, Any] = field(default_factory=dict)


def read_properties(options: Iterable[str]) -> Given:
    """Reads what was given by `-D`.

    Args:
        options: Each the words of one `-D`, joined as the parser has done.

    Raises:
        WrongUsage: A packet, a name or a value cannot be, or the client keeps it to itself.
    """
    given = Given()
    for option in options:
        packet, *rest = property_words(option)
        packet = packet.lower()
        if packet not in _KNOWN:
            raise _wrong(packet, rest, _refusal(packet))
        if not rest:
            raise _wrong(packet, rest, "the name of a property follows")
        name, *values = rest
        known = _KNOWN[packet]
        if name not in known:
            raise _wrong(packet, rest, _ELSEWHERE.get(name) or f"known are {', '.join(known)}")
        _take(getattr(given, packet), packet, name, values)
    return given


def _take(into: dict[str, Any], packet: str, name: str, values: list[str]) -> None:
    argument, read = _KNOWN[packet][name]
    wanted = 2 if name == _PAIR else 1
    if len(values) != wanted:
        words = "a name and a value follow" if wanted == 2 else "a value follows"
        raise _wrong(packet, [name], words)
    if name == _PAIR:
        # Two of them may have one name.
        pair = (_text(name, values[0]), _text(name, values[1]))
        into[argument] = (*into.get(argument, ()), pair)
        return
    if argument in into:
        raise _wrong(packet, [name], "it can be said once")
    try:
        into[argument] = read(name, values[0])
    except ValueError as error:
        raise _wrong(packet, [name], str(error)) from None


def _text(_name: str, value: str) -> str:
    # What was no UTF-8 on the command line has come as surrogates.
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("the value is not UTF-8")
    if len(value.encode()) > _BYTES_MAX:
        raise ValueError(f"the value is longer than {_BYTES_MAX:,} bytes")
    return value


def _bytes(_name: str, value: str) -> bytes:
    data = value.encode(errors="surrogateescape")
    if len(data) > _BYTES_MAX:
        raise ValueError(f"the value is longer than {_BYTES_MAX:,} bytes")
    return data


def _number(least: int, most: int) -> Read:
    def read(_name: str, value: str) -> int:
        # Not int() alone, which takes 1_000 and Arabic digits too.
        number = int(value) if value.isascii() and value.isdigit() and len(value) < 12 else -1
        if not least <= number <= most:
            raise ValueError(f"the value is a whole number from {least:,} to {most:,}")
        return number

    return read


def _flag(_name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError("the value is 0 or 1")
    return value == "1"


def _refusal(packet: str) -> str:
    if packet in _SILENT:
        return "this client says nothing there"
    return f"a property belongs to {', '.join(_KNOWN)}"


def _wrong(packet: str, words: list[str], why: str) -> WrongUsage:
    return WrongUsage(f"-D {' '.join([packet, *words[:1]])} cannot be: {why}")


_OF_A_MESSAGE: dict[str, tuple[str, Read]] = {
    "content-type": ("content_type", _text),
    "correlation-data": ("correlation_data", _bytes),
    "message-expiry-interval": ("message_expiry_s", _number(0, _U32_MAX)),
    "payload-format-indicator": ("payload_is_text", _flag),
    "response-topic": ("response_topic", _text),
    _PAIR: ("user", _text),
}
_KNOWN: dict[str, dict[str, tuple[str, Read]]] = {
    "connect": {
        "receive-maximum": ("receive_max", _number(1, 65_535)),
        "maximum-packet-size": ("packet_bytes_max", _number(256, _U32_MAX)),
        "session-expiry-interval": ("session_expiry_s", _number(0, _U32_MAX)),
        _PAIR: ("user", _text),
    },
    "publish": _OF_A_MESSAGE,
    "subscribe": {"subscription-identifier": ("subscription_id", _number(1, 268_435_455))},
    "will": {**_OF_A_MESSAGE, "will-delay-interval": ("delay_s", _number(0, _U32_MAX))},
}
_SILENT = ("auth", "disconnect", "puback", "pubcomp", "pubrec", "pubrel", "unsubscribe")
_ELSEWHERE = {
    "authentication-data": "this client proves itself by certificate or password",
    "authentication-method": "this client proves itself by certificate or password",
    "request-problem-information": "this client always asks for the broker's reasons",
    "request-response-information": "this client always asks for it",
    "topic-alias": "this client sends every topic in full",
    "topic-alias-maximum": "this client chooses it, and puts topics in the place of aliases",
}
