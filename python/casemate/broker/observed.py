"""The side of a broker that asks and tells a program: hooks, and streams of events."""

from __future__ import annotations

import os
import threading
from typing import Any, TypeVar, overload

from casemate.broker.backlog import Backlog
from casemate.broker.events import Denied, Disconnected, Event, SessionChanged
from casemate.broker.hooks import AnyHook, Hooks
from casemate.broker.serving import Serving
from casemate.broker.stream import EVENTS_WAITING_MAX, EventStream, Stream, Streams
from casemate.errors import BrokerStopped

E = TypeVar("E", bound=Event)
S = TypeVar("S", bound=Stream)


class Observed:
    """Registers hooks and hands out streams; what is running is told to them.

    No hook is on the way of a message, and none can hold the broker up.

    Example:
        ```python
        from casemate import Broker
        from casemate.broker import Connecting, ConnectRefused
        from casemate.errors import Refused

        async with Broker() as broker:

            @broker.on_connect
            async def only_known(client: Connecting) -> None:
                if client.name != "t7":
                    raise ConnectRefused(f"{client.name} has no contract", reason_code=0x8A)

            try:
                await broker.client("t8").connect()
            except Refused as refusal:
                print(hex(refusal.reason_code))  # 0x8a
        ```
    """

    def __init__(self) -> None:
        """Asks and tells nobody yet."""
        self._hooks = Hooks()
        self._streams = Streams()
        self._lock = threading.RLock()
        self._serving: Serving | None = None
        self._pid = os.getpid()

    def on_connect(self, hook: AnyHook) -> AnyHook:
        """Asks a hook about each client that has proven who it is, before it is let in.

        It takes a `Connecting`. When it returns, the client comes in, unless another hook
        refuses; where it raises `ConnectRefused`, the client is refused with that reason code.
        Where it raises anything else, or takes longer than `hook_timeout_s`, the client is
        refused as the server is unavailable. Programs inside (`publisher`, `subscriber`) are not
        asked about. At most 256 are asked about at a time.

        Hooks run in the event loop that has entered `async with`; after `start` or `with` in a
        loop in a thread of the broker's own. They are called while the broker runs; one that is
        added then is asked about those who come from then on.

        Args:
            hook: An `async def` that takes a `Connecting`.

        Raises:
            TypeError: It is no `async def`.
        """
        self._hooks.add_connect(hook)
        serving = self._serving
        if serving is not None and self._pid == os.getpid():
            serving.consult()
        return hook

    def on_disconnect(self, hook: AnyHook) -> AnyHook:
        """Tells a hook of each connection that has ended, by a `Disconnected`.

        As all hooks but `on_connect` it is told afterwards, one event after the other, out of a
        backlog of 1,000 of its own. One that fails is logged, one that takes longer than
        `hook_timeout_s` is cancelled and logged; what does not fit into the backlog is counted
        (`hooks_missed`, `hooks_failed`, `hooks_late` of `counters`).

        Args:
            hook: An `async def` that takes a `Disconnected`.

        Raises:
            TypeError: It is no `async def`.
        """
        self._hooks.add(hook, Disconnected)
        return hook

    def on_session(self, hook: AnyHook) -> AnyHook:
        """Tells a hook what becomes of sessions, by a `SessionChanged`; as `on_disconnect`.

        Args:
            hook: An `async def` that takes a `SessionChanged`.
        """
        self._hooks.add(hook, SessionChanged)
        return hook

    def on_denied(self, hook: AnyHook) -> AnyHook:
        """Tells a hook who was not allowed what, and why, by a `Denied`; as `on_disconnect`.

        Refusals of one peer and topic that wait become one with their number, and where many
        wait, all of one peer do.

        Args:
            hook: An `async def` that takes a `Denied`.
        """
        self._hooks.add(hook, Denied)
        return hook

    def on_event(self, hook: AnyHook) -> AnyHook:
        """Tells a hook of every `Event`, and by a `Missed` what it was not; as `on_disconnect`.

        Args:
            hook: An `async def` that takes an `Event`.
        """
        self._hooks.add(hook, Event)
        return hook

    @overload
    def events(self, *, waiting_max: int = EVENTS_WAITING_MAX) -> EventStream[Event]: ...
    @overload
    def events(
        self, kind: type[E], /, *, waiting_max: int = EVENTS_WAITING_MAX
    ) -> EventStream[E]: ...
    @overload
    def events(
        self, *kinds: type[Event], waiting_max: int = EVENTS_WAITING_MAX
    ) -> EventStream[Event]: ...
    def events(
        self, *kinds: type[Event], waiting_max: int = EVENTS_WAITING_MAX
    ) -> EventStream[Any]:
        """Gives the events from now on, for `async for`; as many readers as there are may.

        It ends when the broker stops. What a reader is too slow for is counted, and stands as a
        `Missed` in its place.

        Args:
            kinds: Classes of `Event`, whose subclasses count too; none stands for all.
            waiting_max: Events that wait for this reader, at least 1.

        Raises:
            BrokerStopped: The broker does not run.
        """
        backlog = Backlog(kinds or (Event,), waiting_max)
        return self._read_by(EventStream[Any](backlog), backlog)

    def _read_by(self, stream: S, backlog: Backlog) -> S:
        """Has a stream told from now on.

        Args:
            stream: Whom to tell.
            backlog: Where its events wait.

        Raises:
            BrokerStopped: The broker does not run.
        """
        self._run()
        self._streams.add(stream, backlog)
        return stream

    def _run(self) -> Serving:
        if self._serving is None or self._pid != os.getpid():
            raise BrokerStopped("the broker does not run in this process")
        return self._serving
