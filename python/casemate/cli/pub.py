"""`casemate pub`: publishes one message, a file, or a line at a time."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from casemate.cli.connection import Reach, reaches
from casemate.errors import ConfigurationError, DeadlinePassed

if TYPE_CHECKING:
    from casemate.client import Client

_FILE_BYTES_MAX = 268_435_455

# Messages of -l that may await their acknowledgement at a time.
_LINES_AT_ONCE = 100


@reaches
def pub(
    reach: Reach,
    words: Annotated[list[str] | None, typer.Argument(metavar="TOPIC [MESSAGE]")] = None,
    *,
    topic: Annotated[str | None, typer.Option("-t", "--topic", help="Topic.")] = None,
    message: Annotated[str | None, typer.Option("-m", "--message", help="Message.")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Send this file.")] = None,
    lines: Annotated[bool, typer.Option("-l", "--stdin-line", help="Send stdin by lines.")] = False,
    null: Annotated[bool, typer.Option("-n", "--null-message", help="Send no payload.")] = False,
    stdin: Annotated[bool, typer.Option("-s", "--stdin-file", help="Send stdin whole.")] = False,
    qos: Annotated[int, typer.Option("-q", "--qos", min=0, max=2, help="QoS.")] = 0,
    retain: Annotated[bool, typer.Option("-r", "--retain", help="The broker stores it.")] = False,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Send it this often.")] = 1,
    repeat_delay: Annotated[
        float, typer.Option("--repeat-delay", min=0, help="Seconds between two of --repeat.")
    ] = 0.0,
    timeout: Annotated[
        float, typer.Option("-W", "--timeout", min=0, help="Give up after seconds; 0: never.")
    ] = 30.0,
) -> None:
    """Publish messages; with QoS 1 or 2 wait until the broker has taken them.

    The options are those of mosquitto_pub, but TLS is on unless it is refused by name. Examples:

    casemate pub home/t7/temp 21.5 --as thermostat-7

    casemate pub -h broker.example --cafile ca.crt -u ann --password-file pw -t a/b -m hello -q 1
    """
    rest = list(words or ())
    if topic is None:
        if not rest:
            raise typer.BadParameter("name a topic: casemate pub TOPIC MESSAGE")
        topic = rest.pop(0)
    if rest and message is None:
        message = rest.pop(0)
    if rest:
        raise typer.BadParameter(f"{rest[0]!r} is one word too many; quote the message")
    payload = _payload(message, file, lines, null, stdin)
    work = _publish(reach.arguments(), topic, payload, qos, retain, repeat, repeat_delay)
    import asyncio

    asyncio.run(_within(0.0 if lines else timeout, work))


def _payload(
    text: str | None, file: Path | None, lines: bool, null: bool, stdin: bool
) -> bytes | None:
    """Gives the payload; None stands for the lines of stdin."""
    ways = sum((text is not None, file is not None, lines, null, stdin))
    if ways != 1:
        raise typer.BadParameter("give exactly one of MESSAGE (-m), -f, -l, -n and -s")
    if lines:
        return None
    if null:
        return b""
    if text is not None:
        return text.encode()
    try:
        if file is not None:
            with file.open("rb") as source:
                content = source.read(_FILE_BYTES_MAX + 1)
        else:
            content = sys.stdin.buffer.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError("the file cannot be read", file=file, cause=str(error)) from error
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigurationError("the file is larger than any MQTT message", file=file)
    return content


async def _within(timeout_s: float, work: Coroutine[Any, Any, None]) -> None:
    import asyncio

    try:
        async with asyncio.timeout(timeout_s or None):
            await work
    except TimeoutError as error:
        raise DeadlinePassed(f"the message was not taken within {timeout_s:g} s") from error


async def _publish(
    arguments: dict[str, Any],
    topic: str,
    payload: bytes | None,
    qos: int,
    retain: bool,
    repeat: int,
    repeat_delay_s: float,
) -> None:
    import asyncio

    from casemate.client import Client

    # A message either leaves or the command fails; it does not wait for a broker to return.
    async with Client(**arguments, reconnect=False) as client:
        if payload is None:
            await _publish_lines(client, topic, qos, retain)
            return
        for number in range(repeat):
            if number:
                await asyncio.sleep(repeat_delay_s)
            await client.publish(topic, payload, qos=qos, retain=retain)


async def _publish_lines(client: Client, topic: str, qos: int, retain: bool) -> None:
    """Sends stdin line by line, in order, some acknowledgements awaited at a time."""
    import asyncio

    waiting: set[asyncio.Task[int]] = set()
    lines = _lines()
    while (line := await asyncio.to_thread(next, lines, None)) is not None:
        if len(waiting) >= _LINES_AT_ONCE:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        waiting.add(asyncio.create_task(client.publish(topic, line, qos=qos, retain=retain)))
        # Tasks start in order; each enters the session before the next line is read.
        await asyncio.sleep(0)
    for task in waiting:
        await task


def _lines() -> Iterator[bytes]:
    for line in sys.stdin.buffer:
        yield line.removesuffix(b"\n").removesuffix(b"\r")
