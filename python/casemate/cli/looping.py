"""The event loop of a command: its end waits for nobody who only looks a name up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a command's work to its end.

    Ctrl-C cancels it, a second one ends it at once; either raises KeyboardInterrupt.

    Args:
        work: Awaited once.
    """
    return asyncio.run(_within(work))


async def _within(work: Coroutine[Any, Any, Result]) -> Result:
    asyncio.get_running_loop().set_default_executor(_Aside())
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
