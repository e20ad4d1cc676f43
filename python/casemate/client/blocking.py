"""The client for programs without an event loop: the same methods, each waits until it is done.

One thread of its own runs the client's event loop; every method may be called from any thread.

Example:
    ```python
    from casemate.client import Client
    from casemate.testing import ThrowAwayBroker

    with ThrowAwayBroker() as broker:
        own = broker.identity("t7")
        files = {"ca_file": own.ca, "cert_file": own.certificate, "key_file": own.key}
        with Client("localhost", broker.listening().port, **files).blocking() as client:
            client.subscribe("lab/+/temp", qos=1)
            client.publish("lab/1/temp", "21.5", qos=1)
            for message in client.messages:
                print(message.topic, message.payload)  # lab/1/temp b'21.5'
                break
    ```
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from casemate.client.inbox import Inbox, Receipt
from casemate.client.link import Limits
from casemate.client.loop_thread import LoopThread
from casemate.client.message import NO_PROPERTIES, Message, Payload, Properties
from casemate.client.stream import abort_streams
from casemate.client.topic import TopicPattern
from casemate.errors import ClientError, DeadlinePassed, NotConnected

if TYPE_CHECKING:
    from casemate.client.client import Client, Filter

T = TypeVar("T")

BATCH = 256
"""Messages that cross from the client's thread at once."""

_open: weakref.WeakSet[BlockingClient] = weakref.WeakSet()


class BlockingMessages:
    """Iterates over messages; ends when the client, or the block of the subscription, ends.

    A message is acknowledged when it is handed out. Several threads may iterate; each message
    goes to one.
    """

    def __init__(self, thread: LoopThread, queue: Inbox) -> None:
        """Reads from a queue of the client.

        Args:
            thread: Runs the client.
            queue: Belongs to its loop.
        """
        self._thread = thread
        self._queue = queue
        self._taken: deque[tuple[Message, Receipt | None]] = deque()
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        """Iterates; there is one queue, however many iterate."""
        return self

    def __next__(self) -> Message:
        """Takes the oldest message out, waiting for one.

        Raises:
            StopIteration: The client was closed and nothing waits any more.
            ClientError: The client failed and nothing waits any more.
        """
        message = self._next(None)
        if message is None:
            raise StopIteration
        return message

    def take(self, timeout_s: float | None = None) -> Message:
        """Takes the oldest message out.

        Args:
            timeout_s: Seconds to wait for one; None waits for ever.

        Raises:
            DeadlinePassed: None came in time.
            NotConnected: The client was closed and nothing waits any more.
            ClientError: The client failed and nothing waits any more.
        """
        message = self._next(timeout_s)
        if message is None:
            raise NotConnected("the client was closed")
        return message

    def _next(self, timeout_s: float | None) -> Message | None:
        if not self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise _late("no message came", timeout_s)
        try:
            if not self._taken:
                try:
                    self._thread.run(partial(self._more, timeout_s))
                except NotConnected:
                    if not self._thread.has_ended():
                        raise
            if not self._taken:
                return None
            message, receipt = self._taken.popleft()
        finally:
            self._lock.release()
        if receipt is not None:
            self._thread.tell(receipt)
        return message

    async def _more(self, timeout_s: float | None) -> None:
        """Runs in the client's thread, and puts what it took where an interrupt loses nothing."""
        try:
            async with asyncio.timeout(timeout_s):
                self._taken.extend(await self._queue.take_many(BATCH))
        except TimeoutError as error:
            raise _late("no message came", timeout_s) from error
        except StopAsyncIteration:
            return


