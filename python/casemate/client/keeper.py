"""Keeps a client connected: opens, resumes, restores, and comes back after a loss."""

from __future__ import annotations

import asyncio
import logging
import random
import time

from casemate import native
from casemate.client.address import Address
from casemate.client.exchange import Answer, Encode, Exchange
from casemate.client.greeting import Greeting
from casemate.client.link import Link
from casemate.errors import (
    ClientError,
    ConnectionLost,
    DeadlinePassed,
    NotConnected,
    ProtocolViolation,
    Refused,
    Unreachable,
)

RECONNECT_S_MIN = 0.5
RECONNECT_S_MAX = 60.0
STEADY_S = 30.0
"""A connection that lived this long, in seconds, makes the next wait short again."""

_TRY_AGAIN = frozenset({0x80, 0x83, 0x88, 0x89, 0x8B, 0x8D, 0x93, 0x96, 0x97, 0x98, 0x9F, 0xA0})
"""Refusals after which another attempt may succeed; all others are final."""

_WITH_WILL = 0x04

_LOG = logging.getLogger("casemate.client")


class Keeper:
    """Gives its client one connection after another.

    Attributes:
        session_present: Whether the broker still had the session when it was last connected.
        response_information: What the broker suggests for response topics (5.0).
    """

    def __init__(
        self,
        address: Address,
        greeting: Greeting,
        exchange: Exchange,
        connect_timeout_s: float,
        reconnect_s_max: float | None,
    ) -> None:
        """Describes it; nothing is opened yet.

        Args:
            address: Where to.
            greeting: What is said there.
            exchange: Who gets the connections.
            connect_timeout_s: Seconds for each of transport and CONNACK.
            reconnect_s_max: Longest wait between two attempts, in seconds; None makes none.
        """
        self.address = address
        self._greeting = greeting
        self._exchange = exchange
        self._connect_timeout_s = connect_timeout_s
        self._reconnect_s_max = reconnect_s_max
        # Why nothing can be sent: at first because nobody has connected yet.
        self._end: ClientError | None = NotConnected("the client was not connected yet")
        self._loss: ClientError | None = None
        self._begun = False
        self._task: asyncio.Task[None] | None = None
        self.session_present: bool = False
        self.response_information: str | None = None

    async def connect(self) -> None:
        """Connects once, and from then on again whenever the connection is lost.

        Raises:
            ClientError: It failed; this is final.
        """
        if self._begun:
            raise ClientError("a client connects once", hint="make a new Client")
        self._begun = True
        try:
            link = await self._open(clean_start=self._greeting.clean_start)
        except ClientError as error:
            self._finish(error, error)
            raise
        self._end = None
        await self._adopt(link)
        self._task = asyncio.create_task(self._guarded(link), name="casemate-client")

    async def close(self, *, with_will: bool) -> None:
        """Says goodbye and closes."""
        self._finish(NotConnected("the client was closed"), None)
        if self._task is not None:
            self._task.cancel()
        link, self._exchange.link = self._exchange.link, None
        if link is not None:
            _LOG.debug("disconnecting from %s", self.address)
            reason = _WITH_WILL if with_will else 0
            await link.close(native.encode_disconnect(self._greeting.version, reason=reason))

    def link(self) -> Link:
        """Gives the connection.

        Raises:
            ClientError: There is none at the moment.
        """
        if self._exchange.link is None:
            raise self._end or NotConnected("there is no connection at the moment")
        return self._exchange.link

    async def connected(self) -> Link:
        """Waits for a connection.

        Raises:
            ClientError: There will be none.
        """
        while self._exchange.link is None:
            if self._end is not None:
                raise self._end
            await self._exchange.change()
        return self._exchange.link

    async def disconnected(self) -> ClientError:
        """Waits until there is no connection, and gives why; at once where there is none."""
        link = self._exchange.link
        if link is not None:
            await asyncio.wait([link.lost])
            return self._end or link.lost.result()
        return self._end or self._loss or NotConnected("there is no connection at the moment")

    async def ask(self, encode: Encode) -> Answer:
        """Asks until a connection lives long enough to answer."""
        while True:
            link = await self.connected()
            try:
                return await self._exchange.ask(link, encode)
            except ConnectionLost:
                if self._end is not None:
                    raise
                if self._exchange.link is link:
                    # The keeper has yet to hear of the loss; asking again would leave it no turn.
                    await self._exchange.change()

    async def _open(self, *, clean_start: bool) -> Link:
        greeting = self._greeting
        _LOG.debug("connecting to %s", self.address)
        link, connack = await Link.open(
            self.address,
            greeting.version,
            greeting.encode(clean_start=clean_start),
            greeting.keep_alive_s,
            greeting.packet_bytes_max,
            self._connect_timeout_s,
        )
        if connack.session_present and clean_start:
            link.abort()
            raise ProtocolViolation("the broker resumed a session that was to be forgotten")
        greeting.client_id = connack.assigned_client_id or greeting.client_id
        self.session_present = connack.session_present
        self.response_information = connack.response_information
        # The broker may have chosen the client id, and the text of it.
        _LOG.debug(
            "connected to %s as %r: session %s, alive %d s, at most %d messages, %d bytes each",
            self.address,
            greeting.client_id,
            "resumed" if connack.session_present else "new",
            link.limits.keep_alive_s,
            link.limits.receive_max,
            link.limits.packet_bytes_max,
        )
        return link

    async def _adopt(self, link: Link) -> None:
        """Goes on over a new connection: what was on its way first, then what waits."""
        exchange, session = self._exchange, self._exchange.session
        if self.session_present:
            session.resume()
        else:
            session.renew()
            session.unwanted.clear()
        exchange.link = link
        link.start(exchange)
        if session.unwanted:
            await exchange.ask(link, exchange.unsubscribe_packet(list(session.unwanted)))
            session.unwanted.clear()
        if not self.session_present:
            for id_of_group, lines in session.groups():
                answer = await exchange.ask(link, exchange.subscribe_packet(id_of_group, lines))
                refused = exchange.granted(lines, answer)
                if refused is not None:
                    raise refused
        exchange.pump()
        exchange.tell_change()

    async def _guarded(self, link: Link) -> None:
        try:
            await self._keep(link)
        except Exception:
            # A fault of ours must not leave callers waiting for ever; the task reports it.
            error = ConnectionLost("the client failed")
            self._finish(error, error)
            raise

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
                self._exchange.link, self._loss = None, error
                self._exchange.tell_change()
                if self._reconnect_s_max is None or not _may_retry(error):
                    self._finish(error, error)
                    return
                wait_s = min(wait_s, self._reconnect_s_max)
                # Jitter keeps a thousand clients from returning in the same instant.
                now_s = random.uniform(wait_s / 2, wait_s)  # noqa: S311 - no secret.
                # Without the cause, which may be a broker's own words.
                _LOG.warning("%s; connecting again in %.1f s", error.message, now_s)
                await asyncio.sleep(now_s)
                wait_s *= 2
                try:
                    link = await self._open(clean_start=self._greeting.starts_clean_again())
                    await self._adopt(link)
                    _LOG.info("connected to %s again", self.address)
                    break
                except ClientError as again:
                    error = again
                    link.lose(error)

    def _finish(self, error: ClientError, for_reader: ClientError | None) -> None:
        self._end = error
        self._exchange.session.fail_all(error)
        self._exchange.fail_requests(error)
        self._exchange.delivery.end(for_reader)
        self._exchange.tell_change()


def _may_retry(error: ClientError) -> bool:
    if isinstance(error, Refused):
        return error.reason_code in _TRY_AGAIN
    return isinstance(error, ConnectionLost | Unreachable | DeadlinePassed)
