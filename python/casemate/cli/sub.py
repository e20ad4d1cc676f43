"""`casemate sub`: prints the messages of topic filters as they arrive."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from casemate.cli import console
from casemate.cli.connection import LOGGER, Reach, reaches
from casemate.cli.console import WrongUsage
from casemate.cli.options import Qos
from casemate.cli.printing import Printing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from casemate.cli.form import Piece
    from casemate.client import Client, Message

_LOG = logging.getLogger(LOGGER)

_HANDLING = {"always": 0, "new": 1, "never": 2}

Filters = Annotated[
    list[str] | None,
    typer.Option("-t", "--topic", metavar="FILTER", help="Topic filter; may be repeated."),
]
FilterOut = Annotated[
    list[str] | None,
    typer.Option(
        "-T", "--filter-out", metavar="FILTER", help="Print no such topic; may be repeated."
    ),
]
Unsubscribe = Annotated[
    list[str] | None,
    typer.Option(
        "-U", "--unsubscribe", metavar="FILTER", help="Unsubscribe from it; may be repeated."
    ),
]
EndSubscribed = Annotated[
    bool, typer.Option("-E", help="End when the broker has granted the subscriptions.")
]
AsPublished = Annotated[
    bool, typer.Option("--retain-as-published", help="Keep the publisher's retain flag (5).")
]
Handling = Annotated[
    Literal["always", "new", "never"],
    typer.Option("--retain-handling", help="When what was stored is sent (5)."),
]
Count = Annotated[
    int, typer.Option("-C", min=0, metavar="COUNT", help="End after this many; 0: never.")
]
Timeout = Annotated[
    float, typer.Option("-W", min=0, metavar="SECONDS", help="End after them, with 27; 0: never.")
]
NoRetained = Annotated[bool, typer.Option("-R", help="Do not print what was stored before.")]
RetainedOnly = Annotated[
    bool, typer.Option("--retained-only", help="Print what was stored, end with the rest.")
]
RemoveRetained = Annotated[
    bool, typer.Option("--remove-retained", help="Delete what was stored; -T keeps it.")
]
Chance = Annotated[
    float,
    typer.Option(
        "--random-filter", min=0.1, max=100, metavar="PERCENT", help="Print so many of them."
    ),
]


@dataclass(slots=True, kw_only=True)
class Asked:
    """Collects what is subscribed to; each field is an option of the command line."""

    filters: Filters = None
    qos: Qos = 0
    unsubscribe: Unsubscribe = None
    end_subscribed: EndSubscribed = False
    as_published: AsPublished = False
    handling: Handling = "always"

    def options(self) -> dict[str, Any]:
        """Gives the options of `Client.subscribe`."""
        return {
            "qos": self.qos,
            "retain_as_published": self.as_published,
            "retain_handling": _HANDLING[self.handling],
        }


@dataclass(slots=True, kw_only=True)
class Choice:
    """Collects which messages are printed; each field is an option of the command line."""

    count: Count = 0
    timeout: Timeout = 0.0
    filter_out: FilterOut = None
    no_retained: NoRetained = False
    retained_only: RetainedOnly = False
    remove_retained: RemoveRetained = False
    chance: Chance = 100.0

    def is_left_out(self, topic: str) -> bool:
        """Says whether a topic is none that the command looks at."""
        from casemate.client.topic import matches

        return any(matches(one, topic) for one in self.filter_out or ())

    def is_printed(self, message: Message) -> bool:
        """Says whether a message, whose topic is looked at, is printed."""
        if message.retain and self.no_retained:
            return False
        return random.uniform(0, 100) < self.chance or self.chance == 100  # noqa: S311 - a sample.


@reaches
def sub(
    reach: Reach,
    asked: Asked,
    choice: Choice,
    printing: Printing,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[URL] [FILTER]...", show_default=False)
    ] = None,
) -> None:
    """Subscribe, and print each message.

    The options are those of mosquitto_sub, but TLS is on unless it is refused by name. On a
    terminal a message has a heading, JSON is laid out, and control characters are shown as \\x..,
    so that no message can play with it; a pipe gets the payload as it was published. Examples:

    casemate sub 'home/#' --as console -v

    casemate sub mqtts://ann@broker.example 'a/+' --password-file pw -C 1
    """
    rest = list(words or ())
    of_url = reach.take_url(rest)
    wanted = [*([] if of_url is None else [of_url]), *rest, *(asked.filters or ())]
    unwanted = asked.unsubscribe or []
    if not wanted and not unwanted:
        raise WrongUsage("name at least one topic filter")
    if choice.no_retained and choice.retained_only:
        raise WrongUsage("-R and --retained-only leave nothing to print")
    if (asked.as_published or asked.handling != "always") and reach.mqtt_version() != 5:
        raise WrongUsage("--retain-as-published and --retain-handling are of MQTT 5.0")
    write = printing.writer(as_json=reach.as_json)
    _admit([*wanted, *unwanted, *(choice.filter_out or ())])
    options = {**asked.options(), **reach.given().subscribe}
    listening = _Listening(reach.client(acknowledge_by_hand=True), write, choice)
    from casemate.cli.looping import run

    try:
        run(listening.run(wanted, options, unwanted, end_subscribed=asked.end_subscribed))
    except KeyboardInterrupt:
        # Without a count, Ctrl-C is how this command is meant to end.
        is_meant = listening.is_subscribed and not choice.count
        raise typer.Exit(console.DONE if is_meant else console.INTERRUPTED) from None


def _admit(filters: Iterable[str]) -> None:
    from casemate.client.topic import admit_filter

    with console.refusing():
        for one in filters:
            admit_filter(one)


class _Listening:
    """Subscribes and prints.

    Attributes:
        is_subscribed: Whether the broker has granted what was asked for.
    """

    def __init__(self, client: Client, write: Piece, choice: Choice) -> None:
        self._client = client
        self._write = write
        self._choice = choice
        self._printed = 0
        self.is_subscribed = False

    async def run(
        self,
        wanted: list[str],
        options: dict[str, Any],
        unwanted: list[str],
        *,
        end_subscribed: bool,
    ) -> None:
        """Runs until what ends it has come.

        Raises:
            DeadlinePassed: The time was over first.
            ClientError: The client cannot go on.
            OSError: Stdout cannot be written.
        """
        import asyncio

        from casemate.errors import DeadlinePassed

        count, timeout_s = self._choice.count, self._choice.timeout
        try:
            async with asyncio.timeout(timeout_s or None), self._client:
                if wanted:
                    await self._client.subscribe(*wanted, **options)
                if unwanted:
                    await self._client.unsubscribe(*unwanted)
                self.is_subscribed = True
                if not end_subscribed:
                    await self._print_all()
        except TimeoutError as error:
            of = f" of {count}" if count else ""
            raise DeadlinePassed(
                f"the time is over: {self._printed}{of} messages came within {timeout_s:g} s"
            ) from error

    async def _print_all(self) -> None:
        from casemate.cli.outlet import Outlet

        outlet, choice = Outlet(), self._choice
        async for message in self._client.messages:
            size = len(message.payload)
            _LOG.debug("PUBLISH %r with %d bytes came: QoS %d", message.topic, size, message.qos)
            if choice.retained_only and not message.retain:
                return
            if not choice.is_left_out(message.topic):
                if choice.remove_retained and message.retain:
                    await self._client.publish(message.topic, retain=True)
                if choice.is_printed(message):
                    await outlet.write(self._write(message, time.time_ns()))
                    self._printed += 1
            # Acknowledged when it is written: what a closed pipe did not take comes again.
            self._client.acknowledge(message)
            if self._printed == choice.count > 0:
                return