class BlockingClient:
    """Publishes and subscribes like `Client`; each method returns when it is done.

    Closed at the end of `with`, or of the program. In a forked child it refuses to work: the
    connection is the parent's.

    Example:
        ```python
        from casemate.client import BlockingClient
        from casemate.testing import ThrowAwayBroker

        with ThrowAwayBroker() as broker, BlockingClient(broker.client("t7")) as client:
            client.subscribe("lab/#", qos=1)
            client.publish("lab/1", "21.5", qos=1)
            print(client.messages.take(timeout_s=5).text)  # 21.5
        ```
    """

    def __init__(self, client: Client) -> None:
        """Takes over a client that was not connected yet; `Client.blocking` calls this.

        Args:
            client: Lives in the thread of this one from now on.
        """
        self._client = client
        self._thread = LoopThread("the client", at_end=abort_streams)
        self.messages: BlockingMessages = BlockingMessages(self._thread, client.inbox)

    def __repr__(self) -> str:
        """Names the broker and the client id; never a secret."""
        return f"<Blocking{repr(self._client)[1:]}"

    @property
    def client_id(self) -> str:
        """The client id in use; empty until the broker has chosen one."""
        return self._client.client_id

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._client.is_connected

    @property
    def session_present(self) -> bool:
        """Whether the broker still had the session when this client was last connected."""
        return self._client.session_present

    @property
    def limits(self) -> Limits:
        """What the broker takes on this connection.

        Raises:
            NotConnected: There is none.
        """
        return self._client.limits

    def connect(self) -> None:
        """Connects; raises as `Client.connect`."""
        self._thread.start()
        _open.add(self)
        try:
            self._thread.run(self._client.connect)
        except BaseException:
            self._thread.stop()
            raise

    def close(self, *, with_will: bool = False) -> None:
        """Says goodbye and closes; idempotent.

        Args:
            with_will: Ask the broker to publish the will all the same (5.0).
        """
        _open.discard(self)
        if self._thread.is_usable():
            try:
                self._thread.run(partial(self._client.close, with_will=with_will))
            finally:
                self._thread.stop()

    def __enter__(self) -> Self:
        """Connects; raises as `connect`."""
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes."""
        self.close()

    def wait_connected(self, timeout_s: float | None = None) -> None:
        """Waits until there is a connection.

        Args:
            timeout_s: Seconds; None waits for ever.

        Raises:
            DeadlinePassed: There was none in time.
            ClientError: There will be none.
        """
        self._thread.run(
            partial(_within, self._client.wait_connected, timeout_s, "no connection came")
        )

    def wait_disconnected(self, timeout_s: float | None = None) -> ClientError:
        """Waits until the connection is lost or closed; gives why.

        Args:
            timeout_s: Seconds; None waits for ever.

        Raises:
            DeadlinePassed: It was not lost in time.
        """
        waiting = self._client.wait_disconnected
        return self._thread.run(partial(_within, waiting, timeout_s, "the connection was not lost"))

    def publish(
        self,
        topic: str,
        payload: Payload = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties = NO_PROPERTIES,
    ) -> int:
        """Publishes a message; arguments, result and errors as of `Client.publish`."""
        return self._thread.run(
            partial(
                self._client.publish,
                topic,
                payload,
                qos=qos,
                retain=retain,
                properties=properties,
            )
        )

    def subscribe(
        self,
        *filters: Filter,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        subscription_id: int | None = None,
    ) -> list[int]:
        """Subscribes; arguments, result and errors as of `Client.subscribe`."""
        return self._thread.run(
            partial(
                self._client.subscribe,
                *filters,
                qos=qos,
                no_local=no_local,
                retain_as_published=retain_as_published,
                retain_handling=retain_handling,
                subscription_id=subscription_id,
            )
        )

    def unsubscribe(self, *filters: str | TopicPattern) -> None:
        """Ends subscriptions; raises as `Client.unsubscribe`."""
        self._thread.run(partial(self._client.unsubscribe, *filters))

    @contextmanager
    def subscription(
        self,
        *filters: str | TopicPattern,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
    ) -> Iterator[BlockingMessages]:
        """Subscribes for the time of a block; as `Client.subscription`."""
        block: AbstractAsyncContextManager[Inbox] = self._client.subscription(
            *filters,
            qos=qos,
            no_local=no_local,
            retain_as_published=retain_as_published,
            retain_handling=retain_handling,
        )
        queue = self._thread.run(partial(_enter, block))
        try:
            yield BlockingMessages(self._thread, queue)
        finally:
            # Where another thread has closed the client meanwhile, there is nothing left to end.
            with suppress(NotConnected):
                self._thread.run(partial(_leave, block))

    def acknowledge(self, message: Message) -> None:
        """Tells the broker that a message is dealt with; as `Client.acknowledge`."""
        if message.receipt is None:
            self._client.acknowledge(message)
        else:
            self._thread.tell(message.receipt)

    def request(
        self,
        topic: str,
        payload: Payload = b"",
        *,
        qos: int = 1,
        timeout_s: float = 10.0,
        response_topic: str | None = None,
        properties: Properties = NO_PROPERTIES,
    ) -> Message:
        """Publishes a request and waits for its answer; as `Client.request`."""
        return self._thread.run(
            partial(
                self._client.request,
                topic,
                payload,
                qos=qos,
                timeout_s=timeout_s,
                response_topic=response_topic,
                properties=properties,
            )
        )

    def reply(
        self,
        request: Message,
        payload: Payload = b"",
        *,
        qos: int = 1,
        properties: Properties = NO_PROPERTIES,
    ) -> int:
        """Answers a request; as `Client.reply`."""
        return self._thread.run(
            partial(self._client.reply, request, payload, qos=qos, properties=properties)
        )


async def _enter(block: AbstractAsyncContextManager[Inbox]) -> Inbox:
    return await block.__aenter__()


async def _leave(block: AbstractAsyncContextManager[Inbox]) -> None:
    await block.__aexit__(None, None, None)


async def _within(
    work: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None, what: str
) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await work()
    except TimeoutError as error:
        raise _late(what, timeout_s) from error


def _late(what: str, timeout_s: float | None) -> DeadlinePassed:
    return DeadlinePassed(f"{what} within {timeout_s:g} s")


def _at_exit() -> None:
    """Closes what a program has left open, so that the broker publishes no will of it."""
    for client in list(_open):
        client.close()


atexit.register(_at_exit)
