"""A message as JSON: in one line for programs, or laid out for people; numbers stay as written."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from casemate.client import Message

Paint = Callable[[str, str], str]
"""Colours a word of JSON: its kind (`key`, `string`, `number`, `literal`), then the word."""

_TOKEN = re.compile(r'(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[{}\[\],:])|(?P<word>[^\s{}\[\],:"]+)')
_DEPTH_MAX = 100


def line(message: Message, at_ns: int) -> bytes:
    """Gives all that is known of a message as one line of JSON.

    Args:
        message: What arrived. A payload that is no UTF-8 stands in `payload_base64`.
        at_ns: When it arrived, in nanoseconds since 1970.
    """
    at = _moment(at_ns)
    said = message.properties
    values: dict[str, object] = {
        "time": at.isoformat(timespec="milliseconds"),
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
        "size": len(message.payload),
    }
    try:
        values["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        values["payload_base64"] = base64.b64encode(message.payload).decode()
    known = {
        "payload_is_text": said.payload_is_text,
        "message_expiry_s": said.message_expiry_s,
        "content_type": said.content_type,
        "response_topic": said.response_topic,
        "user_properties": [list(pair) for pair in said.user] or None,
        "subscription_ids": list(message.subscription_ids) or None,
    }
    if said.correlation_data is not None:
        known["correlation_data_base64"] = base64.b64encode(said.correlation_data).decode()
    values |= {name: value for name, value in known.items() if value is not None}
    return json.dumps(values).encode()


def quoted(message: Message, at_ns: int, *, raw: bool, pretty: bool) -> bytes:
    """Gives `%j`: an object in which the payload is a string, or a list of bytes where it is none.

    Args:
        message: What arrived.
        at_ns: When, in nanoseconds since 1970.
        raw: False leaves no character to a terminal that could steer it.
        pretty: Over several lines.
    """
    try:
        payload: object = message.payload.decode()
    except UnicodeDecodeError:
        payload = list(message.payload)
    text = _text({**_head(message, at_ns), "payload": payload}, raw=raw)
    return (lay_out(text) if pretty else text).encode()


def embedded(message: Message, at_ns: int, *, raw: bool, pretty: bool) -> bytes:
    """Gives `%J`, in which the payload is JSON itself; arguments as of `quoted`.

    Where the payload is no JSON it says so on stderr and gives nothing, as mosquitto_sub does.
    """
    payload = read(message.payload)
    if payload is None:
        topic = json.dumps(message.topic)
        sys.stderr.write(f"warning: the payload on {topic} is no JSON; %j quotes any\n")
        return b""
    if not raw:
        payload = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in payload)
    text = f'{_text(_head(message, at_ns), raw=raw)[:-1]},"payload":{payload}}}'
    return (lay_out(text) if pretty else text).encode()


def read(payload: bytes) -> str | None:
    """Gives a payload that is JSON as text without line breaks; None where it is none.

    JSON that is nested deeper than a hundred levels counts as none.
    """
    try:
        text = payload.decode().strip(" \t\r\n")
        json.loads(text, parse_constant=_refuse, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    # A line break in JSON can only stand between words: within a string it would be escaped.
    text = re.sub(r"[\r\n\t]", " ", text)
    return text if _depth(text) <= _DEPTH_MAX else None


def lay_out(text: str, paint: Paint | None = None) -> str:
    """Breaks JSON into lines, indented by two blanks.

    Args:
        text: JSON; its words stay as they are, so that 1.50 stays 1.50.
        paint: Colours each word; None leaves them.
    """
    parts: list[str] = []
    depth = 0
    tokens = [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(text)]
    for position, (kind, word) in enumerate(tokens):
        following = tokens[position + 1][1] if position + 1 < len(tokens) else ""
        if kind != "mark":
            kind = _kind(kind, word, following)
            parts.append(word if paint is None else paint(kind, word))
        elif word in "{[":
            depth += 1
            parts.append(word if following in "}]" else f"{word}\n{'  ' * depth}")
        elif word in "}]":
            depth -= 1
            is_empty = position > 0 and tokens[position - 1][1] in "{["
            parts.append(word if is_empty else f"\n{'  ' * depth}{word}")
        else:
            parts.append(": " if word == ":" else f",\n{'  ' * depth}")
    return "".join(parts)


def _kind(kind: str, word: str, following: str) -> str:
    if kind == "string":
        return "key" if following == ":" else "string"
    return "literal" if word in ("true", "false", "null") else "number"


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _TOKEN.finditer(text):
        depth += (match[0] in "{[") - (match[0] in "}]")
        deepest = max(deepest, depth)
    return deepest


def _head(message: Message, at_ns: int) -> dict[str, Any]:
    """Gives what mosquitto_sub says before the payload, under the names that it uses."""
    local = _moment(at_ns).astimezone()
    said = message.properties
    values: dict[str, Any] = {
        "tst": local.strftime("%Y-%m-%dT%H:%M:%S.%fZ%z"),
        "topic": message.topic,
        "qos": message.qos,
        "retain": int(message.retain),
        "payloadlen": len(message.payload),
    }
    if message.packet_id is not None:
        values["mid"] = message.packet_id
    known: dict[str, Any] = {
        "message-expiry-interval": said.message_expiry_s,
        "payload-format-indicator": None
        if said.payload_is_text is None
        else int(said.payload_is_text),
        "content-type": said.content_type,
        "response-topic": said.response_topic,
        "correlation-data": None
        if said.correlation_data is None
        else said.correlation_data.decode(errors="backslashreplace"),
        "subscription-identifier": message.subscription_ids[0]
        if message.subscription_ids
        else None,
        "user-properties": dict(said.user) or None,
    }
    found = {name: value for name, value in known.items() if value is not None}
    return {**values, "properties": found} if found else values


def _moment(at_ns: int) -> datetime:
    # In whole numbers: a float has no room for microseconds since 1970.
    whole_s, rest_ns = divmod(at_ns, 1_000_000_000)
    return datetime.fromtimestamp(whole_s, UTC).replace(microsecond=rest_ns // 1_000)


def _text(values: dict[str, Any], *, raw: bool) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=not raw)


def _refuse(word: str) -> NoReturn:
    # Python would take NaN and Infinity, which are no JSON.
    raise ValueError(word)
