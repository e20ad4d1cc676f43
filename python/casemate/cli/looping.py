"""The event loop of a command: signals end it in order, and it waits for no look-up of a name."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

_ENDING = (signal.SIGINT, signal.SIGTERM)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a command's work to its end.

    SIGINT and SIGTERM cancel it, so that it says goodbye; the next one ends the process at once.

    Args:
        work: Awaited once.

    Raises:
        KeyboardInterrupt: SIGINT has ended it.
        SystemExit: SIGTERM has, with 143.
    """
    told: list[int] = []
    # What nobody wants to hear, as behind `&` in a script, is not heard here either.
    before = {one: signal.getsignal(one) for one in _ENDING}
    heard = [one for one, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        return asyncio.run(_within(work, heard, told))
    except asyncio.CancelledError:
        if told == [signal.SIGINT]:
            raise KeyboardInterrupt from None
        if told:
            raise SystemExit(128 + told[0]) from None
        raise
    finally:
        for one in heard:
            signal.signal(one, before[one])


async def _within(
    work: Coroutine[Any, Any, Result], heard: list[signal.Signals], told: list[int]
) -> Result:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_Aside())
    task = asyncio.current_task()

    def end(number: signal.Signals) -> None:
        told.append(number)
        for one in heard:
            loop.remove_signal_handler(one)
            # An exception in the midst of asyncio's own end would be told as a fault of it.
            signal.signal(one, signal.SIG_DFL)
        if task is not None:
            task.cancel()

    for one in heard:
        loop.add_signal_handler(one, end, one)
    return await work


class _Aside(ThreadPoolExecutor):
    """Does what blocks in threads that the process does not wait for when it ends.

    asyncio looks names up in such a thread. Where no name server answers that takes half a minute,
    in which neither Ctrl-C nor a deadline could end a command that joins its threads.
    """

    def submit(
        self,
        work: Callable[..., Any],
        /,
        *arguments: Any,  # noqa: ANN401 - as the executor's own.
        **named: Any,  # noqa: ANN401
    ) -> Future[Any]:
        """Begins at once, in a thread of its own."""
        future: Future[Any] = Future()

        def carry_out() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work(*arguments, **named))
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it.
                future.set_exception(error)

        threading.Thread(target=carry_out, daemon=True).start()
        return future
