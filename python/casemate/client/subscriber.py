"""Asks the broker for messages, for good or for the time of a block, and ends that again."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from itertools import groupby

from casemate.client.delivery import Delivery, Lane, Taker
from casemate.client.exchange import Exchange
from casemate.client.keeper import Keeper
from casemate.client.request import Answers
from casemate.client.session import Subscription, refusal
from casemate.client.topic import admit_filter, admit_topic
from casemate.errors import ClientError, Refused

LEAVE_S = 5.0
"""Time that the end of a block may take to tell the broker, in seconds."""

_LOG = logging.getLogger("casemate.client")

_REFUSAL = 0x80
_SUBSCRIPTION_IDS = 2**28 - 1
_OWN_IDS_FROM_MAX = 2**27


class Subscriber:
    """Keeps what a client has subscribed to, and who takes what comes of it."""

    def __init__(self, keeper: Keeper, exchange: Exchange, delivery: Delivery) -> None:
        """Starts without subscriptions.

        Args:
            keeper: Gives the connection.
            exchange: Asks over it.
            delivery: Leads messages to whom they concern.
        """
        self._keeper = keeper
        self._exchange = exchange
        self._delivery = delivery
        # Ids of an earlier program's subscriptions may come with a session that is resumed.
        self._next_id = secrets.randbelow(_OWN_IDS_FROM_MAX) + 1
        self._answers: dict[str, Answers] = {}
        self._asking = asyncio.Lock()

    async def subscribe(self, wanted: list[Subscription]) -> list[int]:
        """Subscribes for good; see `Client.subscribe`."""
        names = admit_filters([one.filter for one in wanted])
        self._refuse_lanes(names)
        return await self._ask(wanted)

    async def unsubscribe(self, names: list[str]) -> None:
        """Ends subscriptions; see `Client.unsubscribe`."""
        admit_filters(names)
        self._refuse_lanes(names)
        for one in names:
            self._exchange.session.subscriptions.pop(one, None)
        answer = await self._keeper.ask(self._exchange.unsubscribe_packet(names))
        for one, code in zip(names, answer.codes, strict=False):
            if code >= _REFUSAL:
                raise refusal(f'to end the subscription "{one}"', code, answer.reason_string)

    async def enter(self, wanted: list[Subscription], taker: Taker) -> Lane:
        """Subscribes with a taker of its own.

        Args:
            wanted: Its filters; their subscription ids are set here.
            taker: Gets what comes of them.

        Raises:
            ValueError: A filter cannot be, or is subscribed to already.
            Refused: The broker refused one of them; none stands.
        """
        names = admit_filters([one.filter for one in wanted])
        link = await self._keeper.connected()
        self._refuse_lanes(names)
        for one in names:
            if one in self._exchange.session.subscriptions:
                raise ValueError(f'this client has subscribed to "{one}" already')
        own_id = None
        if link.limits.subscription_ids:
            own_id = self._next_id
            self._next_id = self._next_id % _SUBSCRIPTION_IDS + 1
        lane = Lane(tuple(names), own_id, taker)
        # Open before the SUBSCRIBE, which may bring stored messages at once.
        self._delivery.open(lane)
        try:
            await self._ask([one.with_id(own_id) for one in wanted])
        except BaseException:
            await self.leave(lane)
            raise
        return lane

    async def leave(self, lane: Lane) -> None:
        """Ends the subscriptions of a lane; without a connection, when there is one again."""
        session, filters = self._exchange.session, list(lane.filters)
        self._delivery.close(lane)
        for one in filters:
            session.subscriptions.pop(one, None)
        session.unwanted.update(filters)
        with suppress(ClientError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                packet = self._exchange.unsubscribe_packet(filters)
                await self._exchange.ask(self._keeper.link(), packet)
                # Unless somebody has subscribed to them again meanwhile, behind this in order.
                session.unwanted.difference_update(filters)

    async def answers_on(self, topic: str, qos: int) -> Answers:
        """Gives who takes the answers on a response topic; subscribes the first time.

        Raises:
            ValueError: The topic cannot be.
            Refused: The broker refused the subscription.
        """
        admit_topic(topic)
        async with self._asking:
            answers = self._answers.get(topic)
            if answers is None:
                answers = Answers()
                await self.enter([Subscription(topic, qos)], answers)
                self._answers[topic] = answers
            return answers

    async def _ask(self, wanted: list[Subscription]) -> list[int]:
        granted: list[int] = []
        refused: Refused | None = None
        for id_of_group, group in groupby(wanted, lambda one: one.subscription_id):
            lines = list(group)
            self._exchange.session.unwanted.difference_update(one.filter for one in lines)
            answer = await self._keeper.ask(self._exchange.subscribe_packet(id_of_group, lines))
            error = self._exchange.granted(lines, answer)
            refused = refused or error
            granted.extend(answer.codes)
            for one, code in zip(lines, answer.codes, strict=False):
                _LOG.debug("SUBSCRIBE %r is answered by 0x%02x", one.filter, code)
        if refused is not None:
            raise refused
        return granted

    def _refuse_lanes(self, names: list[str]) -> None:
        for one in names:
            if self._delivery.has_lane(one):
                raise ValueError(f'a block of this client has subscribed to "{one}" already')


def admit_filters(filters: list[str]) -> list[str]:
    """Gives the filters.

    Raises:
        ValueError: One cannot be, or there is none.
    """
    if not filters:
        raise ValueError("name at least one filter")
    for one in filters:
        admit_filter(one)
    return filters
