"""`casemate rr`: publishes a request and prints its answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from casemate.cli import console
from casemate.cli.connection import Reach, reaches
from casemate.cli.console import WrongUsage
from casemate.cli.options import Qos
from casemate.cli.payload import FileOption, MessageOption, NullOption, Source, StdinOption
from casemate.cli.printing import Printing
from casemate.cli.target import message_of, topic_of

if TYPE_CHECKING:
    from casemate.client import Client, Message, Properties


@reaches
def rr(
    reach: Reach,
    printing: Printing,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[URL] [TOPIC] [MESSAGE]", show_default=False)
    ] = None,
    *,
    topic: Annotated[
        str | None, typer.Option("-t", "--topic", metavar="TOPIC", help="Topic of the request.")
    ] = None,
    response_topic: Annotated[
        str | None,
        typer.Option(
            "-e", metavar="TOPIC", help="Topic of the answer (default: what the broker suggests)."
        ),
    ] = None,
    message: MessageOption = None,
    file: FileOption = None,
    null: NullOption = False,
    stdin: StdinOption = False,
    qos: Qos = 0,
    timeout: Annotated[
        float, typer.Option("-W", min=0.001, metavar="SECONDS", help="Give up then, with 27.")
    ] = 30.0,
    no_retained: Annotated[
        bool, typer.Option("-R", help="Take no stored message for the answer (before 5).")
    ] = False,
) -> None:
    """Publish a request, wait for its answer, and print it.

    The options are those of mosquitto_rr, but TLS is on unless it is refused by name. With MQTT
    5.0 the answer is the one that carries the request's number; before it is the first message on
    the topic of -e. Example:

    casemate rr devices/t7/ask status --as desk
    """
    rest = list(words or ())
    topic = topic_of(topic, reach.take_url(rest), rest, "casemate rr TOPIC MESSAGE")
    message = message_of(message, rest)
    if response_topic is None and reach.mqtt_version() != 5:
        raise WrongUsage("before MQTT 5.0 the topic of the answer must be said: add -e")
    source = Source(text=message, file=file, null=null, stdin=stdin)
    source.check("MESSAGE (-m), -f, -n and -s")
    payload = source.read()
    write = printing.writer(as_json=reach.as_json)
    from casemate.client.message import Properties
    from casemate.client.topic import admit_topic

    with console.refusing():
        admit_topic(topic)
        if response_topic is not None:
            admit_topic(response_topic)
    given = reach.given().publish
    for name in ("response_topic", "correlation_data"):
        if name in given:
            raise WrongUsage(
                f"-D publish {name.replace('_', '-')} is what this command sets itself"
            )
    asking = _Asking(reach.client(reconnect=False), topic, payload, qos, Properties(**given))
    from casemate.cli.looping import run
    from casemate.cli.outlet import Outlet

    if reach.mqtt_version() == 5:
        answer = run(asking.by_number(response_topic, timeout))
    else:
        answer = run(asking.by_topic(response_topic or "", timeout, no_retained))
    run(Outlet().write(write(answer, time.time_ns())))


class _Asking:
    """Publishes one request and waits for its answer."""

    def __init__(
        self, client: Client, topic: str, payload: bytes, qos: int, properties: Properties
    ) -> None:
        self._client = client
        self._topic = topic
        self._payload = payload
        self._qos = qos
        self._properties = properties

    async def by_number(self, response_topic: str | None, timeout_s: float) -> Message:
        """Gives the answer that carries the request's correlation data (5.0)."""
        async with self._client as client:
            return await client.request(
                self._topic,
                self._payload,
                qos=self._qos,
                timeout_s=timeout_s,
                response_topic=response_topic,
                properties=self._properties,
            )

    async def by_topic(self, response_topic: str, timeout_s: float, no_retained: bool) -> Message:
        """Gives the first message on the response topic."""
        import asyncio

        from casemate.errors import DeadlinePassed

        try:
            async with asyncio.timeout(timeout_s), self._client as client:
                await client.subscribe(response_topic, qos=self._qos)
                await client.publish(self._topic, self._payload, qos=self._qos)
                async for message in client.messages:
                    if not (no_retained and message.retain):
                        return message
        except TimeoutError as error:
            raise DeadlinePassed(
                f'no answer to "{self._topic}" came within {timeout_s:g} s'
            ) from error
        raise AssertionError("messages end by an error, or not at all")
