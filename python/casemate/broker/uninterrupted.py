"""Work that is never left half-done, whatever interrupts the one who waits for it.

Ctrl-C reaches the main thread alone, and a cancellation only who awaits. So the work is done in a
thread of its own, and its end is waited for in any case; what came in between is raised then.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

T = TypeVar("T")

NAME = "casemate-work"


class _Work(Generic[T]):
    """Runs once, in whichever thread comes first, and keeps what came of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._once = threading.Lock()
        self._result: T | None = None
        self._error: BaseException | None = None
        self.ended = threading.Event()

    def claim(self) -> bool:
        """Takes the right to run it; False where another has."""
        return self._once.acquire(blocking=False)

    def run(self) -> None:
        """Runs it, unless it was claimed."""
        if self.claim():
            try:
                self._result = self._work()
            except BaseException as error:  # noqa: BLE001 - whoever waits raises it.
                self._error = error
            finally:
                self.ended.set()

    @property
    def has_failed(self) -> bool:
        """Whether it raised."""
        return self._error is not None

    def outcome(self) -> T:
        """Gives what it returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return cast(T, self._result)


def finish(
    work: Callable[[], T], *, hurry: Callable[[], None], undo: Callable[[], object] | None = None
) -> T:
    """Does work to its end, and raises afterwards what has interrupted the wait for it.

    Args:
        work: Done in a thread of its own where this is the main thread.
        hurry: Called at each interruption; may shorten the work.
        undo: Done after work that has come to its end in spite of an interruption.

    Raises:
        BaseException: What the work raised, or what has interrupted it, such as KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        # No signal interrupts another thread.
        return work()
    doing = _Work(work)
    interruption: BaseException | None = None
    try:
        threading.Thread(target=doing.run, name=NAME, daemon=True).start()
    except BaseException as error:
        if doing.claim():
            if isinstance(error, RuntimeError):
                # An interpreter that is ending begins no thread any more.
                return work()
            raise
        interruption = error
    while True:
        try:
            if interruption is not None:
                hurry()
            doing.ended.wait()
            break
        except BaseException as error:  # noqa: BLE001 - raised below, when the work is done.
            interruption = error
    if interruption is None:
        return doing.outcome()
    if undo is not None and not doing.has_failed:
        finish(undo, hurry=hurry)
    raise interruption


async def finish_async(
    work: Callable[[], T], *, hurry: Callable[[], None], undo: Callable[[], object] | None = None
) -> T:
    """Does work to its end beside the event loop, and raises afterwards a cancellation.

    Args:
        work: Done in a thread of its own, so that no executor of the program need have room.
        hurry: Called at each cancellation; may shorten the work.
        undo: Done after work that has come to its end in spite of a cancellation.

    Raises:
        CancelledError: The task was cancelled.
        BaseException: What the work raised.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    doing = _Work(work)

    def say_ended() -> None:
        if not ended.done():
            ended.set_result(None)

    def run() -> None:
        doing.run()
        # A loop that has been closed has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(say_ended)

    threading.Thread(target=run, name=NAME, daemon=True).start()
    cancellation: asyncio.CancelledError | None = None
    while not ended.done():
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError as error:
            cancellation = error
            hurry()
    if cancellation is None:
        return doing.outcome()
    if undo is not None and not doing.has_failed:
        with contextlib.suppress(asyncio.CancelledError):
            await finish_async(undo, hurry=hurry)
    raise cancellation
