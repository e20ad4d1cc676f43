"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
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

    def __init__(self, what: str) -> None:
        """Describes it; nothing runs yet.

        Args:
            what: Runs in it, for messages.
        """
        self._what = what
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
        self._thread.start()

    def is_usable(self) -> bool:
        """Says whether the loop runs, in this process."""
        return self._loop is not None and self._pid == os.getpid()

    def has_ended(self) -> bool:
        """Says whether the loop was stopped, by this process."""
        return self._thread is not None and self._loop is None and self._pid == os.getpid()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop and waits for it; Ctrl-C cancels it.

        Raises:
            NotConnected: The loop does not run, or belongs to another process.
            ClientError: Called from the loop's own thread, which would wait for itself.
        """
        future: Future[T]
        try:
            self._require_own_process()
            with self._lock:
                future = asyncio.run_coroutine_threadsafe(work, self._usable())
        except BaseException:
            work.close()
            raise
        try:
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
        if threading.current_thread() is not self._thread:
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

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=_END_S))
            # A turn for what they have called at their end.
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
