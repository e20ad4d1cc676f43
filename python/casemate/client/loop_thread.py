"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, TypeVar

from casemate.errors import ClientError, NotConnected

T = TypeVar("T")

NAME = "casemate-client"

_CLOSE_S = 5.0
"""Time that stopping may take, in seconds; a client's own goodbye takes two."""

_END_S = 1.0
"""Time for work that is cancelled to end, in seconds."""


class LoopThread:
    """Runs one event loop in a thread, from `start` to `stop`."""

    def __init__(
        self, what: str, *, at_end: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Describes it; nothing runs yet.

        Args:
            what: Runs in it, for messages.
            at_end: Run as the last, when no other work is left; it has a second.
        """
        self._what = what
        self._at_end = at_end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # Held while work is handed over, so that none arrives behind the end.
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def start(self) -> None:
        """Starts the thread.

        Raises:
            ClientError: It was started before.
        """
        if self._thread is not None:
            raise ClientError(f"{self._what} starts once", hint="make a new one")
        self._pid = os.getpid()  # What was made before a fork may start after it.
        self._loop = asyncio.new_event_loop()
        # A program that ends without stopping it must not hang.
        self._thread = threading.Thread(
            target=self._run, args=(self._loop,), name=NAME, daemon=True
        )
        try:
            self._thread.start()
        except BaseException:
            # An interrupt comes when it likes: the thread may be there already.
            self.stop()
            raise

    def is_usable(self) -> bool:
        """Says whether the loop runs, in this process."""
        return self._loop is not None and self._pid == os.getpid()

    def has_ended(self) -> bool:
        """Says whether the loop was stopped, by this process."""
        return self._thread is not None and self._loop is None and self._pid == os.getpid()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs a coroutine in the loop and waits for it; Ctrl-C cancels it.

        Args:
            work: Makes the coroutine. It is called in the loop, so that whatever interrupts the
                caller there is no coroutine of which nobody knows whether the loop has it.

        Raises:
            NotConnected: The loop does not run, or belongs to another process.
            ClientError: Called from the loop's own thread, which would wait for itself.
        """
        self._require_own_process()
        future: Future[T] = Future()
        try:
            with self._lock:
                loop = self._usable()
                loop.call_soon_threadsafe(_begin, loop, work, future)
            return future.result()
        except CancelledError:
            # Another thread has ended it meanwhile.
            raise NotConnected(f"{self._what} was closed") from None
        except BaseException:
            future.cancel()
            raise

    def tell(self, callback: Callable[[], object]) -> None:
        """Calls something in the loop, without waiting for it."""
        if self._pid == os.getpid():
            with self._lock:
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(callback)

    def stop(self) -> None:
        """Ends what still runs, and the thread."""
        if self._pid != os.getpid() or self._thread is None:
            return
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.call_soon_threadsafe(loop.stop)
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def _require_own_process(self) -> None:
        if self._pid != os.getpid():
            # Looked at before any lock, which another thread may have held at the fork.
            raise NotConnected(
                f"{self._what} belongs to the process that made this one",
                hint="make another after the fork",
            )

    def _usable(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            begun = "was not connected yet" if self._thread is None else "was closed"
            raise NotConnected(f"{self._what} {begun}")
        if threading.current_thread() is self._thread:
            raise ClientError("a thread cannot wait for itself")
        return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=_END_S))
            if self._at_end is not None:
                loop.run_until_complete(_within(self._at_end(), _END_S))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def _begin(
    loop: asyncio.AbstractEventLoop,
    work: Callable[[], Coroutine[Any, Any, T]],
    future: Future[T],
) -> None:
    """Begins work in its loop, unless whoever wants it was interrupted before."""
    if future.cancelled():
        return
    task = loop.create_task(_do(work))
    task.add_done_callback(partial(_settle, future))

    def give_up(future: Future[T]) -> None:
        if future.cancelled() and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    future.add_done_callback(give_up)


async def _do(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await work()


def _settle(future: Future[T], task: asyncio.Task[T]) -> None:
    """Tells the one who waits in another thread how the work went."""
    if task.cancelled():
        future.cancel()
        return
    # Looked at even where nobody waits any more, who was interrupted and knows of that.
    error = task.exception()
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(task.result())
    else:
        future.set_exception(error)


async def _within(work: Coroutine[Any, Any, None], timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await work
