"""The client: one session with one broker, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

from casemate import native
from casemate.client.exchange import ALIASES_MAX, Answer, Encode, Exchange
from casemate.client.inbox import Inbox
from casemate.client.link import Limits, Link
from casemate.client.message import (
    NO_PROPERTIES,
    Payload,
    Properties,
    Will,
    to_bytes,
)
from casemate.client.session import (
    Outgoing,
    Subscription,
    refusal,
)
from casemate.client.transport import PLAIN_PORT, TLS_PORT, Address, is_loopback, trust
from casemate.errors import (
    ClientError,
    ConnectionLost,
    DeadlinePassed,
    NotConnected,
    ProtocolViolation,
    Refused,
    Unreachable,
    Untrusted,
)

RECONNECT_S_MIN = 0.5
RECONNECT_S_MAX = 60.0
STEADY_S = 30.0
"""A connection that lived this long, in seconds, makes the next wait short again."""

_REFUSAL = 0x80
_TRY_AGAIN = frozenset({0x80, 0x83, 0x88, 0x89, 0x8B, 0x8D, 0x93, 0x96, 0x97, 0x98, 0x9F, 0xA0})
"""Refusals after which another attempt may succeed; all others are final."""


class Client:
    """Publishes and subscribes; reconnects by itself and resumes its session.

    All methods belong to the event loop in which it was connected.

    Attributes:
        inbox: The messages, also under the name `messages`.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        client_id: str = "",
        username: str | None = None,
        password: str | bytes | None = None,
        tls: ssl.SSLContext | bool = True,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        insecure_plaintext: bool = False,
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
        connect_timeout_s: float = 10.0,
        reconnect: bool = True,
    ) -> None:
        """Describes a client; nothing is opened yet.

        Args:
            host: Name or address of the broker; its certificate must hold it.
            port: 1–65535; None takes 8883, or 1883 without TLS.
            client_id: Empty lets the broker choose; in MQTT 3.1 the client does.
            username: What the client calls itself.
            password: What it knows.
            tls: True verifies the broker, with the files below; a context is used as it is; False
                is plaintext, on loopback only.
            ca_file: PEM of the authorities to trust; None trusts the system's.
            cert_file: PEM of the client's certificate.
            key_file: PEM of its key.
            insecure_plaintext: With `tls=False`, also off loopback: everybody on the way can read
                and change everything, the password included.
            version: 5, 4 (MQTT 3.1.1) or 3 (MQTT 3.1).
            keep_alive_s: 0–65,535 seconds; 0 never pings.
            clean_start: Forget the session that the broker may still have.
            session_expiry_s: Seconds that the broker keeps the session after the connection (5.0).
                Before 5.0 it is kept exactly where `clean_start` is False.
            will: What the broker publishes when this client is lost.
            user: User properties of CONNECT (5.0).
            receive_max: QoS 1 and 2 messages that may wait for the program, 1–65,535 (5.0).
            packet_bytes_max: Largest packet that is read, in bytes.
            queue_messages_max: Messages that wait for the program before reading stops.
            queue_bytes_max: The same in bytes of payload.
            connect_timeout_s: Seconds for each of transport and CONNACK.
            reconnect: Connect again, and restore the subscriptions, when the connection is lost.

        Raises:
            ValueError: A number is out of its range.
            Untrusted: Plaintext off loopback, or a file of the TLS material is unusable.
        """
        if version not in (3, 4, 5):
            raise ValueError("version is 3, 4 or 5")
        if not 0 <= keep_alive_s <= 65_535 or not 1 <= receive_max <= 65_535:
            raise ValueError("keep_alive_s is 0–65,535 and receive_max 1–65,535")
        if queue_messages_max < 1 or queue_bytes_max < 1 or packet_bytes_max < 256:
            raise ValueError("queues hold at least 1, packets at least 256 bytes")
        self._address = _address(
            host, port, tls, insecure_plaintext, (ca_file, cert_file, key_file)
        )
        self._version = version
        if not client_id and version == 3:  # MQTT 3.1 §3.1 has no empty client id.
            client_id = f"casemate-{secrets.token_hex(7)}"
        self._client_id = client_id
        self._username = username
        self._password = password.encode() if isinstance(password, str) else password
        self._keep_alive_s = keep_alive_s
        self._clean_start = clean_start
        self._session_expiry_s = session_expiry_s
        self._will = None if will is None else will.native()
        self._user = list(user)
        self._receive_max = min(receive_max, queue_messages_max)
        self.inbox = Inbox(queue_messages_max, queue_bytes_max)
        self._exchange = Exchange(version, self.inbox, self._receive_max)
        self._packet_bytes_max = packet_bytes_max
        self._connect_timeout_s = connect_timeout_s
        self._reconnect = reconnect
        # Why nothing can be sent: at first because nobody has connected yet.
        self._end: ClientError | None = NotConnected("the client was not connected yet")
        self._keeper: asyncio.Task[None] | None = None
        self.session_present = False

    @property
    def messages(self) -> Inbox:
        """The messages that arrive, for `async for`."""
        return self.inbox

    @property
    def client_id(self) -> str:
        """The client id in use; empty until the broker has chosen one."""
        return self._client_id

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._exchange.link is not None

    @property
    def limits(self) -> Limits:
        """What the broker takes on this connection.

        Raises:
            NotConnected: There is none.
        """
        if self._exchange.link is None:
            raise self._end or NotConnected("there is no connection at the moment")
        return self._exchange.link.limits

    async def connect(self) -> None:
        """Connects; it does not retry, so that a wrong address is heard of at once.

        Raises:
            Refused: The broker said no, and why.
            Unreachable: Nothing listens there.
            Untrusted: The broker's certificate proves nothing, or it wants another of ours.
            DeadlinePassed: No answer came in time.
        """
        if self._keeper is not None:
            raise ClientError("a client connects once", hint="make a new Client")
        try:
            link = await self._open(self._clean_start)
        except ClientError as error:
            self._finish(error, error)
            raise
        self._end = None
        await self._adopt(link)
        self._keeper = asyncio.create_task(self._keep(link))

    async def close(self, *, with_will: bool = False) -> None:
        """Says goodbye and closes; what is still on its way is given up.

        Args:
            with_will: Ask the broker to publish the will all the same (5.0).
        """
        self._finish(NotConnected("the client was closed"), None)
        if self._keeper is not None:
            self._keeper.cancel()
        link, self._exchange.link = self._exchange.link, None
        if link is not None:
            await link.close(native.encode_disconnect(self._version, reason=4 if with_will else 0))

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
        fault = native.topic_fault(topic)
        if fault is not None:
            raise ValueError(f"invalid topic name: {fault}")
        if qos not in (0, 1, 2):
            raise ValueError("qos is 0, 1 or 2")
        link = await self._connected()
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
        self.inbox.wake()
        try:
            return await message.done
        finally:
            if message.stage == "new":
                self._exchange.session.drop(message)

    async def subscribe(
        self,
        *filters: str | Subscription,
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
        wanted = [
            one
            if isinstance(one, Subscription)
            else Subscription(
                one, qos, no_local, retain_as_published, retain_handling, subscription_id
            )
            for one in filters
        ]
        _admit_filters([one.filter for one in wanted])
        granted: list[int] = []
        refused: Refused | None = None
        for id_of_group, group in groupby(wanted, lambda one: one.subscription_id):
            lines = list(group)
            answer = await self._ask(self._exchange.subscribe_packet(id_of_group, lines))
            error = self._exchange.granted(lines, answer)
            refused = refused or error
            granted.extend(answer.codes)
        if refused is not None:
            raise refused
        return granted

    async def unsubscribe(self, *filters: str) -> None:
        """Ends subscriptions.

        Raises:
            ValueError: A filter cannot be.
            Refused: The broker refused one of them.
        """
        _admit_filters(filters)
        for one in filters:
            self._exchange.session.subscriptions.pop(one, None)
        answer = await self._ask(
            lambda packet_id, limit: native.encode_unsubscribe(
                self._version, packet_id, list(filters), packet_bytes_max=limit
            )
        )
        for one, code in zip(filters, answer.codes, strict=False):
            if code >= _REFUSAL:
                raise refusal(f'to end the subscription "{one}"', code, answer.reason_string)

    async def _open(self, clean_start: bool) -> Link:
        modern = self._version == 5
        connect = native.encode_connect(
            self._version,
            self._client_id,
            clean_start=clean_start,
            keep_alive_s=self._keep_alive_s,
            username=self._username,
            password=self._password,
            will=self._will,
            session_expiry_s=self._session_expiry_s if modern else None,
            receive_max=self._receive_max if modern else None,
            packet_bytes_max=self._packet_bytes_max if modern else None,
            topic_alias_max=ALIASES_MAX if modern else None,
            user=self._user if modern else [],
        )
        link, connack = await Link.open(
            self._address,
            self._version,
            connect,
            self._keep_alive_s,
            self._packet_bytes_max,
            self._connect_timeout_s,
        )
        if connack.session_present and clean_start:
            link.abort()
            raise ProtocolViolation("the broker resumed a session that was to be forgotten")
        self._client_id = connack.assigned_client_id or self._client_id
        self.session_present = connack.session_present
        return link

    async def _adopt(self, link: Link) -> None:
        """Goes on over a new connection: what was on its way first, then what waits."""
        if self.session_present:
            self._exchange.session.resume()
        else:
            self._exchange.session.renew()
        self._exchange.link = link
        link.start(self._exchange)
        if not self.session_present:
            for id_of_group, lines in self._exchange.session.groups():
                answer = await self._exchange.ask(
                    link, self._exchange.subscribe_packet(id_of_group, lines)
                )
                refused = self._exchange.granted(lines, answer)
                if refused is not None:
                    raise refused
        self._exchange.pump()
        self._exchange.tell_change()

    async def _keep(self, link: Link) -> None:
        """Replaces each connection that is lost, until that is pointless."""
        wait_s = RECONNECT_S_MIN
        while True:
            began = time.monotonic()
            await asyncio.wait([link.lost])
            error = link.lost.result()
            if time.monotonic() - began > STEADY_S:
                wait_s = RECONNECT_S_MIN
            while True:
                self._exchange.link = None
                if not self._reconnect or not _may_retry(error):
                    self._finish(error, error)
                    return
                # Jitter keeps a thousand clients from returning in the same instant.
                await asyncio.sleep(random.uniform(wait_s / 2, wait_s))  # noqa: S311 - no secret.
                wait_s = min(wait_s * 2, RECONNECT_S_MAX)
                try:
                    link = await self._open(self._clean_start and not self._outlives())
                    await self._adopt(link)
                    break
                except ClientError as again:
                    error = again
                    link.lose(error)

    def _outlives(self) -> bool:
        """Says whether the session was asked to outlive its connection."""
        return self._version == 5 and self._session_expiry_s > 0

    def _finish(self, error: ClientError, for_reader: ClientError | None) -> None:
        self._end = error
        self._exchange.session.fail_all(error)
        self._exchange.fail_requests(error)
        self.inbox.end(for_reader)
        self._exchange.tell_change()

    async def _connected(self) -> Link:
        while self._exchange.link is None:
            if self._end is not None:
                raise self._end
            await self._exchange.change()
        return self._exchange.link

    async def _ask(self, encode: Encode) -> Answer:
        """Asks until a connection lives long enough to answer."""
        while True:
            link = await self._connected()
            try:
                return await self._exchange.ask(link, encode)
            except ConnectionLost:
                if self._end is not None:
                    raise


def _address(
    host: str,
    port: int | None,
    tls: ssl.SSLContext | bool,
    insecure_plaintext: bool,
    files: tuple[str | Path | None, str | Path | None, str | Path | None],
) -> Address:
    if tls is False:
        if any(files):
            raise Untrusted("certificates were given together with tls=False")
        if not insecure_plaintext and not is_loopback(host):
            raise Untrusted(
                f"{host} is not this machine, and the connection would be in plaintext",
                hint="use TLS, or say insecure_plaintext=True if everybody on the way may read it",
            )
        return Address(host, PLAIN_PORT if port is None else port, None, insecure_plaintext)
    context = trust(*files) if tls is True else tls
    if tls is not True and any(files):
        raise Untrusted("give a TLS context or files, not both")
    return Address(host, TLS_PORT if port is None else port, context)


def _admit(limits: Limits, qos: int, retain: bool) -> None:
    """Refuses what the broker has said it does not take [MQTT-3.2.2-11] [MQTT-3.2.2-14]."""
    if qos > limits.qos_max:
        raise Refused(f"the broker takes no QoS above {limits.qos_max}", reason_code=0x9B)
    if retain and not limits.retain:
        raise Refused("the broker stores no messages", reason_code=0x9A)


def _admit_filters(filters: Iterable[str]) -> None:
    count = 0
    for one in filters:
        count += 1
        fault = native.filter_fault(one)
        if fault is not None:
            raise ValueError(f"invalid topic filter: {fault}")
    if count == 0:
        raise ValueError("name at least one filter")


def _may_retry(error: ClientError) -> bool:
    if isinstance(error, Refused):
        return error.reason_code in _TRY_AGAIN
    return isinstance(error, ConnectionLost | Unreachable | DeadlinePassed)
