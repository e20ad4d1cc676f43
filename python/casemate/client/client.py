"""The client: one session with one broker, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from casemate.client.address import Address, locate
from casemate.client.delivery import Delivery
from casemate.client.exchange import Exchange
from casemate.client.greeting import Greeting
from casemate.client.inbox import Inbox
from casemate.client.keeper import RECONNECT_S_MAX, Keeper
from casemate.client.link import Limits
from casemate.client.message import (
    NO_PROPERTIES,
    Message,
    Payload,
    Properties,
    Will,
    to_bytes,
)
from casemate.client.request import answer_properties
from casemate.client.session import Outgoing, Subscription
from casemate.client.subscriber import Subscriber
from casemate.client.topic import TopicPattern, admit_topic
from casemate.client.trust import HTTP, MQTT, trust
from casemate.errors import ClientError, DeadlinePassed, Refused, Untrusted

if TYPE_CHECKING:
    from casemate.client.blocking import BlockingClient

_NO_MATCHING_SUBSCRIBERS = 0x10

Filter = str | TopicPattern | Subscription
"""What may be subscribed to."""


class Client:
    """Publishes and subscribes; reconnects by itself and resumes its session.

    All methods belong to the event loop in which it was connected; `blocking` gives a client for
    programs without one.

    Attributes:
        inbox: The messages, also under the name `messages`.
    """

    def __init__(
        self,
        host: str = "",
        port: int | None = None,
        *,
        client_id: str = "",
        username: str | None = None,
        password: str | bytes | None = None,
        tls: ssl.SSLContext | bool | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        insecure_plaintext: bool = False,
        unix_socket: str | Path | None = None,
        websocket_path: str | None = None,
        websocket_headers: Iterable[tuple[str, str]] = (),
        local_address: str | None = None,
        proxy: str | None = None,
        version: int = 5,
        keep_alive_s: int = 60,
        clean_start: bool = True,
        session_expiry_s: int = 0,
        will: Will | None = None,
        user: Iterable[tuple[str, str]] = (),
        receive_max: int = 1_000,
        packet_bytes_max: int = 16 * 1024 * 1024,
        queue_messages_max: int = 1_000,
        queue_bytes_max: int = 16 * 1024 * 1024,
        acknowledge_by_hand: bool = False,
        connect_timeout_s: float = 10.0,
        reconnect: bool = True,
        reconnect_s_max: float = RECONNECT_S_MAX,
    ) -> None:
        """Describes a client; nothing is opened yet.

        Args:
            host: Name or address of the broker; its certificate must hold it. Empty only with a
                unix socket.
            port: 1–65535; None takes 8883, or 1883 without TLS, and 443 or 80 for WebSocket.
            client_id: Empty lets the broker choose; in MQTT 3.1 the client does.
            username: What the client calls itself.
            password: What it knows.
            tls: True verifies the broker, with the files below; a context is used as it is; False
                is plaintext, on loopback only. None is True, but False on a unix socket.
            ca_file: PEM of the authorities to trust; None trusts the system's.
            cert_file: PEM of the client's certificate.
            key_file: PEM of its key.
            insecure_plaintext: With `tls=False`, also off loopback: everybody on the way can read
                and change everything, the password included.
            unix_socket: Path of a socket on this machine, in place of host and port.
            websocket_path: Speak MQTT over a WebSocket on this path, such as `/mqtt`.
            websocket_headers: Sent with its handshake, such as a token for a proxy.
            local_address: Own address from which to connect.
            proxy: A proxy to go through, `http://[user:password@]host[:port]` or `socks5h://…`;
                it sees where to, and with TLS nothing else.
            version: 5, 4 (MQTT 3.1.1) or 3 (MQTT 3.1).
            keep_alive_s: 0–65,535 seconds; 0 never pings.
            clean_start: Forget the session that the broker may still have.
            session_expiry_s: Seconds that the broker keeps the session after the connection (5.0).
                Before 5.0 it is kept exactly where `clean_start` is False.
            will: What the broker publishes when this client is lost.
            user: User properties of CONNECT (5.0).
            receive_max: QoS 1 and 2 messages that may wait for the program, 1–65,535 (5.0).
            packet_bytes_max: Largest packet that is read, in bytes.
            queue_messages_max: Messages that wait for the program before reading stops, in each
                queue: the client's own and that of each `subscription`.
            queue_bytes_max: The same in bytes of payload.
            acknowledge_by_hand: A message of QoS 1 or 2 is acknowledged when the program says so by
                `acknowledge`, not when it takes it.
            connect_timeout_s: Seconds for each of transport and CONNACK.
            reconnect: Connect again, and restore the subscriptions, when the connection is lost.
            reconnect_s_max: Longest wait between two attempts, in seconds; waits begin at half a
                second, double, and are drawn from the upper half of that.

        Raises:
            ValueError: A number is out of its range, or two arguments contradict each other.
            Untrusted: Plaintext off loopback, or a file of the TLS material is unusable.
        """
        if queue_messages_max < 1 or queue_bytes_max < 1 or reconnect_s_max <= 0:
            raise ValueError("queues hold at least 1, and reconnect_s_max is above 0")
        if tls is None:
            tls = unix_socket is None or any((ca_file, cert_file, key_file))
        address = locate(
            host,
            port,
            _tls(tls, (ca_file, cert_file, key_file), websocket_path),
            insecure_plaintext=insecure_plaintext,
            unix_socket=unix_socket,
            websocket_path=websocket_path,
            websocket_headers=websocket_headers,
            local_address=local_address,
            proxy=proxy,
        )
        self._greeting = Greeting(
            version,
            client_id,
            username=username,
            password=password,
            keep_alive_s=keep_alive_s,
            clean_start=clean_start,
            session_expiry_s=session_expiry_s,
            will=will,
            user=user,
            receive_max=receive_max,
            packet_bytes_max=packet_bytes_max,
        )
        self._greeting.receive_max = min(receive_max, queue_messages_max)
        bounds = queue_messages_max, queue_bytes_max
        self._delivery = Delivery(*bounds, by_hand=acknowledge_by_hand)
        self._exchange = Exchange(version, self._delivery, self._greeting.receive_max)
        waits = connect_timeout_s, reconnect_s_max if reconnect else None
        self._keeper = Keeper(address, self._greeting, self._exchange, *waits)
        self.inbox: Inbox = self._delivery.inbox
        self._subscriber = Subscriber(self._keeper, self._exchange, self._delivery)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:  # noqa: ANN401 - as for Client.
        """Describes a client by a URL.

        Args:
            url: `mqtts://[user[:password]@]host[:port]`, `wss://host[:port][/path]`,
                `unix:///path`, and the plaintext `mqtt://` and `ws://`, which stay on loopback.
            options: As for `Client`, but for what the URL says.

        Raises:
            ValueError: The URL cannot be, or says what an option says too.
            Untrusted: As for `Client`.

        Example:
            ```python
            from casemate import Client

            client = Client.from_url("mqtts://ada@broker.example", keep_alive_s=30)
            print(client.address)  # broker.example:8883
            ```
        """
        from casemate.client.url import read_url

        said = read_url(url)
        twice = sorted(said.keys() & options.keys())
        if twice:
            raise ValueError(f"the URL and an argument both say {twice[0]}")
        return cls(**said, **options)

    def blocking(self) -> BlockingClient:
        """Gives the client for programs without an event loop; this one is then its own."""
        from casemate.client.blocking import BlockingClient

        return BlockingClient(self)

    def __repr__(self) -> str:
        """Names the broker and the client id; never a secret."""
        state = "connected" if self.is_connected else "not connected"
        return f"<Client {self.client_id!r} at {self.address}, {state}>"

    @property
    def address(self) -> Address:
        """Where the broker is."""
        return self._keeper.address

    @property
    def messages(self) -> Inbox:
        """The messages that arrive, for `async for`, but for those of a `subscription`."""
        return self.inbox

    @property
    def client_id(self) -> str:
        """The client id in use; empty until the broker has chosen one."""
        return self._greeting.client_id

    @property
    def version(self) -> int:
        """5, 4 (MQTT 3.1.1) or 3 (MQTT 3.1)."""
        return self._greeting.version

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._exchange.link is not None

    @property
    def session_present(self) -> bool:
        """Whether the broker still had the session when this client was last connected."""
        return self._keeper.session_present

    @property
    def limits(self) -> Limits:
        """What the broker takes on this connection.

        Raises:
            NotConnected: There is none.
        """
        return self._keeper.link().limits

    async def connect(self) -> None:
        """Connects; it does not retry, so that a wrong address is heard of at once.

        Raises:
            Refused: The broker said no, and why.
            Unreachable: Nothing listens there.
            Untrusted: The broker's certificate proves nothing, or it wants another of ours.
            DeadlinePassed: No answer came in time.
        """
        await self._keeper.connect()

    async def close(self, *, with_will: bool = False) -> None:
        """Says goodbye and closes; what is still on its way is given up.

        Args:
            with_will: Ask the broker to publish the will all the same (5.0).
        """
        await self._keeper.close(with_will=with_will)

    async def wait_connected(self) -> None:
        """Waits until there is a connection.

        Raises:
            ClientError: There will be none.
        """
        await self._keeper.connected()

    async def wait_disconnected(self) -> ClientError:
        """Waits until the connection is lost or closed; gives why.

        The client goes on by itself all the same; this is for programs that show or log it.
        """
        return await self._keeper.disconnected()

    async def __aenter__(self) -> Self:
        """Connects; raises as `connect`."""
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes."""
        await self.close()

    async def publish(
        self,
        topic: str,
        payload: Payload = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties = NO_PROPERTIES,
    ) -> int:
        """Publishes a message, and for QoS 1 and 2 waits for the last acknowledgement.

        While the connection is lost it waits for the next one. A message of QoS 1 or 2 that was
        sent goes on even if the caller is cancelled.

        Args:
            topic: Topic name, 1–65,535 bytes, without wildcards.
            payload: Bytes, or text that is sent as UTF-8.
            qos: 0, 1 or 2.
            retain: The broker stores it; an empty payload deletes what is stored.
            properties: What travels with it (5.0).

        Returns:
            The broker's reason code: 0, or 0x10 where nobody has subscribed. 0 for QoS 0.

        Raises:
            ValueError: Topic or QoS cannot be.
            Refused: The broker said no, or takes no message that large or of that QoS.
            ConnectionLost: The connection is gone and so is the chance to know.
        """
        admit_topic(topic)
        if qos not in (0, 1, 2):
            raise ValueError("qos is 0, 1 or 2")
        link = await self._keeper.connected()
        _admit(link.limits, qos, retain)
        data = to_bytes(payload)
        if qos == 0:
            link.write(self._exchange.encode(link, topic, data, retain, properties))
            await link.drain()
            return 0
        while not self._exchange.session.has_free_id():
            await self._exchange.change()
        message = Outgoing(
            topic, data, qos, retain, properties, asyncio.get_running_loop().create_future()
        )
        self._exchange.session.add(message)
        self._exchange.pump()
        self._delivery.wake()
        try:
            return await message.done
        finally:
            if message.stage == "new":
                self._exchange.session.drop(message)

    async def subscribe(
        self,
        *filters: Filter,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        subscription_id: int | None = None,
    ) -> list[int]:
        """Subscribes, and keeps the subscriptions over reconnects.

        Args:
            filters: Topic filters, or `Subscription`s with options of their own.
            qos: For the plain ones, as are all that follow; see `Subscription`.
            no_local: Own messages are not wanted (5.0).
            retain_as_published: Keep the publisher's retain flag (5.0).
            retain_handling: 0, 1 or 2 (5.0).
            subscription_id: Comes with each message (5.0).

        Returns:
            The granted QoS of each filter, in order.

        Raises:
            ValueError: A filter cannot be.
            Refused: The broker refused one of them; the others stand.
        """
        options = qos, no_local, retain_as_published, retain_handling, subscription_id
        return await self._subscriber.subscribe(
            [
                one if isinstance(one, Subscription) else Subscription(str(one), *options)
                for one in filters
            ]
        )

    async def unsubscribe(self, *filters: str | TopicPattern) -> None:
        """Ends subscriptions.

        Args:
            filters: As they were subscribed to, at least one.

        Raises:
            ValueError: A filter cannot be.
            Refused: The broker refused one of them.
        """
        await self._subscriber.unsubscribe([str(one) for one in filters])

    @asynccontextmanager
    async def subscription(
        self,
        *filters: str | TopicPattern,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
    ) -> AsyncIterator[Inbox]:
        """Subscribes for the time of a block, with a queue of its own.

        What the queue takes does not come to `client.messages`. A message that answers several
        blocks comes to each; it is acknowledged when all of them have taken it. What nobody has
        taken when the block ends is let go. A full queue stops the reading of all.

        Args:
            filters: Topic filters that this client has not subscribed to already.
            qos: For all of them, as are all that follow; see `Subscription`.
            no_local: Own messages are not wanted (5.0).
            retain_as_published: Keep the publisher's retain flag (5.0).
            retain_handling: 0, 1 or 2 (5.0).

        Yields:
            The messages.

        Raises:
            ValueError: A filter cannot be, or is subscribed to already.
            Refused: The broker refused one of them; none stands.

        Example:
            ```python
            from casemate import Broker

            async with Broker() as broker, broker.client("probe") as client:
                async with client.subscription("lab/+/temp") as messages:
                    await client.publish("lab/1/temp", "21.5")
                    async for message in messages:
                        print(message.topic, message.text)  # lab/1/temp 21.5
                        break
            ```
        """
        options = qos, no_local, retain_as_published, retain_handling
        queue = self._delivery.queue()
        lane = await self._subscriber.enter(
            [Subscription(str(one), *options) for one in filters], queue
        )
        try:
            yield queue
        finally:
            queue.discard()
            await self._subscriber.leave(lane)

    def acknowledge(self, message: Message) -> None:
        """Tells the broker that a message is dealt with; for `acknowledge_by_hand`.

        Acknowledgements leave in the order in which the messages came, whatever the order of
        these calls. What is not acknowledged when the connection ends comes again, in a session
        that is resumed. QoS 0 needs none, and a second call says nothing new.

        Args:
            message: From this client.

        Raises:
            ValueError: It was acknowledged when it was taken.
        """
        if message.receipt is not None:
            message.receipt()
        elif message.qos > 0:
            raise ValueError("without acknowledge_by_hand a message is acknowledged when taken")

    async def request(
        self,
        topic: str,
        payload: Payload = b"",
        *,
        qos: int = 1,
        timeout_s: float = 10.0,
        response_topic: str | None = None,
        properties: Properties = NO_PROPERTIES,
    ) -> Message:
        """Publishes a request and waits for its answer (5.0).

        The first request subscribes to the response topic, which stays until the client closes.

        Args:
            topic: Where the request goes.
            payload: Bytes, or text that is sent as UTF-8.
            qos: Of the request and, at most, of the answer.
            timeout_s: Seconds for all of it.
            response_topic: Where the answer comes, which the policy must let this client hear;
                None takes what the broker suggests, or `responses/` and the client id.
            properties: Travel with the request; response topic and correlation data are set here.

        Raises:
            ValueError: A topic cannot be.
            DeadlinePassed: No answer came in time.
            Refused: The broker refused the request or the response topic.
            ClientError: Nobody has subscribed to the topic, or it is not MQTT 5.0.
        """
        if self.version != 5:
            raise ClientError(
                "requests need MQTT 5.0: older versions have no response topic",
                hint="use version=5, or put both topics and an id into the payload",
            )
        admit_topic(topic)
        try:
            async with asyncio.timeout(timeout_s):
                await self._keeper.connected()
                suggested = self._keeper.response_information or f"responses/{self.client_id}"
                where = response_topic or suggested
                answers = await self._subscriber.answers_on(where, qos)
                correlation, answer = answers.expect()
                try:
                    sent = replace(properties, response_topic=where, correlation_data=correlation)
                    code = await self.publish(topic, payload, qos=qos, properties=sent)
                    if code == _NO_MATCHING_SUBSCRIBERS:
                        raise ClientError(
                            f'nobody has subscribed to "{topic}", so that no answer can come',
                            hint="is the one who answers connected?",
                        )
                    return await answer
                finally:
                    answers.forget(correlation)
        except TimeoutError as error:
            raise DeadlinePassed(f'no answer to "{topic}" came within {timeout_s:g} s') from error

    async def reply(
        self,
        request: Message,
        payload: Payload = b"",
        *,
        qos: int = 1,
        properties: Properties = NO_PROPERTIES,
    ) -> int:
        """Answers a request where it asked for it; returns and raises as `publish`.

        Args:
            request: The message that asked.
            payload: Bytes, or text that is sent as UTF-8.
            qos: 0, 1 or 2.
            properties: Travel with the answer; its correlation data is the request's.

        Raises:
            ValueError: The message asks for no answer.
        """
        topic, answered = answer_properties(request, properties)
        return await self.publish(topic, payload, qos=qos, properties=answered)


def _tls(
    tls: ssl.SSLContext | bool,
    files: tuple[str | Path | None, str | Path | None, str | Path | None],
    websocket_path: str | None,
) -> ssl.SSLContext | None:
    if tls is False:
        if any(files):
            raise Untrusted("certificates were given together with tls=False")
        return None
    if tls is True:
        return trust(*files, alpn=MQTT if websocket_path is None else HTTP)
    if any(files):
        raise Untrusted("give a TLS context or files, not both")
    return tls


def _admit(limits: Limits, qos: int, retain: bool) -> None:
    """Refuses what the broker has said it does not take [MQTT-3.2.2-11] [MQTT-3.2.2-14]."""
    if qos > limits.qos_max:
        raise Refused(f"the broker takes no QoS above {limits.qos_max}", reason_code=0x9B)
    if retain and not limits.retain:
        raise Refused("the broker stores no messages", reason_code=0x9A)
