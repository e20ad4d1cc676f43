"""The broker for programs without an event loop: the same broker, and each method waits.

Example:
    ```python
    from casemate import Broker

    with Broker.blocking() as broker:
        with broker.client("probe") as client, broker.subscriber("lab/#") as subscriber:
            client.publish("lab/1", "21.5", qos=1)
            for message in subscriber:
                print(message.topic, message.payload)  # lab/1 b'21.5'
                break
    ```
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from casemate.broker.backlog import Backlog
from casemate.broker.events import Event
from casemate.broker.hooks import AnyHook
from casemate.broker.inside import BATCH_MAX, BlockingSubscriber, Publisher
from casemate.broker.material import Given
from casemate.broker.observed import E
from casemate.broker.status import Listening, Reload, Status
from casemate.broker.stream import EVENTS_WAITING_MAX, BlockingEvents
from casemate.broker.watch import Problem
from casemate.client.blocking import BlockingClient
from casemate.config import Configuration

if TYPE_CHECKING:
    from casemate.broker.broker import Broker


class BlockingBroker:
    """Starts, serves and stops like `Broker`; clients, subscribers and events are for `for`.

    Hooks are `async def` here too: they run in a loop in a thread of the broker's own.
    """

    def __init__(self, broker: Broker) -> None:
        """Takes over a broker that was not started yet; `Broker.blocking` calls this.

        Args:
            broker: It is this one's alone from now on.
        """
        self._broker = broker

    def start(self) -> None:
        """Opens the listeners and serves; raises as `Broker.start`."""
        self._broker.start()

    def stop(self, deadline_s: float | None = None) -> bool:
        """Drains and closes all; as `Broker.stop`.

        Args:
            deadline_s: As for `Broker.stop`.
        """
        return self._broker.stop(deadline_s)

    def cut(self) -> None:
        """Cuts a `stop` of another thread short; as `Broker.cut`."""
        self._broker.cut()

    def reload(
        self,
        configuration: Configuration | None = None,
        *,
        certificate: Given | None = None,
        key: Given | None = None,
        client_ca: Given | None = None,
    ) -> Reload:
        """Looks at everything now; as `Broker.reload`."""
        return self._broker.reload(
            configuration, certificate=certificate, key=key, client_ca=client_ca
        )

    def __enter__(self) -> Self:
        """Starts; raises as `start`."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops."""
        self.stop()

    @property
    def home(self) -> Path:
        """The folder that it serves; raises as `Broker.home`."""
        return self._broker.home

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped, in this process."""
        return self._broker.is_running

    @property
    def addresses(self) -> tuple[Listening, ...]:
        """Where it listens; raises as `Broker.addresses`."""
        return self._broker.addresses

    @property
    def problems(self) -> dict[str, Problem]:
        """Changes on disk that are not in force, by what they concern, and why."""
        return self._broker.problems

    def check(self) -> None:
        """Says nothing while the broker runs; raises as `Broker.check`."""
        self._broker.check()

    def counters(self) -> dict[str, int]:
        """Totals and gauges by name; raises as `Broker.counters`."""
        return self._broker.counters()

    def status(self) -> Status:
        """Says how the broker is doing; raises as `Broker.status`."""
        return self._broker.status()

    def on_connect(self, hook: AnyHook) -> AnyHook:
        """Asks a hook about each client; as `Broker.on_connect`."""
        return self._broker.on_connect(hook)

    def on_disconnect(self, hook: AnyHook) -> AnyHook:
        """Tells a hook of each connection that has ended; as `Broker.on_disconnect`."""
        return self._broker.on_disconnect(hook)

    def on_session(self, hook: AnyHook) -> AnyHook:
        """Tells a hook what becomes of sessions; as `Broker.on_session`."""
        return self._broker.on_session(hook)

    def on_denied(self, hook: AnyHook) -> AnyHook:
        """Tells a hook who was not allowed what; as `Broker.on_denied`."""
        return self._broker.on_denied(hook)

    def on_event(self, hook: AnyHook) -> AnyHook:
        """Tells a hook of everything; as `Broker.on_event`."""
        return self._broker.on_event(hook)

    @overload
    def events(self, *, waiting_max: int = EVENTS_WAITING_MAX) -> BlockingEvents[Event]: ...
    @overload
    def events(
        self, kind: type[E], /, *, waiting_max: int = EVENTS_WAITING_MAX
    ) -> BlockingEvents[E]: ...
    @overload
    def events(
        self, *kinds: type[Event], waiting_max: int = EVENTS_WAITING_MAX
    ) -> BlockingEvents[Event]: ...
    def events(
        self, *kinds: type[Event], waiting_max: int = EVENTS_WAITING_MAX
    ) -> BlockingEvents[Any]:
        """Gives the events from now on, for `for`; as `Broker.events`."""
        backlog = Backlog(kinds or (Event,), waiting_max)
        stream = BlockingEvents[Any](backlog)
        return self._broker._read_by(stream, backlog)  # noqa: SLF001 - the same room.

    def client(
        self,
        name: str,
        *,
        role: str = "operator",
        **options: Any,  # noqa: ANN401 - as for Client.
    ) -> BlockingClient:
        """Gives a client without an event loop; arguments and errors as `Broker.client`."""
        return self._broker.client(name, role=role, **options).blocking()

    def publisher(self, name: str | None = None, *, role: str = "operator") -> Publisher:
        """Lets this program publish by `publish_now`; as `Broker.publisher`."""
        return self._broker.publisher(name, role=role)

    def subscriber(
        self,
        *filters: str | tuple[str, int],
        name: str | None = None,
        role: str = "operator",
        batch_max: int = BATCH_MAX,
    ) -> BlockingSubscriber:
        """Lets this program subscribe, for `for`; arguments and errors as `Broker.subscriber`."""
        way_in = self._broker._way_in(name, role)  # noqa: SLF001 - the same room.
        return BlockingSubscriber(way_in, filters, batch_max)
