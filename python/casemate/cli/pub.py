"""`casemate pub`: publishes one message, a file, or a line at a time."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from casemate.cli import console
from casemate.cli.connection import LOGGER, Reach, reaches
from casemate.cli.console import WrongUsage
from casemate.cli.options import Qos
from casemate.cli.payload import (
    FileOption,
    MessageOption,
    NullOption,
    Source,
    StdinOption,
    stdin_lines,
)
from casemate.cli.target import message_of, topic_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from casemate.client import Client, Properties

_LOG = logging.getLogger(LOGGER)


@reaches
def pub(
    reach: Reach,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[URL] [TOPIC] [MESSAGE]", show_default=False)
    ] = None,
    *,
    topic: Annotated[
        str | None, typer.Option("-t", "--topic", metavar="TOPIC", help="Topic.")
    ] = None,
    message: MessageOption = None,
    file: FileOption = None,
    lines: Annotated[bool, typer.Option("-l", "--stdin-line", help="Send stdin by lines.")] = False,
    null: NullOption = False,
    stdin: StdinOption = False,
    qos: Qos = 0,
    retain: Annotated[bool, typer.Option("-r", "--retain", help="The broker stores it.")] = False,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, metavar="COUNT", help="Send it this often.")
    ] = 1,
    repeat_delay: Annotated[
        float,
        typer.Option(
            "--repeat-delay", min=0, metavar="SECONDS", help="Pause between two of --repeat."
        ),
    ] = 0.0,
    timeout: Annotated[
        float,
        typer.Option(
            "-W", "--timeout", min=0, metavar="SECONDS", help="Give up then; 0: never, as with -l."
        ),
    ] = 30.0,
) -> None:
    """Publish messages; with QoS 1 or 2 wait until the broker has taken them.

    The options are those of mosquitto_pub, but TLS is on unless it is refused by name. A URL may
    take the place of -L and -t. Examples:

    casemate pub home/t7/temp 21.5 --as thermostat-7

    casemate pub mqtts://ann@broker.example/a/b hello --password-file pw -q 1
    """
    rest = list(words or ())
    topic = topic_of(topic, reach.take_url(rest), rest, "casemate pub TOPIC MESSAGE")
    message = message_of(message, rest)
    source = Source(text=message, file=file, lines=lines, null=null, stdin=stdin)
    source.check("MESSAGE (-m), -f, -l, -n and -s")
    if lines and repeat > 1:
        raise WrongUsage("--repeat sends a message again, and -l has many")
    payload = source.read()
    from casemate.client.message import Properties
    from casemate.client.topic import admit_topic

    with console.refusing():
        admit_topic(topic)
    client = reach.client(reconnect=False)
    publisher = _Publisher(client, topic, qos, retain, Properties(**reach.given().publish))
    if lines:
        work = publisher.lines(reach.in_flight)
    else:
        work = publisher.repeated(payload, repeat, repeat_delay)
    if (lines or repeat > 1) and not (reach.quiet or reach.debug):
        work = _shown(work, publisher)
    from casemate.cli.looping import run

    run(_within(0.0 if lines else timeout, work))
    if reach.as_json:
        console.answer({"topic": topic, "published": publisher.count}, (), as_json=True)


async def _within(timeout_s: float, work: Coroutine[Any, Any, None]) -> None:
    import asyncio

    from casemate.errors import DeadlinePassed

    try:
        async with asyncio.timeout(timeout_s or None):
            await work
    except TimeoutError as error:
        raise DeadlinePassed(
            f"the message was not taken within {timeout_s:g} s", hint="-W sets another time"
        ) from error


async def _shown(work: Coroutine[Any, Any, None], publisher: _Publisher) -> None:
    from casemate.cli.progress import progress

    async with progress(lambda: f"{publisher.count:,} messages sent"):
        await work


class _Publisher:
    """Publishes on one topic.

    A message either leaves or the command fails; it does not wait for a broker to return.

    Attributes:
        count: Messages that have left, and with QoS 1 or 2 were taken.
    """

    def __init__(
        self, client: Client, topic: str, qos: int, retain: bool, properties: Properties
    ) -> None:
        self._client = client
        self._topic = topic
        self._options: dict[str, Any] = {"qos": qos, "retain": retain, "properties": properties}
        self.count = 0

    async def repeated(self, payload: bytes, times: int, pause_s: float) -> None:
        """Sends one message, as often as it is wanted."""
        import asyncio

        async with self._client:
            for number in range(times):
                if number:
                    await asyncio.sleep(pause_s)
                await self._send(payload)

    async def lines(self, at_once: int) -> None:
        """Sends stdin line by line, in order, some acknowledgements awaited at a time.

        A broker that goes ends it at once, and not with the next line.
        """
        import asyncio

        async with self._client:
            gone = asyncio.ensure_future(self._client.wait_disconnected())
            reading = asyncio.ensure_future(self._send_lines(at_once))
            try:
                await asyncio.wait({gone, reading}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    raise gone.result()
                reading.result()
            finally:
                await _end((gone, reading))

    async def _send_lines(self, at_once: int) -> None:
        import asyncio

        waiting: set[asyncio.Task[None]] = set()
        try:
            async for line in stdin_lines():
                if len(waiting) >= at_once:
                    done, waiting = await asyncio.wait(waiting, return_when="FIRST_COMPLETED")
                    for task in done:
                        task.result()
                waiting.add(asyncio.create_task(self._send(line)))
                # Tasks start in order; each enters the session before the next line is read.
                await asyncio.sleep(0)
            for task in waiting:
                await task
        finally:
            await _end(waiting)

    async def _send(self, payload: bytes) -> None:
        code = await self._client.publish(self._topic, payload, **self._options)
        self.count += 1
        _LOG.debug("PUBLISH %r with %d bytes left: 0x%02x", self._topic, len(payload), code)


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels what still runs and waits for its end; what it says then is of no use to anybody."""
    import asyncio

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
