"""The broker: starts, serves and stops the engine for one home."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from casemate import __version__, identity, native, policy
from casemate.broker import assemble, request
from casemate.broker.answers import Answers
from casemate.broker.arrangement import Arrangement
from casemate.broker.inside import BATCH_MAX, Publisher, Subscriber
from casemate.broker.status import Claim, Listening, Reload, Status, remove_status
from casemate.broker.watch import Problem, Watch
from casemate.client import Client
from casemate.config import Configuration, Listener, weakenings
from casemate.errors import BrokerError, BrokerStopped, CasemateError, EngineFailed
from casemate.home import Home
from casemate.identity import Accounts
from casemate.passwords import PasswordCost

_LOG = logging.getLogger("casemate.broker")

_JOIN_S = 5.0
"""How long the end waits for somebody else's code, in seconds."""

EVENTS_KEPT_MAX = 1_000

_EVENTS_AT_ONCE = 256
_EVENT_WAIT_S = 0.5
_STATUS_INTERVAL_S = 1.0

_LOOPBACK = "127.0.0.1"

_running: weakref.WeakSet[Broker] = weakref.WeakSet()


class Broker:
    """Serves MQTT from a home, or from a throw-away one that ends with it.

    Works with `with` and `async with`, or by `start` and `stop`. All methods are safe to call
    from any thread.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        configuration: Configuration | None = None,
        password_cost: PasswordCost | None = None,
        password_threads: int = 2,
        sys_interval_s: int = 10,
        on_event: Callable[[native.Event], None] | None = None,
        inherited: Callable[[Configuration], list[tuple[str, int]]] | None = None,
    ) -> None:
        """Describes a broker; nothing is opened yet.

        Args:
            home: Folder of an existing home; None makes one in a temporary folder, with its own
                authority and TLS on a free port of loopback, and removes it at the end.
            configuration: Used in place of the home's; its paths are absolute.
            password_cost: Cost of new password hashes; None is the safe default.
            password_threads: Passwords checked at a time, 1-64.
            sys_interval_s: Seconds between two reports under `$SYS/`; 0 reports nothing.
            on_event: Called with each event of the engine, in a thread of the broker. What peers
                wrote stands in it unescaped.
            inherited: Gives name of the listener and descriptor of each socket that systemd has
                handed over; asked once, at the first start.
        """
        if not 1 <= password_threads <= 64:
            raise ValueError("password_threads is 1 to 64")
        self._folder = None if home is None else Path(home).absolute()
        self._is_ephemeral = home is None
        self._given = configuration
        self._password_cost = password_cost or PasswordCost()
        self._password_threads = password_threads
        self._sys_interval_s = sys_interval_s
        self._on_event = on_event
        self._inherited = inherited
        self._lock = threading.RLock()
        self._server: native.Server | None = None
        self._ending: native.Server | None = None
        self._arrangement: Arrangement | None = None
        self._accounts: Accounts | None = None
        self._answers: Answers | None = None
        self._watch: Watch | None = None
        self._claim: Claim | None = None
        self._listener: threading.Thread | None = None
        self._ended = threading.Event()
        self._pid = os.getpid()
        self._started_unix_s = 0
        self._status_due = 0.0
        self._reloading = threading.Lock()
        self._last_reload: Reload | None = None
        self.events: deque[native.Event] = deque(maxlen=EVENTS_KEPT_MAX)
        self.events_lost = 0

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
    def addresses(self) -> tuple[Listening, ...]:
        """Where it listens.

        Raises:
            BrokerStopped: It does not run.
        """
        server, configuration = self._running_server(), self._in_force()
        described = dict(configuration.named()) if configuration is not None else {}
        return tuple(
            _listening(name, described[name], host, port)
            for name, host, port in server.addresses()
            # One that has just come is described a moment later.
            if name in described
        )

    @property
    def problems(self) -> dict[str, Problem]:
        """Changes on disk that are not in force, by what they concern, and why."""
        return {} if self._watch is None else self._watch.problems

    def counters(self) -> dict[str, int]:
        """Totals since the start, and gauges where the name says so.

        Raises:
            BrokerStopped: It does not run.
        """
        return self._running_server().counters()

    def reload(self, configuration: Configuration | None = None) -> Reload:
        """Looks at everything now: configuration, certificates, keys, policy, accounts.

        Live connections stay, but for those whose account or whose way in is gone. Configuration,
        policy and accounts are each in force as a whole or as they were before; `problems` says
        why.

        Args:
            configuration: Used in place of the one that was given, or of the home's, from now
                on; its paths are absolute.

        Returns:
            What is in force now, what needs a restart, and what is as it was, and why.

        Raises:
            BrokerStopped: It does not run.
        """
        if configuration is not None and self._arrangement is not None:
            self._arrangement.give(configuration)
        return self._reload(self._running_server(), None)

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
        """Says whether every shard of the engine answers within this time, in seconds.

        Raises:
            BrokerStopped: It does not run.
        """
        return self._running_server().makes_progress(within_s)

    @property
    def drain_s(self) -> float:
        """Seconds that a stop may take, by the configuration in force."""
        configuration = self._in_force()
        return 0.0 if configuration is None else float(configuration.drain_s)

    def start(self) -> None:
        """Opens the listeners and serves.

        Raises:
            HomeError: There is no home, or it cannot be used as it is.
            ConfigurationError: The configuration is wrong.
            PolicyError: The policy is wrong.
            PortInUse: Another program listens there.
            BrokerError: It cannot start for another cause, or runs already.
        """
        with self._lock:
            if self._server is not None:
                raise BrokerError("the broker runs already")
            self._pid = os.getpid()
            self._ended.clear()
            try:
                self._start()
            except BaseException:
                self._end(0.0)
                raise
            _running.add(self)

    def stop(self, deadline_s: float | None = None) -> bool:
        """Drains, closes all and removes a throw-away home; idempotent.

        Nobody new is let in, what was acknowledged is delivered, and each client is told to go
        when it is owed nothing, to the `server_reference` of the configuration where there is
        one.

        Args:
            deadline_s: Seconds until what is left is cut off; None is the configuration's
                `drain_s`.

        Returns:
            Whether every promise was kept and every client told.
        """
        with self._lock:
            if self._pid != os.getpid():
                # A forked child has no threads of the engine; what it holds is not its own.
                self._server = None
                return False
            return self._end(deadline_s)

    def cut(self) -> None:
        """Cuts a `stop` short that another thread waits for; does nothing without one."""
        ending = self._ending
        if ending is not None:
            ending.stop(0.0)

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
        """Starts without blocking the event loop; raises as `start`."""
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops without blocking the event loop."""
        await asyncio.to_thread(self.stop)

    def client(
        self,
        name: str,
        *,
        role: str = "operator",
        **options: Any,  # noqa: ANN401 - as for Client.
    ) -> Client:
        """Gives a client that proves itself by the certificate of a local identity.

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
        home = Home.open(self.home)
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
        pairs = [(one, 0) if isinstance(one, str) else one for one in filters]
        return Subscriber(self._way_in(name, role), pairs, batch_max)

    def status(self) -> Status:
        """Says how the broker is doing.

        Raises:
            BrokerStopped: It does not run.
        """
        configuration = self._in_force()
        return Status(
            version=__version__,
            pid=self._pid,
            started_unix_s=self._started_unix_s,
            updated_unix_s=int(time.time()),
            listeners=self.addresses,
            counters=self.counters(),
            problems=tuple(problem.message for problem in self.problems.values()),
            weakenings=() if configuration is None else weakenings(configuration),
            reload=self._last_reload,
        )

    # Inside

    def _way_in(self, name: str | None, role: str) -> Callable[[], native.Link]:
        known = name or f"inside-{secrets.token_hex(8)}"
        return lambda: self._running_server().enter(known, [role])

    def _start(self) -> None:
        folder = self._make_home() if self._folder is None else self._folder
        self._folder = folder
        home = Home.open(folder)
        self._claim = Claim(folder)
        self._arrangement = Arrangement(home, self._given or self._throw_away(folder))
        configuration = self._arrangement.current
        self._accounts = Accounts(folder / identity.FILE_NAME, cost=self._password_cost)
        self._watch = Watch(
            self._accounts, folder / policy.FILE_NAME, self._arrangement, self._attend
        )
        self._answers = Answers(self._accounts, self._password_threads, self._password_cost)
        shards = assemble.shard_count(configuration)
        ask, self._inherited = self._inherited, None
        try:
            self._server = native.Server.start(
                self._arrangement.listeners(),
                assemble.accounts(self._accounts),
                self._watch.compiled(),
                limits=assemble.limits(configuration.limits, shards),
                shards=shards,
                question_max=self._answers.waiting_max(configuration.limits.connect_deadline_s),
                sys_interval_s=self._sys_interval_s,
                inherited=[] if ask is None else ask(configuration),
            )
        except native.StartRefused as error:
            raise assemble.start_error(error) from error
        self._started_unix_s = int(time.time())
        # What was asked of a broker before this one is answered by its start.
        request.take(folder)
        self._answers.start(self._server)
        self._watch.start(self._server)
        self._listener = threading.Thread(
            target=self._listen, args=(self._server,), name="casemate-events", daemon=True
        )
        self._listener.start()
        self._status_due = 0.0
        self._report()

    def _make_home(self) -> Path:
        base = Path(tempfile.mkdtemp(prefix="casemate-"))
        try:
            Home.init(base / "home")
        except BaseException:
            shutil.rmtree(base, ignore_errors=True)
            raise
        return base / "home"

    def _throw_away(self, folder: Path) -> Configuration | None:
        if not self._is_ephemeral:
            return None
        listener = Listener(kind="tls", host=_LOOPBACK, port=0)
        return Configuration(listeners=(listener,)).in_home(folder)

    def _end(self, deadline_s: float | None) -> bool:
        """Ends in the order in which nobody is asked any more who has gone."""
        server, self._server = self._server, None
        flushed = True
        if server is not None:
            configuration = self._in_force()
            reference = None if configuration is None else configuration.server_reference
            if deadline_s is None:
                deadline_s = self.drain_s
            self._ending = server
            flushed = server.drain(deadline_s, reference)
            self._ending = None
        self._ended.set()
        for room in (self._watch, self._answers):
            if room is not None:
                room.stop()
        if self._listener is not None and self._listener is not threading.current_thread():
            # A listener for events that itself waits for this stop must not hold it for ever.
            self._listener.join(_JOIN_S)
        if self._accounts is not None:
            self._accounts.close()
        self._watch = self._answers = self._listener = self._accounts = None
        self._arrangement = self._last_reload = None
        if self._claim is not None and self._folder is not None:
            remove_status(self._folder)
            self._claim.release()
        self._claim = None
        if self._is_ephemeral and self._folder is not None:
            shutil.rmtree(self._folder.parent, ignore_errors=True)
            self._folder = None
        _running.discard(self)
        return flushed

    def _running_server(self) -> native.Server:
        if self._server is None or self._pid != os.getpid():
            raise BrokerStopped("the broker does not run in this process")
        return self._server

    def _in_force(self) -> Configuration | None:
        return None if self._arrangement is None else self._arrangement.current

    def _reload(self, server: native.Server, token: str | None) -> Reload:
        """Reloads; what comes of it is in the status before this returns."""
        watch = self._watch
        if watch is None:
            raise BrokerStopped("the broker does not run in this process")
        with self._reloading:
            changed, refused = watch.reload(server)
            last = self._last_reload
            outcome = self._last_reload = Reload(
                generation=1 if last is None else last.generation + 1,
                at_unix_s=int(time.time()),
                changed=tuple(changed),
                needs_restart=watch.needs_restart,
                refused=tuple(refused),
                token=token,
            )
            self._status_due = 0.0
            self._report()
        return outcome

    def _attend(self) -> None:
        """Does what is due from time to time: a reload that was asked for, the status."""
        server, folder = self._server, self._folder
        if server is None or folder is None:
            return
        token = request.take(folder)
        if token is not None:
            self._reload(server, token)
        self._report()

    def _report(self) -> None:
        """Writes the status when it is due."""
        now = time.monotonic()
        if now < self._status_due or self._server is None or self._folder is None:
            return
        self._status_due = now + _STATUS_INTERVAL_S
        try:
            self.status().write(self._folder)
        except CasemateError as error:
            # A full disk must not stop the messages; `casemate status` then says how old it is.
            _LOG.warning("the status cannot be written: %s", error)

    def _listen(self, server: native.Server) -> None:
        """Takes the engine's events, so that its ring never runs over unseen."""
        while True:
            # Looked at before the ring: after the end nothing is added, and an empty one is all.
            ended = self._ended.is_set()
            asked = time.monotonic()
            events, lost = server.next_events(_EVENTS_AT_ONCE, 0.0 if ended else _EVENT_WAIT_S)
            self.events_lost += lost
            if not events:
                if ended:
                    return
                if time.monotonic() - asked < _EVENT_WAIT_S / 2:
                    # An engine that has ended answers at once; the owner will stop us.
                    self._ended.wait(_EVENT_WAIT_S)
            for event in events:
                self.events.append(event)
                if self._on_event is not None:
                    self._tell(event)

    def _tell(self, event: native.Event) -> None:
        try:
            if self._on_event is not None:
                self._on_event(event)
        except Exception:  # noqa: BLE001 - somebody else's code; the log has it.
            _LOG.exception("a listener for events failed")

    def _forget_after_fork(self) -> None:
        """Makes a forked child's copy dead: it has the parent's claim, but none of its threads."""
        if self._claim is not None:
            self._claim.release()
        self._claim = None


def _listening(name: str, described: Listener, host: str, port: int) -> Listening:
    if described.socket is not None:
        return Listening(name, described.kind, "", 0, "none", str(described.socket))
    return Listening(
        name, described.kind, host, port, described.client_certificates, described.path or ""
    )


def reachable(host: str) -> str:
    """Gives the address under which this machine reaches a listener."""
    return {"0.0.0.0": _LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound.


def _after_fork() -> None:
    for broker in list(_running):
        broker._forget_after_fork()  # noqa: SLF001 - the same room.


def _at_exit() -> None:
    """Stops what a program has left running, so that clients hear of it and no folder stays."""
    for broker in list(_running):
        broker.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
