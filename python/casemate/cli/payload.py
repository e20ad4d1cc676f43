"""What `pub` and `rr` send: a message of the command line, a file, stdin whole, or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from casemate.cli.console import WrongUsage
from casemate.errors import ConfigurationError

BYTES_MAX = 268_435_455
"""No packet is longer, and so no payload is (MQTT 5.0 §2.1.4)."""

_READ_BYTES = 65_536
_STDIN = Path("stdin")

MessageOption = Annotated[
    str | None, typer.Option("-m", "--message", metavar="TEXT", help="Message.")
]
FileOption = Annotated[
    Path | None, typer.Option("-f", "--file", metavar="FILE", help="Send this file.")
]
NullOption = Annotated[bool, typer.Option("-n", "--null-message", help="Send no payload.")]
StdinOption = Annotated[bool, typer.Option("-s", "--stdin-file", help="Send stdin whole.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Says where the payload comes from: exactly one of these.

    Attributes:
        text: Of the command line.
        file: To be sent whole.
        stdin: Sent whole.
        null: Nothing is sent.
        lines: Each line of stdin is a message of its own; such a source has no payload.
    """

    text: str | None
    file: Path | None
    stdin: bool
    null: bool
    lines: bool = False

    def check(self, options: str) -> None:
        """Raises WrongUsage unless it is exactly one.

        Args:
            options: Those that the command has, for the message.
        """
        ways = (self.text is not None, self.file is not None, self.lines, self.null, self.stdin)
        if sum(ways) != 1:
            raise WrongUsage(f"give exactly one of {options}")

    def read(self) -> bytes:
        """Gives the payload.

        Raises:
            ConfigurationError: The file cannot be read, or is larger than any message.
            KeyboardInterrupt: SIGINT came while stdin was read.
        """
        if self.null or self.lines:
            return b""
        if self.text is not None:
            # As the shell has passed it, be it UTF-8 or not.
            return os.fsencode(self.text)
        from casemate.cli.looping import run

        try:
            if self.file is not None:
                with self.file.open("rb") as source:
                    content = source.read(BYTES_MAX + 1)
            else:
                content = run(_stdin_whole())
        except OSError as error:
            words = (error.strerror or "").lower()
            file = self.file or Path("stdin")
            raise ConfigurationError("it cannot be read", file=file, cause=words) from error
        if len(content) > BYTES_MAX:
            raise ConfigurationError("it is larger than any MQTT message", file=self.file)
        return content


async def stdin_lines() -> AsyncIterator[bytes]:
    """Yields the lines of stdin as they come, without their ends.

    Raises:
        ConfigurationError: A line is longer than any message, or stdin cannot be read.
    """
    rest = bytearray()
    async for data in _stdin():
        searched = len(rest)
        rest += data
        begin = 0
        while (end := rest.find(b"\n", max(begin, searched))) >= 0:
            yield bytes(rest[begin:end]).removesuffix(b"\r")
            begin = end + 1
        del rest[:begin]
        if len(rest) > BYTES_MAX:
            raise ConfigurationError("a line is longer than any MQTT message", file=_STDIN)
    if rest:
        yield bytes(rest).removesuffix(b"\r")


async def _stdin_whole() -> bytes:
    """Gives all of stdin, and at most a little more than a message may have."""
    content = bytearray()
    async for data in _stdin():
        content += data
        if len(content) > BYTES_MAX:
            break
    return bytes(content)


async def _stdin() -> AsyncIterator[bytes]:
    """Yields what comes on stdin.

    It waits in the event loop. A thread that waits for a terminal could not be ended by Ctrl-C, and
    Python's own reading of a whole file misses it where it comes between two of its parts.
    """
    if sys.stdin is None:
        raise ConfigurationError("it is closed", file=_STDIN)
    descriptor = sys.stdin.fileno()
    while True:
        await _readable(descriptor)
        try:
            data = os.read(descriptor, _READ_BYTES)
        except OSError as error:
            words = (error.strerror or "").lower()
            raise ConfigurationError("it cannot be read", file=_STDIN, cause=words) from error
        if not data:
            return
        yield data


async def _readable(descriptor: int) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        # It may be told again before this task has run.
        if not ready.done():
            ready.set_result(None)

    try:
        loop.add_reader(descriptor, tell)
    except PermissionError:
        # A file on disk cannot be waited for, and need not be.
        await asyncio.sleep(0)
        return
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
