"""The events of a broker as they happen, for whoever iterates; nothing is missed unseen."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from typing import Any, Generic, Self, TypeVar, cast

from casemate.broker.backlog import Backlog
from casemate.broker.events import Event, Missed
from casemate.errors import BrokerStopped, DeadlinePassed

E_co = TypeVar("E_co", bound=Event, covariant=True)

EVENTS_WAITING_MAX = 1_000
"""Events that wait for one reader; beyond them it is told how many it has missed."""

_BATCH = 256


class EventStream(Generic[E_co]):
    """Iterates over events from the moment at which it was made; ends when the broker stops.

    It belongs to the event loop that begins to iterate, and to one task at a time. What does not
    fit while nobody takes it is counted, and stands as one `Missed` in its place.

    Example:
        ```python
        from casemate import Broker
        from casemate.broker import Denied, EventStream
        from casemate.errors import Refused

        async with Broker() as broker, broker.client("t7", role="sensor") as sensor:
            denials: EventStream[Denied] = broker.events(Denied)
            try:
                await sensor.publish("devices/t8/temp", "21.5", qos=1)
            except Refused:
                denied = await anext(denials)
            print(denied.name, denied.topic)  # t7 devices/t8/temp
            print(denied.reason)  # no rule of role "sensor" allows it
        ```
    """

    def __init__(self, backlog: Backlog) -> None:
        """Reads from a backlog; `Broker.events` calls this.

        Args:
            backlog: Where its events wait.
        """
        self._backlog = backlog
        self._taken: deque[Event] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()

    def __aiter__(self) -> Self:
        """Iterates; there is one queue, however often this is called."""
        return self

    async def __anext__(self) -> E_co | Missed:
        """Takes the oldest event out, waiting for one.

        Raises:
            StopAsyncIteration: The broker has stopped, or the stream was closed.
            RuntimeError: Another event loop has begun to iterate.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("a stream belongs to the event loop that began to iterate it")
        while not self._taken:
            self._arrived.clear()
            ended = self._backlog.has_ended
            self._taken.extend(self._backlog.take(_BATCH))
            if self._taken:
                break
            if ended:
                raise StopAsyncIteration
            await self._arrived.wait()
        # The backlog keeps the kinds that were asked for, and no other.
        return cast("E_co | Missed", self._taken.popleft())

    def close(self) -> None:
        """Ends it, from any thread; what is there is still given out. Idempotent."""
        self._backlog.end()
        self.wake()

    def wake(self) -> None:
        """Has whoever iterates look again."""
        if self._loop is not None:
            # A loop that has been closed has nobody who waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._arrived.set)


class BlockingEvents(Generic[E_co]):
    """Iterates over events without an event loop; otherwise as `EventStream`."""

    def __init__(self, backlog: Backlog) -> None:
        """Reads from a backlog; `BlockingBroker.events` calls this."""
        self._backlog = backlog

    def __iter__(self) -> Self:
        """Iterates; there is one queue, however many threads do."""
        return self

    def __next__(self) -> E_co | Missed:
        """Takes the oldest event out, waiting for one.

        Raises:
            StopIteration: The broker has stopped, or the stream was closed.
        """
        event = self._next(None)
        if event is None:
            raise StopIteration
        return event

    def take(self, timeout_s: float | None = None) -> E_co | Missed:
        """Takes the oldest event out.

        Args:
            timeout_s: Seconds to wait for one; None waits as long as the broker runs.

        Raises:
            DeadlinePassed: None came in time, or none will come any more.
        """
        event = self._next(timeout_s)
        if event is None:
            raise DeadlinePassed("no event came")
        return event

    def close(self) -> None:
        """Ends it, from any thread; what is there is still given out. Idempotent."""
        self._backlog.end()

    def wake(self) -> None:
        """Does nothing: who waits here is woken by the backlog itself."""

    def _next(self, timeout_s: float | None) -> E_co | Missed | None:
        taken = self._backlog.wait(1, timeout_s)
        return cast("E_co | Missed", taken[0]) if taken else None


Stream = EventStream[Any] | BlockingEvents[Any]


class Streams:
    """Knows who reads the events of one broker; who is forgotten by its program reads no more."""

    def __init__(self) -> None:
        """Nobody reads yet."""
        self._lock = threading.Lock()
        self._open: list[tuple[weakref.ref[Stream], Backlog]] = []
        self._are_told = False

    def begin(self) -> None:
        """Lets readers come: there will be events."""
        self._are_told = True

    def add(self, stream: Stream, backlog: Backlog) -> None:
        """Lets one read from now on.

        Raises:
            BrokerStopped: There will be no events, and no end of them.
        """
        with self._lock:
            if not self._are_told:
                raise BrokerStopped("the broker does not run in this process")
            self._open.append((weakref.ref(stream), backlog))

    @property
    def are_read(self) -> bool:
        """Whether anybody reads."""
        return bool(self._open)

    def tell(self, events: list[Event], missed: int) -> None:
        """Gives events to everybody, once to each loop however many they are."""
        for stream, backlog in self._living():
            if backlog.put(events, missed):
                stream.wake()

    def end(self) -> None:
        """Ends everybody's stream behind the last event, and lets nobody read any more."""
        with self._lock:
            self._are_told = False
        for stream, _ in self._living():
            stream.close()
        with self._lock:
            self._open.clear()

    def forget_after_fork(self) -> None:
        """Ends everybody's stream in a forked child."""
        self._lock = threading.Lock()
        for _, backlog in self._open:
            backlog.forget_after_fork()
        self._open = []

    def _living(self) -> list[tuple[Stream, Backlog]]:
        with self._lock:
            self._open = [
                (known, backlog)
                for known, backlog in self._open
                if known() is not None and not backlog.has_ended
            ]
            living = [(known(), backlog) for known, backlog in self._open]
        return [(stream, backlog) for stream, backlog in living if stream is not None]
