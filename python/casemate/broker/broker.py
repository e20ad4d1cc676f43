"""The broker: starts, serves and stops the engine for one home."""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import shutil
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from casemate import native
from casemate.broker.events import Denied, Disconnected, Event, SessionChanged
from casemate.broker.hook_loop import HookLoop
from casemate.broker.hooks import (
    HOOK_TIMEOUT_S,
    ConnectHook,
    DeniedHook,
    DisconnectHook,
    EventHook,
    SessionHook,
)
from casemate.broker.inside import BATCH_MAX, Publisher, Subscriber
from casemate.broker.material import Given, Material
from casemate.broker.observed import Observed
from casemate.broker.serving import Inherited, Serving, Setup
from casemate.broker.status import Listening, Reload, Status, reachable
from casemate.broker.uninterrupted import finish, finish_async
from casemate.broker.watch import Problem
from casemate.client import Client
from casemate.config import Configuration, Listener
from casemate.errors import BrokerError, BrokerStopped, EngineFailed
from casemate.home import Home
from casemate.passwords import PasswordCost

if TYPE_CHECKING:
    from casemate.broker.blocking import BlockingBroker

_LOOPBACK = "127.0.0.1"

_running: weakref.WeakSet[Broker] = weakref.WeakSet()


class Broker(Observed):
    """Serves MQTT from a home, or from a throw-away one that ends with it.

    Works with `with` and `async with`, or by `start` and `stop`. All methods are safe to call
    from any thread. A forked child's copy is dead: it holds no listener and no lock.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        configuration: Configuration | None = None,
        certificate: Given | None = None,
        key: Given | None = None,
        client_ca: Given | None = None,
        on_connect: ConnectHook | None = None,
        on_disconnect: DisconnectHook | None = None,
        on_session: SessionHook | None = None,
        on_denied: DeniedHook | None = None,
        on_event: EventHook | None = None,
        hook_timeout_s: float = HOOK_TIMEOUT_S,
        password_cost: PasswordCost | None = None,
        password_threads: int = 2,
        sys_interval_s: int = 10,
        raw_events: Callable[[native.Event], None] | None = None,
        inherited: Inherited | None = None,
    ) -> None:
        """Describes a broker; nothing is opened yet.

        Args:
            home: Folder of an existing home; None makes one in a temporary folder, with its own
                authority and TLS on a free port of loopback, and removes it at the end.
            configuration: Used in place of the home's; its paths are absolute.
            certificate: The server's certificate and its chain, leaf first, for every listener
                with TLS: PEM as bytes, which is never written to disk, or the path of a PEM file.
            key: Its private key, not encrypted; likewise, and given together with it.
            client_ca: The authorities whose client certificates count, in place of the home's;
                likewise. Who somebody is, is still decided by the accounts.
            on_connect: As the decorator `on_connect`; so are the other hooks.
            on_disconnect: As the decorator.
            on_session: As the decorator.
            on_denied: As the decorator.
            on_event: As the decorator.
            hook_timeout_s: How long a hook may take, in seconds, above 0; all of `on_connect`
                together. The default is half of what a client has for its CONNECT by default.
            password_cost: Cost of new password hashes; None is the safe default.
            password_threads: Passwords checked at a time, 1-64.
            sys_interval_s: Seconds between two reports under `$SYS/`; 0 reports nothing.
            raw_events: Called with each event of the engine as it came, in a thread of the
                broker; for logs. What peers wrote stands in it unescaped.
            inherited: Gives name of the listener and descriptor of each socket that systemd has
                handed over; asked once, at the first start.

        Raises:
            ValueError: A number is out of range, or certificate and key do not come together.
            TypeError: A hook is no `async def`.
        """
        if not 1 <= password_threads <= 64:
            raise ValueError("password_threads is 1 to 64")
        if not hook_timeout_s > 0:
            raise ValueError("hook_timeout_s is above 0")
        super().__init__()
        self._folder = None if home is None else Path(home).absolute()
        self._is_ephemeral = home is None
        self._given = configuration
        self._material = Material.of(certificate, key, client_ca)
        self._setup = Setup(
            password_cost or PasswordCost(),
            password_threads,
            sys_interval_s,
            hook_timeout_s,
            raw_events,
            lasting=home is not None,
        )
        self._inherited = inherited
        self._last: Serving | None = None
        self._is_dead = False
        if on_connect is not None:
            self.on_connect(on_connect)
        kinds: list[tuple[Callable[..., Any] | None, type[Event]]] = [
            (on_disconnect, Disconnected),
            (on_session, SessionChanged),
            (on_denied, Denied),
            (on_event, Event),
        ]
        for hook, kind in kinds:
            if hook is not None:
                self._hooks.add(hook, kind)

    @classmethod
    def blocking(
        cls,
        home: str | Path | None = None,
        **options: Any,  # noqa: ANN401 - as for Broker.
    ) -> BlockingBroker:
        """Gives a broker for programs without an event loop; arguments and errors as `Broker`."""
        from casemate.broker.blocking import BlockingBroker

        return BlockingBroker(cls(home, **options))

    # State

    @property
    def home(self) -> Path:
        """The folder that it serves.

        Raises:
            BrokerStopped: It is a throw-away one and not made yet.
        """
        if self._folder is None:
            raise BrokerStopped("the broker was not started yet")
        return self._folder

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped, in this process."""
        return self._serving is not None and self._pid == os.getpid()

    @property
    def addresses(self) -> tuple[Listening, ...]:
        """Where it listens.

        Raises:
            BrokerStopped: It does not run.
        """
        return self._run().addresses

    @property
    def problems(self) -> dict[str, Problem]:
        """Changes on disk that are not in force, by what they concern, and why."""
        return {} if self._serving is None else self._serving.problems

    @property
    def recent_events(self) -> deque[native.Event]:
        """The last thousand events of the engine as they came, of this run or the last one."""
        known = self._serving or self._last
        return deque() if known is None else known.events

    @property
    def events_lost(self) -> int:
        """Events that came faster than the broker could take them, in this run or the last one."""
        known = self._serving or self._last
        return 0 if known is None else known.events_lost

    def counters(self) -> dict[str, int]:
        """Totals since the start, and gauges where the name says so.

        Raises:
            BrokerStopped: It does not run.
        """
        return self._run().counters()

    def status(self) -> Status:
        """Says how the broker is doing.

        Raises:
            BrokerStopped: It does not run.
        """
        return self._run().status(self._pid)

    def check(self) -> None:
        """Says nothing while the broker runs.

        Raises:
            EngineFailed: The engine ended by itself.
            BrokerStopped: It does not run.
        """
        failed = self._running_server().failed()
        if failed is not None:
            raise EngineFailed("the engine ended by itself", cause=failed)

    def makes_progress(self, within_s: float) -> bool:
        """Says whether every shard of the engine answers within a time.

        Args:
            within_s: Seconds to wait, above 0.

        Raises:
            BrokerStopped: It does not run.
        """
        return self._running_server().makes_progress(within_s)

    @property
    def drain_s(self) -> float:
        """Seconds that a stop may take, by the configuration in force."""
        return 0.0 if self._serving is None else self._serving.drain_s

    # Start, reload, stop

    def start(self) -> None:
        """Opens the listeners and serves.

        Ctrl-C meanwhile stops it again before KeyboardInterrupt is raised.

        Raises:
            HomeError: There is no home, or it cannot be used as it is.
            ConfigurationError: The configuration is wrong.
            PolicyError: The policy is wrong.
            PortInUse: Another program listens there.
            BrokerError: It cannot start for another cause, or runs already.
        """
        finish(lambda: self._start(None), hurry=self.cut, undo=lambda: self._stop(0.0, 0))

    def reload(
        self,
        configuration: Configuration | None = None,
        *,
        certificate: Given | None = None,
        key: Given | None = None,
        client_ca: Given | None = None,
    ) -> Reload:
        """Looks at everything now: configuration, certificates, keys, policy, accounts.

        Live connections stay, but for those whose account or whose way in is gone. Configuration,
        policy and accounts are each in force as a whole or as they were before; `problems` says
        why.

        Args:
            configuration: Used in place of the one that was given, or of the home's, from now
                on; its paths are absolute.
            certificate: Presented from now on where it can be, together with `key`; None keeps
                what was given before, or the files.
            key: As `certificate`.
            client_ca: Likewise.

        Returns:
            What is in force now, what needs a restart, and what is as it was, and why.

        Raises:
            BrokerStopped: It does not run.
            ValueError: Certificate and key do not come together.
        """
        serving = self._run()
        given = (certificate, key, client_ca)
        is_given = any(one is not None for one in given)
        serving.give(configuration, serving.material.replaced(*given) if is_given else None)
        outcome = serving.reload()
        # What is in force counts at the next start too.
        self._material = serving.material
        return outcome

    def stop(self, deadline_s: float | None = None) -> bool:
        """Drains, closes all and removes a throw-away home; idempotent.

        Nobody new is let in, what was acknowledged is delivered, and each client is told to go
        when it is owed nothing, to the `server_reference` of the configuration where there is
        one. Ctrl-C meanwhile cuts it short and is raised at its end.

        Args:
            deadline_s: Seconds until what is left is cut off; None is the configuration's
                `drain_s`.

        Returns:
            Whether every promise was kept and every client told.
        """
        if self._is_dead:
            # What a forked child holds is not its own.
            return False
        caller = threading.get_ident()
        return finish(lambda: self._stop(deadline_s, caller), hurry=self.cut)

    def cut(self) -> None:
        """Cuts a `stop` short that another thread waits for; does nothing without one."""
        serving = self._serving
        if serving is not None:
            serving.cut()

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

    async def __aenter__(self) -> Self:
        """Starts without blocking the event loop, in which hooks run from now on.

        Where it is cancelled meanwhile, it is stopped again before that is raised; else raises
        as `start`.
        """
        loop = asyncio.get_running_loop()
        own = HookLoop(loop)
        await finish_async(
            lambda: self._start(own), hurry=self.cut, undo=lambda: self._stop(0.0, 0)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops without blocking the event loop; a cancellation meanwhile cuts it short."""
        await finish_async(lambda: self._stop(None, 0), hurry=self.cut)

    # Clients

    def client(
        self,
        name: str,
        *,
        role: str = "operator",
        **options: Any,  # noqa: ANN401 - as for Client.
    ) -> Client:
        """Gives a client that proves itself by the certificate of a local identity.

        It trusts the home's authority; where the broker presents a certificate of another one,
        name that one's file as `ca_file`.

        Args:
            name: Of the identity. A throw-away broker makes it if there is none.
            role: Its role, where it is made.
            options: As for `Client`; host and port default to the TLS listener's, the client id
                to the name.

        Raises:
            IdentityMissing: The home has no such identity.
            BrokerStopped: The broker does not run.
            BrokerError: It has no TLS listener.
        """
        listening = next((one for one in self.addresses if one.kind == "tls"), None)
        if listening is None:
            raise BrokerError("the broker has no TLS listener")
        home = Home.open(self.home, lasting=not self._is_ephemeral)
        if self._is_ephemeral and not (self.home / "identities" / name).is_dir():
            home.add_device(name, role)
            self.reload()
        files = home.local_identity(name)
        defaults = {
            "host": reachable(listening.host),
            "port": listening.port,
            "client_id": name,
            "ca_file": files.ca,
            "cert_file": files.certificate,
            "key_file": files.key,
        }
        return Client(**{**defaults, **options})

    def publisher(self, name: str | None = None, *, role: str = "operator") -> Publisher:
        """Lets this program publish without a socket of the network, in lists of messages.

        Args:
            name: Its name, which `%u` and `%c` stand for; a second one of the same name takes
                its place. None is a name that nobody has.
            role: Its role of the policy; one that there is not may do nothing.

        Raises:
            BrokerStopped: The broker does not run, or lets nobody in.
        """
        return Publisher(self._way_in(name, role))

    def subscriber(
        self,
        *filters: str | tuple[str, int],
        name: str | None = None,
        role: str = "operator",
        batch_max: int = BATCH_MAX,
    ) -> Subscriber:
        """Lets this program subscribe without a socket of the network, in lists of messages.

        Args:
            filters: Topic filters, alone at QoS 0 or as pairs with 0, 1 or 2.
            name: As for `publisher`.
            role: As for `publisher`.
            batch_max: Messages in one list at most.

        Raises:
            ValueError: A filter or a number is wrong.
            Refused: The role does not allow a filter.
            BrokerStopped: The broker does not run, or lets nobody in.
        """
        return Subscriber(self._way_in(name, role), filters, batch_max)

    # Inside

    def _way_in(self, name: str | None, role: str) -> Callable[[], native.Link]:
        known = name or f"inside-{secrets.token_hex(8)}"
        return lambda: self._running_server().enter(known, [role])

    def _start(self, loop: HookLoop | None) -> None:
        with self._lock:
            if self._is_dead:
                raise BrokerError(
                    "this broker belongs to the process that made this one",
                    hint="make another one after the fork",
                )
            if self._serving is not None:
                raise BrokerError("the broker runs already")
            self._pid = os.getpid()
            # Beside everything that Python does until the engine needs it.
            priming = threading.Thread(target=native.prime, name="casemate-prime", daemon=True)
            priming.start()
            try:
                folder = self._make_home() if self._folder is None else self._folder
                self._folder = folder
                self._serving = Serving(
                    folder, self._setup, self._hooks, self._streams, loop or HookLoop(None)
                )
                inherited, self._inherited = self._inherited, None
                given = self._given or self._throw_away(folder)
                self._serving.open(given, self._material, inherited)
            except BaseException:
                self._stop(0.0, 0)
                raise
            finally:
                priming.join()
            _running.add(self)

    def _make_home(self) -> Path:
        base = Path(tempfile.mkdtemp(prefix="casemate-"))
        try:
            # After a crash nobody would look for it.
            Home.init(base / "home", lasting=False)
        except BaseException:
            shutil.rmtree(base, ignore_errors=True)
            raise
        return base / "home"

    def _throw_away(self, folder: Path) -> Configuration | None:
        if not self._is_ephemeral:
            return None
        listener = Listener(kind="tls", host=_LOOPBACK, port=0)
        return Configuration(listeners=(listener,)).in_home(folder)

    def _stop(self, deadline_s: float | None, caller: int) -> bool:
        with self._lock:
            serving = self._serving
            flushed = serving is None or serving.close(deadline_s, caller)
            self._last, self._serving = serving or self._last, None
            if self._is_ephemeral and self._folder is not None:
                shutil.rmtree(self._folder.parent, ignore_errors=True)
                self._folder = None
            _running.discard(self)
            return flushed

    def _running_server(self) -> native.Server:
        return self._run().server

    def _forget_after_fork(self) -> None:
        """Makes a forked child's copy dead: another thread may have held its locks for ever."""
        self._is_dead = True
        self._lock = threading.RLock()
        self._streams.forget_after_fork()
        if self._serving is not None:
            self._serving.forget_after_fork()


def _after_fork() -> None:
    for broker in list(_running):
        broker._forget_after_fork()  # noqa: SLF001 - the same room.
    _running.clear()


def _at_exit() -> None:
    """Stops what a program has left running, so that clients hear of it and no folder stays."""
    for broker in list(_running):
        broker.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
