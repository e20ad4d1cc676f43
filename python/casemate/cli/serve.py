"""Serving in the foreground: until a signal, or until the engine ends by itself."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from casemate.broker import Broker
from casemate.cli import systemd
from casemate.cli.systemd import Supervisor

_LOG = logging.getLogger("casemate.broker")

_LOOK_S = 0.5
"""How often it is looked whether the engine still runs, in seconds."""


class Orders:
    """Keeps what signals have asked for; a handler may come between any two steps of ours."""

    def __init__(self) -> None:
        """Nothing was asked for yet."""
        self._woken = threading.Event()
        self._stops = 0
        self._number = 0
        self._reload = False

    def stop(self, number: int, _frame: FrameType | None) -> None:
        """Obeys SIGINT and SIGTERM: the first asks for an end in order, the next for one now."""
        self._stops += 1
        self._number = number
        self.wake()

    def reload(self, _number: int, _frame: FrameType | None) -> None:
        """Obeys SIGHUP."""
        self._reload = True
        self.wake()

    def wake(self) -> None:
        """Ends a wait."""
        self._woken.set()

    def wait(self, within_s: float = _LOOK_S) -> None:
        """Waits for the next order, or a moment."""
        self._woken.wait(min(within_s, _LOOK_S))
        self._woken.clear()

    @property
    def is_to_stop(self) -> bool:
        """Whether the end was asked for."""
        return self._stops > 0

    @property
    def exit_code(self) -> int:
        """What a process ends with that was told to end now."""
        return 128 + self._number

    @property
    def is_to_cut(self) -> bool:
        """Whether the end was asked for twice."""
        return self._stops > 1

    def take_reload(self) -> bool:
        """Says whether a reload was asked for since the last time."""
        asked, self._reload = self._reload, False
        return asked


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


@contextmanager
def obeying() -> Iterator[Orders]:
    """Gives the orders of SIGINT, SIGTERM and SIGHUP while it lasts."""
    orders = Orders()
    wanted = {
        signal.SIGINT: orders.stop,
        signal.SIGTERM: orders.stop,
        signal.SIGHUP: orders.reload,
    }
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield orders
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(broker: Broker, ready: Callable[[], None]) -> None:
    """Starts a broker, says so, and serves until it is told to stop.

    SIGHUP reloads. The first SIGINT or SIGTERM drains, the second one cuts off what is left.
    Where systemd started the process, it hears of all that, and of each sign of life.

    Args:
        broker: Not started yet.
        ready: Called once it listens.

    Raises:
        EngineFailed: The engine ended by itself.
        CasemateError: As `Broker.start`.
    """
    supervisor = Supervisor()
    with obeying() as orders:
        try:
            broker.start()
            systemd.forget()
            ready()
            supervisor.ready()
            until_told(broker, orders, supervisor)
        finally:
            supervisor.stopping(broker.drain_s)
            _end(broker, orders)


def until_told(broker: Broker, orders: Orders, supervisor: Supervisor) -> None:
    """Serves until the end is asked for; obeys everything else that is."""
    every_s = supervisor.alive_every_s
    due = time.monotonic()
    while not orders.is_to_stop:
        orders.wait(every_s or _LOOK_S)
        broker.check()
        if orders.take_reload():
            supervisor.reloading()
            _reload(broker)
            supervisor.ready()
        if every_s is not None and time.monotonic() >= due:
            due = time.monotonic() + every_s
            # A shard that hangs is not alive, whatever this thread can still say.
            if broker.makes_progress(every_s / 2):
                supervisor.alive()


def _reload(broker: Broker) -> None:
    outcome = broker.reload()
    words = "; ".join(outcome.changed) or "nothing has changed"
    if outcome.refused:
        _LOG.error(
            "the reload is not wholly in force: %s",
            "; ".join(outcome.refused),
            extra={"event": "reload-refused"},
        )
    else:
        _LOG.info("reloaded: %s", words, extra={"event": "reload"})


def _end(broker: Broker, orders: Orders) -> None:
    """Stops beside this thread, which alone hears signals and may be asked to hurry."""

    def stop() -> None:
        broker.stop()
        orders.wake()

    ending = threading.Thread(target=stop, name="casemate-end")
    ending.start()
    while ending.is_alive():
        orders.wait()
        if orders.is_to_cut:
            broker.cut()
            ending.join()
            raise SystemExit(orders.exit_code)
