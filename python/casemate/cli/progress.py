"""Progress of long work: a line on stderr for who watches, nothing for a file or a pipe."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

Result = TypeVar("Result")

_EVERY_S = 1.0

_FROM_THE_START = "\r\x1b[K"
"""Leads back to the start of the line and clears it."""


@asynccontextmanager
async def progress(words: Callable[[], str], *, every_s: float = _EVERY_S) -> AsyncIterator[None]:
    """Shows how far work is while it lasts, each second, and clears what it has shown.

    Args:
        words: Says it, in few words; nothing of a peer's.
        every_s: Seconds between two looks; work that is shorter shows nothing.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    showing = asyncio.create_task(_show(words, every_s))
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


def _write(words: str) -> None:
    """Writes over what the line of the terminal says."""
    sys.stderr.write(f"{_FROM_THE_START}{words}")
    sys.stderr.flush()


async def _show(words: Callable[[], str], every_s: float) -> None:
    is_shown = False
    try:
        while True:
            await asyncio.sleep(every_s)
            _write(words())
            is_shown = True
    finally:
        if is_shown:
            _write("")


def watched(
    work: Callable[[], Result], words: Callable[[], str], *, every_s: float = _EVERY_S
) -> Result:
    """Does work that no signal can interrupt, so that Ctrl-C still ends the command at once.

    Args:
        work: Done in a thread of its own, which ends with the process.
        words: Says how far it is, in few words, for who watches a terminal.
        every_s: Seconds between two looks; work that is shorter shows nothing.

    Returns:
        What the work gives; raises what it raises.
    """
    results: list[Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits.
            failures.append(error)

    working = threading.Thread(target=run, name="casemate-work", daemon=True)
    is_shown = False
    working.start()
    try:
        while working.is_alive():
            working.join(every_s)
            if working.is_alive() and sys.stderr is not None and sys.stderr.isatty():
                _write(words())
                is_shown = True
    finally:
        if is_shown:
            _write("")
    if failures:
        raise failures[0]
    return results[0]
