"""Events that wait for one reader: bounded, in order, and what does not fit is counted."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from casemate.broker.events import Denied, Event, Missed

Key = tuple[object, ...]


class Backlog:
    """Keeps the events of some kinds until they are taken.

    Refusals of one peer and topic that wait become one with their number; once half the room is
    taken, those of one peer do, whatever the topic. So a flood of them leaves room for the rest.
    """

    def __init__(self, kinds: tuple[type[Event], ...], events_max: int) -> None:
        """Holds nothing yet.

        Args:
            kinds: What is kept; nothing else is.
            events_max: Events that may wait, at least 1.
        """
        if events_max < 1:
            raise ValueError("at least 1 event waits")
        self._kinds = kinds
        self._events_max = events_max
        self._waiting: OrderedDict[Key, Event] = OrderedDict()
        self._changed = threading.Condition()
        self._missed = 0
        self._numbers = 0
        self._ended = False
        self.missed_total: int = 0

    def put(self, events: Iterable[Event], missed: int = 0) -> bool:
        """Adds those that are wanted.

        Args:
            events: In order.
            missed: Events that were lost before these.

        Returns:
            Whether there is something to take.
        """
        with self._changed:
            if self._ended:
                return False
            self._miss(missed)
            for event in events:
                if isinstance(event, self._kinds):
                    self._add(event)
            news = self._has_news()
            if news:
                self._changed.notify_all()
            return news

    def take(self, count: int) -> list[Event]:
        """Takes the oldest events out, at most so many; none where none wait."""
        with self._changed:
            return self._take(count)

    def wait(self, count: int, timeout_s: float | None) -> list[Event]:
        """Takes events out as `take`, and waits for the first one; none when the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._has_news(), timeout_s)
            return self._take(count)

    def end(self) -> None:
        """Takes no more, and wakes who waits; what is there can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def forget_after_fork(self) -> None:
        """Ends in a forked child, where another thread may have held its lock for ever."""
        self._changed = threading.Condition()
        self._ended = True

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    def drop(self) -> int:
        """Throws away what waits; gives how many events that were."""
        with self._changed:
            count = sum(_count(event) for event in self._waiting.values())
            self._waiting.clear()
            return count

    def _has_news(self) -> bool:
        return bool(self._waiting) or self._missed > 0

    def _miss(self, count: int) -> None:
        self._missed += count
        self.missed_total += count

    def _add(self, event: Event) -> None:
        if isinstance(event, Denied):
            is_crowded = len(self._waiting) * 2 >= self._events_max
            key = _peer_of(event) if is_crowded else (*_peer_of(event), event.topic)
            before = self._waiting.get(key)
            if isinstance(before, Denied):
                # The place of the first, the words of the last.
                self._waiting[key] = replace(event, count=before.count + event.count)
                return
        else:
            self._numbers += 1
            key = (self._numbers,)
        room = self._events_max - len(self._waiting)
        if self._missed and room > 1:
            self._numbers += 1
            self._waiting[self._numbers,] = self._gap(event.time_unix_ms)
            room -= 1
        if room < 1 or self._missed:
            self._miss(1)
            return
        self._waiting[key] = event

    def _gap(self, time_unix_ms: int) -> Missed:
        count, self._missed = self._missed, 0
        return Missed(time_unix_ms=time_unix_ms, count=count)

    def _take(self, count: int) -> list[Event]:
        taken: list[Event] = []
        while self._waiting and len(taken) < count:
            taken.append(self._waiting.popitem(last=False)[1])
        if not self._waiting and self._missed and len(taken) < count:
            # Nothing came after them, so now is as good a time as theirs.
            taken.append(self._gap(_now_unix_ms()))
        return taken


def _peer_of(event: Denied) -> Key:
    """Names whom refusals are counted for: who it is, or where it is from."""
    host = None if event.address is None else event.address.rpartition(":")[0]
    return "denied", event.action, event.name, event.name or host


def _count(event: Event) -> int:
    return event.count if isinstance(event, Denied | Missed) else 1


def _now_unix_ms() -> int:
    return time.time_ns() // 1_000_000
