"""Hooks: coroutines of a program that a broker asks and tells, whatever becomes of them.

No hook is on the way of a message. `on_connect` is asked after a client has proven who it is and
before it is told that it is in; it has a time limit, and whatever is not a yes is a no. All others
are told afterwards, one event after the other, out of a bounded backlog each: one that is slow,
hangs or fails keeps nobody waiting but itself.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from casemate.broker.backlog import Backlog
from casemate.broker.events import (
    Connecting,
    Denied,
    Disconnected,
    Event,
    Missed,
    SessionChanged,
)
from casemate.broker.hook_loop import HookLoop

_LOG = logging.getLogger("casemate.broker")

HOOK_TIMEOUT_S = 5.0
"""How long a hook may take, in seconds: half of what a client has for its whole CONNECT."""

EVENTS_WAITING_MAX = 1_000
"""Events that wait for one hook."""

ConnectHook = Callable[[Connecting], Awaitable[None]]
DisconnectHook = Callable[[Disconnected], Awaitable[None]]
SessionHook = Callable[[SessionChanged], Awaitable[None]]
DeniedHook = Callable[[Denied], Awaitable[None]]
EventHook = Callable[[Event], Awaitable[None]]

AnyHook = TypeVar("AnyHook", bound=Callable[..., Awaitable[None]])


class Tally:
    """Counts what became of hooks, from any thread."""

    def __init__(self) -> None:
        """Counts from 0."""
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self.clear()

    def clear(self) -> None:
        """Counts from 0 again."""
        names = ("hooks_refused", "hooks_failed", "hooks_late", "hooks_missed")
        with self._lock:
            self._counts = dict.fromkeys(names, 0)

    def add(self, name: str, count: int = 1) -> int:
        """Adds, and gives the total."""
        with self._lock:
            self._counts[name] += count
            return self._counts[name]

    def snapshot(self) -> dict[str, int]:
        """Gives all totals by name."""
        with self._lock:
            return dict(self._counts)


def admit_hook(hook: AnyHook) -> AnyHook:
    """Gives back what can be a hook.

    Raises:
        TypeError: It is no `async def`, and would block the broker or do nothing.
    """
    call = getattr(hook, "__call__", None)  # noqa: B004 - an object may have an async one.
    if not (inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(call)):
        raise TypeError(f"a hook is an async def, which {hook!r} is not")
    return hook


class ToldHook:
    """Tells one hook the events of some kinds, in order, one at a time."""

    def __init__(
        self, hook: Callable[[Any], Awaitable[None]], kind: type[Event], tally: Tally
    ) -> None:
        """Has nothing to tell yet.

        Args:
            hook: Takes events of this kind; one of `Event` itself is told what it missed as well.
            kind: Of the events.
            tally: Of all hooks.
        """
        self._hook = hook
        self._backlog = Backlog((kind,), EVENTS_WAITING_MAX)
        self._hears_gaps = kind is Event
        self._tally = tally
        self._lock = threading.Lock()
        self._running = False

    def begin_anew(self) -> None:
        """Forgets what an earlier run of the broker has left, whose loop may be gone."""
        with self._lock:
            self._backlog.drop()
            self._running = False

    def tell(self, events: Iterable[Event], missed: int, loop: HookLoop, timeout_s: float) -> None:
        """Adds events; begins to call the hook where it is not being called."""
        before = self._backlog.missed_total
        news = self._backlog.put(events, missed)
        self._tally.add("hooks_missed", self._backlog.missed_total - before)
        with self._lock:
            begins = news and not self._running
            self._running |= begins
        if begins and not loop.begin(lambda: self._run(timeout_s)):
            self._tally.add("hooks_missed", self._backlog.drop())
            with self._lock:
                self._running = False

    async def _run(self, timeout_s: float) -> None:
        try:
            while (event := self._next()) is not None:
                if self._hears_gaps or not isinstance(event, Missed):
                    await self._call(event, timeout_s)
        except asyncio.CancelledError:
            self._tally.add("hooks_missed", self._backlog.drop())
            raise

    def _next(self) -> Event | None:
        # Both in one step: an event that comes in between would be told by nobody.
        with self._lock:
            for event in self._backlog.take(1):
                return event
            self._running = False
            return None

    async def _call(self, event: Event, timeout_s: float) -> None:
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                await self._hook(event)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            self._complain("failed", error)
        except TimeoutError as error:
            if limit.expired():
                self._complain("late", None)
            else:
                self._complain("failed", error)
        except Exception as error:  # noqa: BLE001 - somebody else's code; the log has it.
            self._complain("failed", error)

    def _complain(self, what: str, error: BaseException | None) -> None:
        """Logs the first, second, fourth, eighth … time: a hook that always fails fills no disk."""
        total = self._tally.add(f"hooks_{what}")
        if total.bit_count() == 1:
            words = "took too long and was cancelled" if error is None else "failed"
            _LOG.error(
                "the hook %s %s (%d in all)", name_of(self._hook), words, total, exc_info=error
            )


def name_of(hook: object) -> str:
    """Names a hook for people."""
    return str(getattr(hook, "__qualname__", None) or type(hook).__qualname__)


def _is_cancelled() -> bool:
    """Says whether it is the running task that was cancelled, and not something it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Hooks:
    """Keeps the hooks of one broker, over all of its starts."""

    def __init__(self) -> None:
        """There are none yet."""
        self.tally: Tally = Tally()
        self.connect: list[ConnectHook] = []
        self._told: list[ToldHook] = []

    def add(self, hook: Callable[[Any], Awaitable[None]], kind: type[Event]) -> None:
        """Adds one that is told events of a kind.

        Raises:
            TypeError: It is no `async def`.
        """
        self._told.append(ToldHook(admit_hook(hook), kind, self.tally))

    def add_connect(self, hook: ConnectHook) -> None:
        """Adds one that is asked about each client; those that came before are asked first.

        Raises:
            TypeError: It is no `async def`.
        """
        self.connect.append(admit_hook(hook))

    def begin_anew(self) -> None:
        """Gets ready for another run of the broker."""
        self.tally.clear()
        for told in self._told:
            told.begin_anew()

    @property
    def hears(self) -> bool:
        """Whether anybody is told anything."""
        return bool(self._told)

    def tell(self, events: list[Event], missed: int, loop: HookLoop, timeout_s: float) -> None:
        """Tells each hook what it wants to hear."""
        for told in list(self._told):
            told.tell(events, missed, loop, timeout_s)
