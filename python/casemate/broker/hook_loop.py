"""The event loop in which hooks run: that of the program, or one in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

Work = Callable[[], Coroutine[Any, Any, None]]

_END_S = 1.0
"""Time for what is cancelled to end, in seconds."""

_JOIN_S = 5.0
"""How long the end waits for a thread of our own, in seconds."""


class HookLoop:
    """Begins coroutines from any thread, and ends what is left of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Takes a loop, or begins one when it is needed.

        Args:
            loop: The program's, given in its own thread; None begins one in a thread of its own.
        """
        self._loop = loop
        self._is_own = loop is None
        self._home = 0 if loop is None else threading.get_ident()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._changed = threading.Condition()
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def begin(self, work: Work) -> bool:
        """Has a coroutine run; False where the loop is gone, and nothing will."""
        with self._changed:
            if self._closing:
                return False
            self._open += 1
        if self.call(lambda: self._begin(work)):
            return True
        self._ended()
        return False

    def call(self, callback: Callable[[], None]) -> bool:
        """Calls something in the loop; False where the loop is gone."""
        try:
            self._running_loop().call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def stop(self, wait_s: float, caller: int) -> None:
        """Lets what runs come to its end for so long, then cancels it; ends a loop of our own.

        Args:
            wait_s: Seconds to wait.
            caller: Number of the thread that waits for this; where it is the loop's own, nothing
                can come to its end meanwhile, and there is no waiting.
        """
        until = time.monotonic() + (0.0 if caller == self._home else wait_s)
        self._wait_idle(until)
        with self._changed:
            self._closing = True
        if self._loop is None or not self.call(self._cancel_all):
            return
        if caller != self._home:
            # What is cancelled gets a moment for its own end.
            self._wait_idle(time.monotonic() + _END_S)
        if self._is_own and self._thread is not None:
            self.call(self._loop.stop)
            if self._thread is not threading.current_thread():
                self._thread.join(_JOIN_S)

    # Inside

    def _wait_idle(self, until: float) -> None:
        """Waits until nothing runs, or nothing can run any more."""
        if self._loop is None:
            return
        with self._changed:
            self._changed.wait_for(
                lambda: self._open == 0 or self._is_gone(), max(0.0, until - time.monotonic())
            )

    def _is_gone(self) -> bool:
        return self._loop is None or self._loop.is_closed()

    def _begin(self, work: Work) -> None:
        """Runs in the loop."""
        if self._closing:
            self._ended()
            return
        task = self._running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._ended()

    def _ended(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _cancel_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A program that ends without stopping the broker must not hang.
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name="casemate-hooks", daemon=True
                )
                self._thread.start()
                self._home = self._thread.ident or 0
            return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
