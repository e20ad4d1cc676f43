"""The form in which `sub` and `rr` print a message: mosquitto's `-F`, read before it is used."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from casemate.cli import record
from casemate.cli.console import WrongUsage, safe

if TYPE_CHECKING:
    from casemate.client import Message

Piece = Callable[["Message", int], bytes]
"""Writes a part of a line: of a message, and of when it came in nanoseconds since 1970."""

NAMED = {"raw": "%p", "hex": "%x", "text": "%t %p"}
"""Formats that have a name; `json` and `pretty` are no formats of this language."""

_PLACE = re.compile(
    r"%(?P<flags>[-0]*)(?P<width>\d*)(?:\.(?P<precision>\d+))?(?P<letter>.?)"
    r"|@(?P<time>.?)|\\(?P<escape>.?)",
    re.DOTALL,
)
_ESCAPES = {
    "\\": "\\", "0": "\0", "a": "\a", "e": "\x1b", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
}  # fmt: skip
_WIDTH_MAX = 10_000
_SECOND_NS = 1_000_000_000
_MEANING = "%t topic, %p payload, %q QoS, …: the guide of the command line lists them all"


def read_form(text: str, *, raw: bool, pretty: bool) -> Piece:
    r"""Reads a format.

    Args:
        text: With `%t`, `@H`, `\n` and so on.
        raw: False shows control characters that came with the message as escapes.
        pretty: Lays the JSON of `%j` and `%J` out over several lines.

    Returns:
        What writes a message.

    Raises:
        WrongUsage: The format is wrong.

    Source: mosquitto_sub(1), "Output format"; a width is the least one, as it says there, for the
    payload too.
    """
    pieces: list[Piece] = []
    position = 0
    for place in _PLACE.finditer(text):
        if place.start() > position:
            pieces.append(_constant(text[position : place.start()]))
        position = place.end()
        if place["letter"] is not None:
            pieces.append(_field(place, raw=raw, pretty=pretty))
        elif place["time"] is not None:
            pieces.append(_time(place["time"]))
        else:
            pieces.append(_constant(_escape(place["escape"])))
    pieces.append(_constant(text[position:]))
    return lambda message, at_ns: b"".join(piece(message, at_ns) for piece in pieces)


def _constant(text: str) -> Piece:
    data = text.encode(errors="surrogateescape")
    return lambda _message, _at_ns: data


def _escape(letter: str) -> str:
    if letter not in _ESCAPES or not letter:
        raise _wrong(f"\\{letter}", "\\\\ \\0 \\a \\e \\n \\r \\t \\v")
    return _ESCAPES[letter]


def _time(letter: str) -> Piece:
    if letter == "@":
        return _constant("@")
    if letter == "N":
        return lambda _message, at_ns: b"%09d" % (at_ns % _SECOND_NS)
    if not (letter.isascii() and letter.isalpha()):
        raise _wrong(f"@{letter}", "@ and a letter of strftime, as in @H:@M:@S, or @N")
    return lambda _message, at_ns: _local(f"%{letter}", at_ns).encode()


def _field(place: re.Match[str], *, raw: bool, pretty: bool) -> Piece:
    letter = place["letter"]
    left, zero = "-" in place["flags"], "0" in place["flags"]
    width = int(place["width"] or 0)
    precision = None if place["precision"] is None else int(place["precision"])
    if width > _WIDTH_MAX:
        raise _wrong(place[0], f"a width of at most {_WIDTH_MAX:,}")
    if letter in _TEXTS:
        return partial(_text, _TEXTS[letter], width, precision, left, raw)
    if letter in _NUMBERS:
        return partial(_number, _NUMBERS[letter], width, left, zero)
    if letter in _PAYLOADS:
        return partial(_payload, _PAYLOADS[letter], width, left, zero, raw)
    if letter in ("j", "J"):
        write = record.quoted if letter == "j" else record.embedded
        return lambda message, at_ns: write(message, at_ns, raw=raw, pretty=pretty)
    if letter in _PLAIN:
        return partial(_plain, _PLAIN[letter], raw)
    raise _wrong(place[0], _MEANING)


def _text(
    take: Callable[[Message, int], str | None],
    width: int,
    precision: int | None,
    left: bool,
    raw: bool,
    message: Message,
    at_ns: int,
) -> bytes:
    text = (take(message, at_ns) or "")[:precision]
    text = text if raw else safe(text)
    return (text.ljust(width) if left else text.rjust(width)).encode()


def _number(
    take: Callable[[Message], int | None],
    width: int,
    left: bool,
    zero: bool,
    message: Message,
    _at_ns: int,
) -> bytes:
    value = take(message)
    text = "" if value is None else str(value)
    filling = "0" if zero and not left else " "
    return (text.ljust(width) if left else text.rjust(width, filling)).encode()


def _payload(
    take: Callable[[bytes], bytes],
    width: int,
    left: bool,
    zero: bool,
    raw: bool,
    message: Message,
    _at_ns: int,
) -> bytes:
    data = take(message.payload)
    data = data if raw else safe(data.decode(errors="backslashreplace")).encode()
    if left:
        return data.ljust(width)
    return data.rjust(width, b"0" if zero else b" ")


def _plain(take: Callable[[Message, int], bytes], raw: bool, message: Message, at_ns: int) -> bytes:
    data = take(message, at_ns)
    return data if raw else safe(data.decode(errors="backslashreplace")).encode()


def _local(form: str, at_ns: int) -> str:
    return time.strftime(form, time.localtime(at_ns // _SECOND_NS))


def _pairs(message: Message) -> bytes:
    return " ".join(f"{name}:{value}" for name, value in message.properties.user).encode()


def _is_text(message: Message) -> int | None:
    said = message.properties.payload_is_text
    return None if said is None else int(said)


def _wrong(found: str, known: str) -> WrongUsage:
    return WrongUsage(f'"{found}" means nothing in a format', hint=f"known are {known}")


_TEXTS: dict[str, Callable[[Message, int], str | None]] = {
    "t": lambda message, _: message.topic,
    "C": lambda message, _: message.properties.content_type,
    "R": lambda message, _: message.properties.response_topic,
    "I": lambda _, at_ns: _local("%Y-%m-%dT%H:%M:%S%z", at_ns),
}
_NUMBERS: dict[str, Callable[[Message], int | None]] = {
    "l": lambda message: len(message.payload),
    # The packet id ends with the acknowledgement; of QoS 0 there is none, which mosquitto calls 0.
    "m": lambda message: message.packet_id or 0,
    "E": lambda message: message.properties.message_expiry_s,
    "F": _is_text,
    "S": lambda message: message.subscription_ids[0] if message.subscription_ids else None,
    # An alias stands for a topic on one connection; the client has put the topic in its place.
    "A": lambda _: None,
}
_PAYLOADS: dict[str, Callable[[bytes], bytes]] = {
    "p": lambda payload: payload,
    "x": lambda payload: payload.hex().encode(),
    "X": lambda payload: payload.hex().upper().encode(),
}
_PLAIN: dict[str, Callable[[Message, int], bytes]] = {
    "%": lambda _message, _at_ns: b"%",
    "q": lambda message, _: b"%d" % message.qos,
    "r": lambda message, _: b"%d" % message.retain,
    "D": lambda message, _: message.properties.correlation_data or b"",
    "P": lambda message, _: _pairs(message),
    "U": lambda _, at_ns: b"%d.%09d" % divmod(at_ns, _SECOND_NS),
}
