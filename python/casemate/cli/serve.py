"""Serving in the foreground: until a signal, or until the engine ends by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from casemate.broker import Broker

_LOOK_S = 0.5
"""How often it is looked whether the engine still runs, in seconds."""


@contextmanager
def until_stopped() -> Iterator[threading.Event]:
    """Gives an event that SIGINT and SIGTERM set; a second signal ends the process at once."""
    stopped = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopped.is_set():
            raise SystemExit(128 + number)
        stopped.set()

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def serve(broker: Broker, ready: Callable[[], None]) -> None:
    """Starts a broker, says so, and serves until it is told to stop.

    Args:
        broker: Not started yet.
        ready: Called once it listens.

    Raises:
        EngineFailed: The engine ended by itself.
        CasemateError: As `Broker.start`.
    """
    with until_stopped() as stopped, broker:
        ready()
        while not stopped.wait(_LOOK_S):
            broker.check()
