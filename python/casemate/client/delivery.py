"""Which queue a message goes to: that of a subscription of its own, or the client's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from casemate.client.inbox import Inbox, Receipt
from casemate.client.message import Message
from casemate.client.topic import match, split_filter
from casemate.errors import ClientError

_CLOSED_KEPT_MAX = 32
"""So many filters of closed lanes are remembered, for what was still on its way to them."""


class Taker(Protocol):
    """Takes the messages of a lane."""

    def put(self, message: Message, receipt: Receipt | None) -> None:
        """Takes a message; `receipt` is owed once the program has it."""

    def is_full(self, *, overdraft: bool) -> bool:
        """Says whether reading should stop."""

    def end(self, error: BaseException | None) -> None:
        """Is told that nothing more will come."""

    def __len__(self) -> int:
        """Gives how many messages wait."""


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Leads the messages of some filters to a taker of their own.

    Attributes:
        filters: What was subscribed to.
        subscription_id: Comes with each message of it; None where the topic must tell.
        taker: Who takes them.
    """

    filters: tuple[str, ...]
    subscription_id: int | None
    taker: Taker
    _levels: tuple[tuple[str, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Splits the filters once, not for each message."""
        object.__setattr__(self, "_levels", tuple(split_filter(one) for one in self.filters))

    def takes(self, message: Message) -> bool:
        """Says whether the message answers this subscription."""
        if self.subscription_id is not None:
            return self.subscription_id in message.subscription_ids
        return any(match(one, message.topic) for one in self._levels)


class Delivery:
    """Leads each message to the lanes that it answers, or else to the client's own queue.

    Attributes:
        inbox: The client's own queue.
        late: Messages that came for a lane that had just been closed; they were let go.
    """

    def __init__(self, messages_max: int, bytes_max: int, *, by_hand: bool = False) -> None:
        """Starts without lanes.

        Args:
            messages_max: Messages that may wait in one queue before reading stops, at least 1.
            bytes_max: The same in bytes.
            by_hand: The program acknowledges what it takes.
        """
        self._bounds = messages_max, bytes_max
        self._by_hand = by_hand
        self._changed = asyncio.Event()
        self.inbox: Inbox = self.queue()
        self.late: int = 0
        self._lanes: list[Lane] = []
        self._closed: dict[str, tuple[str, ...]] = {}
        self._ended = False
        self._end: ClientError | None = None

    def queue(self) -> Inbox:
        """Makes a queue under the client's bounds."""
        return Inbox(*self._bounds, self._changed, by_hand=self._by_hand)

    def has_lane(self, topic_filter: str) -> bool:
        """Says whether a lane that is open leads the messages of this filter."""
        return any(topic_filter in lane.filters for lane in self._lanes)

    def open(self, lane: Lane) -> None:
        """Leads what answers the lane to it from now on."""
        self._lanes.append(lane)
        for one in lane.filters:
            self._closed.pop(one, None)
        if self._ended:
            lane.taker.end(self._end)

    def close(self, lane: Lane) -> None:
        """Ends a lane; what still comes for it and for nobody else is let go."""
        self._lanes.remove(lane)
        for one in lane.filters:
            self._closed[one] = split_filter(one)
        while len(self._closed) > _CLOSED_KEPT_MAX:
            del self._closed[next(iter(self._closed))]
        self._changed.set()

    def put(self, message: Message, receipt: Receipt | None, subscribed: Iterable[str]) -> None:
        """Leads a message to whom it concerns.

        Args:
            message: What arrived.
            receipt: Owed once all whom it concerns have it.
            subscribed: The filters that are subscribed to at the moment.
        """
        takers: list[Taker] = [lane.taker for lane in self._lanes if lane.takes(message)]
        if not takers and self._closed and self._is_late(message, subscribed):
            self.late += 1
            if receipt is not None:
                receipt()
            return
        if len(takers) > 1 and receipt is not None:
            receipt = _Joint(len(takers), receipt)
        for taker in takers or [self.inbox]:
            taker.put(message, receipt)

    def waiting(self) -> int:
        """Gives how many messages wait for the program."""
        return len(self.inbox) + sum(len(lane.taker) for lane in self._lanes)

    def is_full(self, *, overdraft: bool) -> bool:
        """Says whether reading should stop, because one queue is full."""
        return self.inbox.is_full(overdraft=overdraft) or any(
            lane.taker.is_full(overdraft=overdraft) for lane in self._lanes
        )

    def end(self, error: ClientError | None) -> None:
        """Lets every queue end after what still waits in it, with an error or without."""
        if not self._ended:
            self._ended, self._end = True, error
        for taker in (self.inbox, *(lane.taker for lane in self._lanes)):
            taker.end(error)

    def wake(self) -> None:
        """Lets `changed` return, because somebody now awaits an answer."""
        self._changed.set()

    async def changed(self) -> None:
        """Waits until a message was taken, or somebody began to await an answer."""
        self._changed.clear()
        await self._changed.wait()

    def _is_late(self, message: Message, subscribed: Iterable[str]) -> bool:
        """Says whether only a lane that is closed wanted it, so that nobody would take it."""
        return any(match(one, message.topic) for one in self._closed.values()) and not any(
            match(split_filter(one), message.topic) for one in subscribed
        )


class _Joint:
    """Is the receipt of a message that goes to several lanes: given when the last one has it."""

    def __init__(self, count: int, receipt: Receipt) -> None:
        self._left = count
        self._receipt = receipt

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._receipt()
