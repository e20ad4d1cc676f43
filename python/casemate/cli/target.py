"""Where a URL of the command line leads: a broker, and with `mqtt(s)://` a topic behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from casemate.cli.console import WrongUsage

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|unix:/", re.ASCII)
_WITH_TOPIC = re.compile(r"(?P<broker>mqtts?://[^/?#]*)/(?P<topic>.*)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """Says what a URL says.

    Attributes:
        arguments: Of a `Client`.
        topic: What stands behind the broker, exactly as it was written; None where nothing does.
    """

    arguments: dict[str, Any]
    topic: str | None = None


def is_url(word: str) -> bool:
    """Says whether a word can only be meant as a URL; `-t` takes a topic that looks like one."""
    return _URL.match(word) is not None


def read_target(url: str) -> Target:
    """Reads a URL.

    Nothing of a topic is decoded, so that `#`, `%` and `?` may stand in it, as in mosquitto's.

    Args:
        url: As `Client.from_url` takes it, or `mqtt(s)://…/TOPIC`.

    Raises:
        WrongUsage: It cannot be; it is never repeated, as it may hold a password.
    """
    # Loaded here: a command without a URL needs none of it.
    from casemate.client.url import read_url

    topic = None
    found = _WITH_TOPIC.fullmatch(url)
    if found is not None:
        url, topic = found["broker"], found["topic"] or None
    try:
        return Target(read_url(url), topic)
    except ValueError as error:
        raise WrongUsage(str(error)) from None


def topic_of(option: str | None, of_url: str | None, words: list[str], usage: str) -> str:
    """Gives the one topic that a command line names: by -t, in the URL, or as its first word.

    Args:
        option: Of -t.
        of_url: Of the URL.
        words: Those that are left; a topic is taken out.
        usage: How a topic would be named, for the message.

    Raises:
        WrongUsage: There is none, or there are two.
    """
    if option is not None and of_url is not None:
        raise WrongUsage("the URL and -t both name a topic; leave one out")
    topic = of_url if option is None else option
    if topic is None:
        if not words:
            raise WrongUsage(f"name a topic: {usage}")
        topic = words.pop(0)
    return topic


def message_of(option: str | None, words: list[str]) -> str | None:
    """Gives the message of a command line: of -m, or its last word.

    Raises:
        WrongUsage: A word is left over.
    """
    message = words.pop(0) if option is None and words else option
    if words:
        raise WrongUsage(f'"{words[0]}" is one word too many; quote the message')
    return message
