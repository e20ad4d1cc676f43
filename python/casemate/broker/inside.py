"""Programs inside the broker's process as its clients: batches in, batches out.

A call into the engine costs about a microsecond and a step of the event loop ten, however much it
carries. So messages pass in lists: a million a second and more, where one by one a program would
reach some ten thousand. What such a program may do is its role's matter, as for everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from casemate import native
from casemate.errors import BrokerStopped, Refused

BATCH_MAX = 256
"""Messages in one list; more cost no less each."""

LISTS_A_TURN = 4
"""Lists that a program gets before its event loop has a turn, though more are there."""

_WAIT_S = 0.5

Enter = Callable[[], native.Link]
Draft = tuple[str, bytes] | tuple[str, bytes, int] | tuple[str, bytes, int, bool]
"""Topic and payload, and where it is not 0 and False, QoS and retain."""


class _Guest(ABC):
    """Is in from the start, and leaves at the end of `async with`.

    A forked child's copy is dead: it raises `BrokerStopped`, and its end leaves the parent's be.
    """

    def __init__(self) -> None:
        """Belongs to this process."""
        self._pid = os.getpid()

    @property
    def _is_own(self) -> bool:
        """Whether this is the process that made it."""
        return self._pid == os.getpid()

    @abstractmethod
    def close(self) -> None:
        """Leaves; idempotent."""

    def __enter__(self) -> Self:
        """Is in already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves."""
        self.close()

    async def __aenter__(self) -> Self:
        """Is in already."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves."""
        self.close()


class Publisher(_Guest):
    """Publishes lists of messages; used by one task or thread at a time.

    Example:
        ```python
        from casemate import Broker

        async with Broker() as broker:
            async with broker.publisher() as lab, broker.subscriber(("lab/#", 1)) as desk:
                await lab.publish([("lab/1", b"21.5", 1), ("lab/2", b"22.0", 1)])
                async for message in desk:
                    print(message.topic, message.payload)  # lab/1 b'21.5'
                    break
        ```
    """

    def __init__(self, enter: Enter) -> None:
        """Comes in.

        Args:
            enter: Opens a link under the publisher's name.

        Raises:
            BrokerStopped: The broker lets nobody in.
        """
        super().__init__()
        self._enter = enter
        self._link = _entered(enter)

    def publish_now(self, messages: Iterable[Draft]) -> None:
        """Publishes in order, and returns when each of QoS 1 and 2 was acknowledged.

        Args:
            messages: Each (topic, payload), with QoS 0–2 and retain where they differ from 0 and
                False.

        Raises:
            ValueError: A topic or a number is wrong, or a message too large; nothing was sent.
            TypeError: A message is no such tuple; nothing was sent.
            Refused: The role does not allow some of QoS 1 or 2; the others were published. At
                QoS 0 nobody is told, as in all of MQTT.
            BrokerStopped: The broker has ended the link; some may have been published.
        """
        drafts = messages if isinstance(messages, list) else list(messages)
        try:
            if self._link.is_silent():
                self._link.close()
                self._link = _entered(self._enter)
            refused = self._link.publish(drafts)
        except native.LinkLost as error:
            raise _stopped(error) from error
        if refused:
            index, reason = refused[0]
            raise Refused(
                f"{len(refused)} of {len(drafts)} messages were refused, the first to "
                f"{drafts[index][0]!r}: {native.reason_name(reason)}",
                reason_code=reason,
            )

    async def publish(self, messages: Iterable[Draft]) -> None:
        """Publishes as `publish_now`, in a thread, so that the event loop goes on.

        Args:
            messages: As for `publish_now`.

        Raises:
            ValueError, Refused, BrokerStopped: As `publish_now`.
        """
        await asyncio.to_thread(self.publish_now, messages)

    def close(self) -> None:
        """Leaves; idempotent."""
        self._link.close()


class _Listener(_Guest):
    """Has subscribed, and receives."""

    def __init__(
        self, enter: Enter, filters: Sequence[str | tuple[str, int]], batch_max: int
    ) -> None:
        """Comes in and subscribes.

        Args:
            enter: Opens a link under the subscriber's name.
            filters: Topic filters, alone at QoS 0 or as pairs with the highest QoS.
            batch_max: Messages in one list, at least 1.

        Raises:
            ValueError: A filter or a number is wrong.
            Refused: The role does not allow a filter.
            BrokerStopped: The broker lets nobody in.
        """
        if batch_max < 1:
            raise ValueError("batch_max is at least 1")
        super().__init__()
        self._batch_max = batch_max
        self._closing = threading.Event()
        self._link = _entered(enter)
        try:
            self._subscribe([(one, 0) if isinstance(one, str) else one for one in filters])
        except BaseException:
            self._link.close()
            raise

    def _subscribe(self, filters: list[tuple[str, int]]) -> None:
        try:
            codes = self._link.subscribe(filters)
        except native.LinkLost as error:
            raise _stopped(error) from error
        for (topic_filter, _), code in zip(filters, codes, strict=True):
            if code >= 0x80:
                raise Refused(
                    f"{topic_filter!r} was refused: {native.reason_name(code)}", reason_code=code
                )

    def _receive_some(self) -> list[native.Publish]:
        """Waits for messages; an empty list where it was closed meanwhile."""
        batch: list[native.Publish] = []
        while not batch and not self._closing.is_set():
            batch = self._link.receive(self._batch_max, _WAIT_S)
        return batch


