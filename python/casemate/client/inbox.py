"""Messages that wait for the program: bounded, in order, none dropped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from casemate.client.message import Message

OVERDRAFT = 4
"""While an answer is awaited the bounds count this many times, so that it can still be read."""

_TOPIC_BYTES = 200
"""What a message is taken to cost beside its payload, in bytes."""

Receipt = Callable[[], None]


class Inbox:
    """Iterates over messages; `async for` ends when the client closes.

    A message is acknowledged when it leaves here, or by hand, so that what the program never saw
    is delivered again to a session that is resumed. Several tasks may iterate; each message goes
    to one.

    Example:
        ```python
        from casemate import Broker

        async with Broker() as broker, broker.client("probe") as client:
            await client.subscribe("lab/#", qos=1)
            for reading in ("21.5", "22.0"):
                await client.publish("lab/1", reading, qos=1)
            print((await anext(client.messages)).text)  # 21.5
            print((await anext(client.messages)).text, len(client.messages))  # 22.0 0
        ```
    """

    def __init__(
        self,
        messages_max: int,
        bytes_max: int,
        changed: asyncio.Event | None = None,
        *,
        by_hand: bool = False,
    ) -> None:
        """Starts empty.

        Args:
            messages_max: Messages that may wait before reading stops, at least 1.
            bytes_max: Bytes of payload that may wait before reading stops.
            changed: Is set whenever there is more room; shared by the queues of one client.
            by_hand: The program acknowledges what it takes; the receipt goes with the message.
        """
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._waiting: deque[tuple[Message, Receipt | None]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._changed = asyncio.Event() if changed is None else changed
        self._discarding = False
        self._by_hand = by_hand
        self._end: BaseException | None = None
        self._ended = False

    def __len__(self) -> int:
        """Gives how many messages wait."""
        return len(self._waiting)

    def __aiter__(self) -> Self:
        """Iterates; there is one queue, however many iterate."""
        return self

    async def __anext__(self) -> Message:
        """Takes the oldest message out, waiting for one.

        Raises:
            StopAsyncIteration: The client was closed and nothing waits any more.
            ClientError: The client failed and nothing waits any more.
        """
        await self._some()
        message, receipt = self._pop()
        self._changed.set()
        if receipt is not None:
            receipt()
        return message

    async def take_many(self, count_max: int) -> list[tuple[Message, Receipt | None]]:
        """Takes out what waits, at least one message; the caller then owes each its receipt.

        Args:
            count_max: Messages at most.

        Raises:
            StopAsyncIteration: The client was closed and nothing waits any more.
            ClientError: The client failed and nothing waits any more.
        """
        await self._some()
        taken = [self._pop() for _ in range(min(count_max, len(self._waiting)))]
        self._changed.set()
        return taken

    def put(self, message: Message, receipt: Receipt | None) -> None:
        """Adds a message, whose receipt is given when it is taken out.

        Args:
            message: That came.
            receipt: What tells the broker that it was taken; None at QoS 0.
        """
        if self._discarding:
            if receipt is not None:
                receipt()
            return
        self._waiting.append((message, receipt))
        self._bytes += _cost(message)
        self._arrived.set()

    def discard(self) -> None:
        """Lets go of what waits and of all that follows; the broker hears that it was taken."""
        self._discarding = True
        while self._waiting:
            _, receipt = self._waiting.popleft()
            if receipt is not None:
                receipt()
        self._bytes = 0
        self.end(None)

    def end(self, error: BaseException | None) -> None:
        """Lets iteration end after what still waits, with an error or without.

        Args:
            error: Why the client has failed; None where it was closed.
        """
        if not self._ended:
            self._ended, self._end = True, error
        self._arrived.set()
        self._changed.set()

    def is_full(self, *, overdraft: bool) -> bool:
        """Says whether reading should stop.

        Args:
            overdraft: Whether an answer is awaited, for which more may be read.
        """
        factor = OVERDRAFT if overdraft else 1
        return (
            len(self._waiting) >= self._messages_max * factor
            or self._bytes >= self._bytes_max * factor
        )

    def _pop(self) -> tuple[Message, Receipt | None]:
        """Takes one out, with the receipt that is owed at once."""
        message, receipt = self._waiting.popleft()
        self._bytes -= _cost(message)
        if self._by_hand and receipt is not None:
            return replace(message, receipt=_Once(receipt)), None
        return message, receipt

    async def _some(self) -> None:
        """Waits until something waits here."""
        while not self._waiting:
            if self._ended:
                if self._end is not None:
                    raise self._end
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()


class _Once:
    """Is a receipt that counts once, however often it is given."""

    def __init__(self, receipt: Receipt) -> None:
        self._receipt: Receipt | None = receipt

    def __call__(self) -> None:
        receipt, self._receipt = self._receipt, None
        if receipt is not None:
            receipt()


def _cost(message: Message) -> int:
    return len(message.payload) + len(message.topic) + _TOPIC_BYTES
