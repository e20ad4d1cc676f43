"""Requests and their answers over MQTT 5.0: a response topic, correlation data and a deadline."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace

from casemate.client.inbox import Receipt
from casemate.client.message import Message, Properties
from casemate.errors import ClientError

_CORRELATION_BYTES = 16
"""Nobody guesses it, so that only who was asked can answer."""

_LOG = logging.getLogger("casemate.client")


class Answers:
    """Gives each answer to whoever asked, by its correlation data.

    An answer that nobody awaits any more is let go and logged: its request has ended already.
    """

    def __init__(self) -> None:
        """Starts without requests."""
        self._awaited: dict[bytes, asyncio.Future[Message]] = {}
        self._end: BaseException | None = None

    def __len__(self) -> int:
        """Answers never wait: whoever asked gets them at once."""
        return 0

    def expect(self) -> tuple[bytes, asyncio.Future[Message]]:
        """Gives new correlation data, and the future of its answer.

        Raises:
            ClientError: Nothing comes any more.
        """
        if self._end is not None:
            raise self._end
        correlation = secrets.token_bytes(_CORRELATION_BYTES)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._awaited[correlation] = answer
        return correlation, answer

    def forget(self, correlation: bytes) -> None:
        """Stops waiting for an answer."""
        self._awaited.pop(correlation, None)

    def put(self, message: Message, receipt: Receipt | None) -> None:
        """Takes an answer."""
        answer = self._awaited.pop(message.properties.correlation_data or b"", None)
        if answer is None or answer.done():
            _LOG.info("an answer came that nobody awaits (any more)")
        else:
            answer.set_result(message)
        if receipt is not None:
            receipt()

    def is_full(self, *, overdraft: bool) -> bool:
        """Says no: nothing waits here."""
        return False

    def end(self, error: BaseException | None) -> None:
        """Tells whoever waits that no answer will come."""
        self._end = error or ClientError("the client was closed")
        for answer in self._awaited.values():
            if not answer.done():
                answer.set_exception(self._end)
                # Whoever was cancelled never looks.
                answer.exception()
        self._awaited.clear()


def answer_properties(request: Message, properties: Properties) -> tuple[str, Properties]:
    """Gives the topic and the properties of the answer to a request.

    Args:
        request: The message that asks.
        properties: Of the answer; its correlation data becomes the request's.

    Raises:
        ValueError: The message asks for no answer.
    """
    topic = request.properties.response_topic
    if topic is None:
        raise ValueError("the message names no response topic, so that it asks for no answer")
    return topic, replace(properties, correlation_data=request.properties.correlation_data)