class Subscriber(_Listener):
    """Receives lists of messages, or one after another, in the event loop that iterates.

    A message of QoS 1 or 2 counts as taken when the program has asked for what comes after it.

    Example:
        ```python
        from casemate import Broker
        from casemate.errors import Refused

        async with Broker() as broker:
            try:
                broker.subscriber("secrets/#", role="console")
            except Refused as refusal:
                print(refusal)  # 'secrets/#' was refused: Not authorized (0x87)
        ```
    """

    def __init__(
        self, enter: Enter, filters: Sequence[str | tuple[str, int]], batch_max: int
    ) -> None:
        """Comes in and subscribes; arguments and errors as of the class before."""
        super().__init__(enter, filters, batch_max)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: deque[list[native.Publish]] = deque()
        self._end: BrokerStopped | None = None
        self._arrived = asyncio.Event()
        self._waiting = 0
        self._is_watching = False

    @property
    async def batches(self) -> AsyncIterator[list[native.Publish]]:
        """The messages as they arrive, in lists of at most `batch_max`.

        Raises:
            BrokerStopped: The broker has ended the link.
        """
        loop = self._begin()
        given = 0
        while True:
            if not self._ready:
                self._fetch()
            if self._ready:
                yield self._ready.popleft()
                given += 1
                if given % LISTS_A_TURN == 0:
                    await asyncio.sleep(0)
            elif self._closing.is_set():
                return
            elif self._end is not None:
                raise self._end
            else:
                await self._more(loop)

    async def __aiter__(self) -> AsyncIterator[native.Publish]:
        """The messages one by one; the event loop is asked once for a list, not for each.

        Raises:
            BrokerStopped: The broker has ended the link.
        """
        async for batch in self.batches:
            for message in batch:
                yield message

    def close(self) -> None:
        """Leaves, and ends what iterates; idempotent, and from any thread."""
        if self._is_own:
            self._closing.set()
            # Who waits for more is woken by the end of the socket.
            self._link.close()

    def _begin(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if not self._is_own:
            raise BrokerStopped("this subscriber belongs to the process that made this one")
        if self._loop is None:
            self._loop = loop
            self._keep_alive(loop)
        elif self._loop is not loop:
            raise RuntimeError("a subscriber belongs to the event loop that began to iterate it")
        return loop

    def _fetch(self) -> None:
        """Takes what has arrived, without waiting.

        The event loop does it: a thread between would cost a message more than all the rest.
        """
        if self._closing.is_set() or self._end is not None:
            return
        try:
            batch = self._link.receive(self._batch_max, 0)
        except native.LinkLost as error:
            self._end = _stopped(error)
            return
        if batch:
            self._ready.append(batch)

    async def _more(self, loop: asyncio.AbstractEventLoop) -> None:
        """Waits until something has arrived, or the link has ended."""
        self._arrived.clear()
        if not self._is_watching:
            loop.add_reader(self._link.fileno(), self._arrive, loop)
            self._is_watching = True
        self._waiting += 1
        try:
            await self._arrived.wait()
        finally:
            self._waiting -= 1

    def _arrive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fetches for whoever waits; where nobody does, watches no more."""
        if self._waiting == 0:
            # What nobody takes would wake the loop for ever.
            loop.remove_reader(self._link.fileno())
            self._is_watching = False
            return
        if not self._ready:
            self._fetch()
        if self._ready or self._closing.is_set() or self._end is not None:
            self._arrived.set()

    def _keep_alive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Says a word to the broker now and then, however long the program takes for a message."""
        if self._closing.is_set():
            return
        # Whoever iterates hears of a link that is gone.
        with contextlib.suppress(native.LinkLost):
            due_s = self._link.keep_alive()
            if due_s is not None:
                loop.call_later(due_s, self._keep_alive, loop)


class BlockingSubscriber(_Listener):
    """Receives lists of messages, or one after another, in the thread that iterates.

    A message of QoS 1 or 2 counts as taken when the program has asked for what comes after it.
    """

    @property
    def batches(self) -> Iterator[list[native.Publish]]:
        """The messages as they arrive, in lists of at most `batch_max`.

        Raises:
            BrokerStopped: The broker has ended the link.
        """
        while True:
            try:
                batch = self._receive_some()
            except native.LinkLost as error:
                if self._closing.is_set():
                    return
                raise _stopped(error) from error
            if not batch:
                return
            yield batch

    def __iter__(self) -> Iterator[native.Publish]:
        """The messages one by one.

        Raises:
            BrokerStopped: The broker has ended the link.
        """
        for batch in self.batches:
            yield from batch

    def close(self) -> None:
        """Leaves, and ends what iterates in another thread; idempotent."""
        if self._is_own:
            self._closing.set()
            self._link.close()


def _entered(enter: Enter) -> native.Link:
    try:
        return enter()
    except native.LinkLost as error:
        raise _stopped(error) from error


def _stopped(error: native.LinkLost) -> BrokerStopped:
    return BrokerStopped(str(error.args[0]))
