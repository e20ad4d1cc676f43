"""Options of mosquitto's programs that mean nothing here: each is refused by name, and why."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from casemate.cli.console import WrongUsage


@dataclass(frozen=True, slots=True)
class Foreign:
    """Is one such option.

    Attributes:
        names: How it is written.
        words: Why it is refused.
        instead: What to use.
        takes_value: Whether a word follows it.
        commands: The commands whose counterpart has it; empty for all three.
    """

    names: tuple[str, ...]
    words: str
    instead: str
    takes_value: bool = False
    commands: tuple[str, ...] = ()


_NO_ENGINE = "keys in engines and tokens are not supported"
_KEY = "give a private key in a PEM file with --key"
_NO_PSK = "TLS with a shared key is not supported, here or by the broker"
_PROOF = "prove who you are by --cert and --key, or by -u and --password-file"
_FRESH = ("an answer is a fresh message", "leave it out; -R refuses a stored one before MQTT 5.0")

FOREIGN = (
    Foreign(
        ("--insecure",),
        "the broker's name is always verified",
        "call it by a name that its certificate holds, and trust its CA with --cafile",
    ),
    Foreign(
        ("--no-tls",), "plaintext has a longer name here", "say --insecure-plaintext, or mqtt://"
    ),
    Foreign(("--psk",), _NO_PSK, _PROOF, takes_value=True),
    Foreign(("--psk-identity",), _NO_PSK, _PROOF, takes_value=True),
    Foreign(("--keyform",), _NO_ENGINE, _KEY, takes_value=True),
    Foreign(("--tls-engine",), _NO_ENGINE, _KEY, takes_value=True),
    Foreign(("--tls-engine-kpass-sha1",), _NO_ENGINE, _KEY, takes_value=True),
    Foreign(
        ("--tls-keylog",),
        "the secrets of a connection are written nowhere",
        "-d says what happens, and the broker's log what it heard",
        takes_value=True,
    ),
    Foreign(("-S",), "SRV records are not asked for", "name the broker with -h and -p"),
    Foreign(
        ("-o",),
        "options are not read from a file",
        "--as takes all of them from a home; else write an alias of the shell",
        takes_value=True,
    ),
    Foreign(
        ("--ws",), "a WebSocket is asked for by its URL", "give wss://host:port/path, or -L with it"
    ),
    Foreign(
        ("--message-rate",),
        "rates are not printed",
        'count lines, or run "casemate status --watch" at the broker',
        commands=("sub",),
    ),
    Foreign(
        ("-w", "--watch"),
        "messages are printed one below the other",
        "for one topic at a time: -t TOPIC -C 1",
        commands=("sub",),
    ),
    Foreign(
        ("--latency",),
        "the time of an answer is not printed",
        "run it under time",
        commands=("rr",),
    ),
    Foreign(("--retain-as-published",), *_FRESH, commands=("rr",)),
    Foreign(("--retain-handling",), *_FRESH, takes_value=True, commands=("rr",)),
    Foreign(("--version",), "all commands have one version", 'run "casemate --version"'),
)


def foreign_to(command: str) -> Iterator[Foreign]:
    """Yields the options that a command refuses."""
    for one in FOREIGN:
        if not one.commands or command in one.commands:
            yield one


def refusals(command: str) -> dict[str, inspect.Parameter]:
    """Gives the parameters that refuse, by name, for the signature of a command."""
    found = {}
    for one in foreign_to(command):
        name = f"foreign_{one.names[-1].strip('-').replace('-', '_')}"
        kind = str | None if one.takes_value else bool
        option = typer.Option(*one.names, hidden=True, callback=_refusing(one))
        found[name] = inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if one.takes_value else False,
            annotation=Annotated[kind, option],
        )
    return found


def _refusing(one: Foreign) -> Callable[[object], None]:
    def refuse(value: object) -> None:
        if value:
            raise WrongUsage(f"{one.names[-1]} is refused: {one.words}", hint=one.instead)

    return refuse
