"""Progress of long work: a line on stderr for who watches, nothing for a file or a pipe."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

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


async def _show(words: Callable[[], str], every_s: float) -> None:
    is_shown = False
    try:
        while True:
            await asyncio.sleep(every_s)
            sys.stderr.write(f"{_FROM_THE_START}{words()}")
            sys.stderr.flush()
            is_shown = True
    finally:
        if is_shown:
            sys.stderr.write(_FROM_THE_START)
            sys.stderr.flush()
