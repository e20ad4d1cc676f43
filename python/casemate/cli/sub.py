"""`casemate sub`: prints the messages of topic filters as they arrive."""

from __future__ import annotations

import base64
import json
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from casemate.cli.connection import Reach, reaches
from casemate.errors import DeadlinePassed

if TYPE_CHECKING:
    from casemate.client import Message

_PLACES = re.compile(r"%([tpqrlxXjJUIR%])|\\([ntr0ae\\])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "a": "\a", "e": "\x1b", "\\": "\\"}


@reaches
def sub(
    reach: Reach,
    topics: Annotated[list[str] | None, typer.Argument(help="Topic filters.")] = None,
    *,
    topic_options: Annotated[
        list[str] | None, typer.Option("-t", "--topic", help="Topic filter; may be repeated.")
    ] = None,
    qos: Annotated[int, typer.Option("-q", "--qos", min=0, max=2, help="QoS.")] = 0,
    count: Annotated[int, typer.Option("-C", min=0, help="End after this many; 0: never.")] = 0,
    timeout: Annotated[
        float, typer.Option("-W", min=0, help="End after this many seconds; 0: never.")
    ] = 0.0,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print the topic before each message.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "-F",
            help="Format: %t topic, %p payload, %x hex, %q QoS, %r retain, %l length, %U Unix "
            "time, %I ISO time, %j JSON, \\n …",
        ),
    ] = None,
    no_newline: Annotated[bool, typer.Option("-N", help="No line end after a message.")] = False,
    no_retained: Annotated[
        bool, typer.Option("-R", help="Do not print what was stored before.")
    ] = False,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print one JSON object in a line per message.")
    ] = False,
) -> None:
    """Subscribe, and print each message.

    The options are those of mosquitto_sub, but TLS is on unless it is refused by name. On a
    terminal, control characters are shown as \\x.., so that no message can play with it. Examples:

    casemate sub 'home/#' --as console -v

    casemate sub -h broker.example --cafile ca.crt -u ann --password-file pw -t 'a/+' -C 1
    """
    filters = [*(topics or ()), *(topic_options or ())]
    if not filters:
        raise typer.BadParameter("name at least one topic filter")
    if json_lines:
        form = "%j"
    elif form is None:
        form = "%t %p" if verbose else "%p"
    end = b"" if no_newline else b"\n"
    import asyncio

    try:
        asyncio.run(
            _subscribe(reach.arguments(), filters, qos, count, timeout, form, end, no_retained)
        )
    except KeyboardInterrupt:
        # Ctrl-C is how this command is meant to end.
        raise typer.Exit(0) from None


async def _subscribe(
    arguments: dict[str, Any],
    filters: list[str],
    qos: int,
    count: int,
    timeout_s: float,
    form: str,
    end: bytes,
    no_retained: bool,
) -> None:
    import asyncio

    from casemate.client import Client

    # What is piped on must arrive as it was published; what a person looks at must be safe.
    raw = not sys.stdout.isatty()
    printed = 0
    try:
        async with asyncio.timeout(timeout_s or None):
            async with Client(**arguments) as client:
                await client.subscribe(*filters, qos=qos)
                async for message in client.messages:
                    if no_retained and message.retain:
                        continue
                    _write(render(form, message, raw=raw) + end)
                    printed += 1
                    if printed == count:
                        return
    except TimeoutError as error:
        if count:
            raise DeadlinePassed(
                f"{printed} of {count} messages came within {timeout_s:g} s"
            ) from error


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def render(form: str, message: Message, *, raw: bool) -> bytes:
    """Writes a message by a format.

    Args:
        form: As `-F` explains it.
        message: What arrived.
        raw: False shows control characters of topic and payload as escapes.
    """
    parts: list[bytes] = []
    position = 0
    for place in _PLACES.finditer(form):
        parts.append(form[position : place.start()].encode())
        position = place.end()
        if place[2] is not None:
            parts.append(_ESCAPES[place[2]].encode())
        else:
            parts.append(_field(place[1], message, raw=raw))
    parts.append(form[position:].encode())
    return b"".join(parts)


def _field(letter: str, message: Message, *, raw: bool) -> bytes:
    if letter == "p":
        return message.payload if raw else _safe(message.payload)
    if letter == "t":
        return message.topic.encode() if raw else _safe(message.topic.encode())
    now = datetime.now(UTC)
    texts = {
        "%": "%",
        "q": str(message.qos),
        "r": str(int(message.retain)),
        "R": "retained" if message.retain else "",
        "l": str(len(message.payload)),
        "x": message.payload.hex(),
        "X": message.payload.hex().upper(),
        "U": f"{now.timestamp():.6f}",
        "I": now.isoformat(timespec="seconds"),
    }
    text = texts.get(letter)
    return (_json(message, now) if text is None else text).encode()


def _json(message: Message, now: datetime) -> str:
    values: dict[str, object] = {
        "time": now.isoformat(timespec="milliseconds"),
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
    }
    try:
        values["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        values["payload_base64"] = base64.b64encode(message.payload).decode()
    if message.properties.content_type is not None:
        values["content_type"] = message.properties.content_type
    if message.properties.user:
        values["user_properties"] = [list(pair) for pair in message.properties.user]
    return json.dumps(values)


def _safe(data: bytes) -> bytes:
    text = data.decode(errors="backslashreplace")
    return "".join(
        character if character.isprintable() or character == "\t" else ascii(character)[1:-1]
        for character in text
    ).encode()
