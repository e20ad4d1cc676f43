"""One run of a broker: from its claim on the home to the last event, opened and ended in order."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from casemate import __version__, identity, native, policy
from casemate.broker import assemble, request
from casemate.broker.admissions import Admissions
from casemate.broker.answers import Answers
from casemate.broker.arrangement import Arrangement
from casemate.broker.events import Reading
from casemate.broker.forking import Bound, close_inherited
from casemate.broker.hook_loop import HookLoop
from casemate.broker.hooks import Hooks
from casemate.broker.keeping import READING_BYTES_MIN, Keeping, store_error
from casemate.broker.material import Material
from casemate.broker.status import Claim, Listening, Reload, Status, StoreStatus, remove_status
from casemate.broker.stream import Streams
from casemate.broker.watch import Problem, Watch
from casemate.config import Configuration, Listener, weakenings
from casemate.errors import BrokerStopped, CasemateError
from casemate.home import Home
from casemate.identity import Accounts
from casemate.passwords import PasswordCost

_LOG = logging.getLogger("casemate.broker")

EVENTS_KEPT_MAX = 1_000
"""Events that a broker remembers, the latest."""

_JOIN_S = 5.0
"""How long the end waits for somebody else's code, in seconds."""

_EVENTS_AT_ONCE = 256
_EVENT_WAIT_S = 0.5
_STATUS_INTERVAL_S = 1.0

Inherited = Callable[[Configuration], list[tuple[str, int]]]


@dataclass(frozen=True, slots=True)
class Setup:
    """Holds what a broker is told once.

    Attributes:
        password_cost: Cost of new password hashes.
        password_threads: Passwords checked at a time.
        sys_interval_s: Seconds between two reports under `$SYS/`.
        hook_timeout_s: How long a hook may take, in seconds.
        raw_events: Called with each event of the engine, in a thread of the broker.
        lasting: Whether the home outlives the process.
    """

    password_cost: PasswordCost
    password_threads: int
    sys_interval_s: int
    hook_timeout_s: float
    raw_events: Callable[[native.Event], None] | None
    lasting: bool


class Serving:
    """Everything that there is between start and stop; `close` undoes as much as there is."""

    def __init__(
        self, folder: Path, setup: Setup, hooks: Hooks, streams: Streams, loop: HookLoop
    ) -> None:
        """Opens nothing yet.

        Args:
            folder: The home.
            setup: What the broker was told.
            hooks: Asked and told.
            streams: Told.
            loop: Where hooks run.
        """
        self.folder = folder
        self.events: deque[native.Event] = deque(maxlen=EVENTS_KEPT_MAX)
        self.events_lost: int = 0
        self._setup = setup
        self._hooks = hooks
        self._streams = streams
        self._loop = loop
        self._reading = Reading(self._roles_of)
        self._server: native.Server | None = None
        self._ending: native.Server | None = None
        self._claim: Claim | None = None
        self._arrangement: Arrangement | None = None
        self._keeping: Keeping | None = None
        self._accounts: Accounts | None = None
        self._answers: Answers | None = None
        self._admissions: Admissions | None = None
        self._watch: Watch | None = None
        self._listener: threading.Thread | None = None
        self._bound: Bound = frozenset()
        self._ended = threading.Event()
        self._started_unix_s = 0
        self._status_due = 0.0
        self._reloading = threading.Lock()
        self._consulting = threading.Lock()
        self._last_reload: Reload | None = None

    # Open and close

    def open(
        self, given: Configuration | None, material: Material, inherited: Inherited | None
    ) -> None:
        """Opens the listeners and serves.

        Args:
            given: Used in place of the home's configuration.
            material: Stands in place of what its listeners name.
            inherited: Gives the sockets that systemd has handed over.

        Raises:
            CasemateError: It cannot be; what was opened is for `close` to undo.
        """
        home = Home.open(self.folder)
        self._claim = Claim(self.folder)
        self._arrangement = Arrangement(home, given, material)
        configuration = self._arrangement.current
        setup = self._setup
        self._hooks.begin_anew()
        self._accounts = Accounts(
            self.folder / identity.FILE_NAME, cost=setup.password_cost, lasting=setup.lasting
        )
        self._watch = Watch(
            self._accounts, self.folder / policy.FILE_NAME, self._arrangement, self._attend
        )
        self._answers = Answers(self._accounts, setup.password_threads, setup.password_cost)
        shards = assemble.shard_count(configuration)
        self._keeping = Keeping(configuration.store, self.folder, lasting=setup.lasting)
        self._announce_reading(self._keeping)
        try:
            self._server = server = native.Server.start(
                self._arrangement.listeners(),
                assemble.accounts(self._accounts),
                self._watch.compiled(),
                limits=assemble.limits(configuration.limits, shards),
                shards=shards,
                question_max=self._answers.waiting_max(configuration.limits.connect_deadline_s),
                sys_interval_s=setup.sys_interval_s,
                inherited=[] if inherited is None else inherited(configuration),
                consult=bool(self._hooks.connect),
                store=self._keeping.store,
            )
        except native.StoreRefused as error:
            raise store_error(error) from error
        except native.StartRefused as error:
            raise assemble.start_error(error) from error
        self._streams.begin()
        self._note_bound(server)
        self._started_unix_s = int(time.time())
        # What was asked of a broker before this one is answered by its start.
        request.take(self.folder)
        if self._hooks.connect:
            self.consult()
        self._answers.start(server)
        self._watch.start(server)
        self._listener = threading.Thread(
            target=self._listen, args=(server,), name="casemate-events", daemon=True
        )
        self._listener.start()
        self._status_due = 0.0
        self._report()

    def consult(self) -> None:
        """Begins to ask the hooks about everybody who is let in; before the start it waits for it.

        Called from any thread: when the first hook is added, and at the end of a start.
        """
        with self._consulting:
            server = self._server
            if server is None or self._admissions is not None:
                return
            self._admissions = Admissions(
                self._hooks.connect,
                self._loop,
                self._setup.hook_timeout_s,
                self._hooks.tally,
                self._reading.note_refusal,
            )
            self._admissions.start(server)
            server.consult(True)

    def close(self, deadline_s: float | None, caller: int) -> bool:
        """Ends in the order in which nobody is asked any more who has gone; idempotent.

        Args:
            deadline_s: Seconds that promises may take; None is the configuration's `drain_s`.
            caller: Number of the thread that waits for it.

        Returns:
            Whether every promise was kept and every client told.
        """
        with self._consulting:
            server, self._server = self._server, None
        flushed = True
        if server is not None:
            reference = None if self.in_force is None else self.in_force.server_reference
            self._ending = server
            flushed = server.drain(self.drain_s if deadline_s is None else deadline_s, reference)
            self._ending = None
        self._ended.set()
        for room in (self._watch, self._admissions, self._answers):
            if room is not None:
                room.stop()
        self._join_listener()
        self._loop.stop(self._setup.hook_timeout_s, caller)
        self._streams.end()
        if self._accounts is not None:
            self._accounts.close()
        self._watch = self._answers = self._admissions = self._accounts = None
        self._arrangement = None
        if self._claim is not None:
            remove_status(self.folder)
            self._claim.release()
        self._claim = None
        return flushed

    def cut(self) -> None:
        """Cuts a `close` short that another thread waits for; does nothing without one."""
        ending = self._ending
        if ending is not None:
            ending.stop(0.0)

    def forget_after_fork(self) -> None:
        """Lets go of what a forked child has inherited; none of its threads came along."""
        self._server = None
        close_inherited(self._bound)
        if self._claim is not None:
            # The parent still holds it: the lock is let go of when the last copy is closed.
            self._claim.release()
        self._claim = None

    # While it runs

    @property
    def server(self) -> native.Server:
        """The engine.

        Raises:
            BrokerStopped: It does not run.
        """
        if self._server is None:
            raise BrokerStopped("the broker does not run in this process")
        return self._server

    @property
    def in_force(self) -> Configuration | None:
        """The configuration in force; None before there is one."""
        return None if self._arrangement is None else self._arrangement.current

    @property
    def drain_s(self) -> float:
        """Seconds that a stop may take, by the configuration in force."""
        return 0.0 if self.in_force is None else float(self.in_force.drain_s)

    @property
    def addresses(self) -> tuple[Listening, ...]:
        """Where it listens; raises as `server`."""
        server = self.server
        described = {} if self.in_force is None else dict(self.in_force.named())
        return tuple(
            _listening(name, described[name], host, port)
            for name, host, port in server.addresses()
            # One that has just come is described a moment later.
            if name in described
        )

    @property
    def problems(self) -> dict[str, Problem]:
        """Changes on disk that are not in force."""
        return {} if self._watch is None else self._watch.problems

    def counters(self) -> dict[str, int]:
        """Totals and gauges by name; raises as `server`."""
        return {**self.server.counters(), **self._hooks.tally.snapshot()}

    def status(self, pid: int) -> Status:
        """Says how it is doing; raises as `server`."""
        return Status(
            version=__version__,
            pid=pid,
            started_unix_s=self._started_unix_s,
            updated_unix_s=int(time.time()),
            listeners=self.addresses,
            counters=self.counters(),
            problems=tuple(problem.message for problem in self.problems.values()),
            weakenings=() if self.in_force is None else weakenings(self.in_force),
            reload=self._last_reload,
            store=StoreStatus() if self._keeping is None else self._keeping.status(self.server),
        )

    def give(self, configuration: Configuration | None, material: Material | None) -> None:
        """Replaces what was given; a `reload` puts it in force."""
        if self._arrangement is not None:
            if configuration is not None:
                self._arrangement.give(configuration)
            if material is not None:
                self._arrangement.give_material(material)

    @property
    def material(self) -> Material:
        """What stands in place of what the listeners name, as it is in force."""
        return Material() if self._arrangement is None else self._arrangement.material

    def reload(self, token: str | None = None) -> Reload:
        """Reloads; what comes of it is in the status before this returns. Raises as `server`."""
        server, watch = self.server, self._watch
        if watch is None:
            raise BrokerStopped("the broker does not run in this process")
        with self._reloading:
            changed, refused = watch.reload(server)
            self._note_bound(server)
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

    # Inside

    @staticmethod
    def _announce_reading(keeping: Keeping) -> None:
        """Says that clients have to wait, where there is much to read before they can connect."""
        there = keeping.bytes_on_disk
        if there >= READING_BYTES_MIN:
            _LOG.warning(
                "reading %.1f GB of what was kept; clients can connect when that is done",
                there / 1e9,
                extra={"event": "store-reading", "fields": {"bytes": there}},
            )

    def _note_bound(self, server: native.Server) -> None:
        """Remembers where it listens, as a forked child could not ask the engine for it."""
        self._bound = frozenset((host, port) for _, host, port in server.addresses())

    def _roles_of(self, name: str) -> tuple[str, ...]:
        return () if self._watch is None else self._watch.roles_of(name)

    def _attend(self) -> None:
        """Does what is due from time to time: a reload that was asked for, the status."""
        if self._server is None:
            return
        token = request.take(self.folder)
        if token is not None:
            self.reload(token)
        self._report()

    def _report(self) -> None:
        """Writes the status when it is due."""
        now = time.monotonic()
        if now < self._status_due or self._server is None:
            return
        self._status_due = now + _STATUS_INTERVAL_S
        try:
            self.status(os.getpid()).write(self.folder)
        except BrokerStopped:
            # It has ended meanwhile, and its status goes with it.
            return
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
            try:
                self._tell(events, lost)
            except Exception:  # noqa: BLE001 - listening must go on; the log has it.
                _LOG.exception("an event could not be told")

    def _tell(self, events: list[native.Event], lost: int) -> None:
        self.events.extend(events)
        if self._setup.raw_events is not None:
            for event in events:
                self._tell_raw(self._setup.raw_events, event)
        if (events or lost) and (self._hooks.hears or self._streams.are_read):
            read = list(self._reading.read(events))
            self._hooks.tell(read, lost, self._loop, self._setup.hook_timeout_s)
            self._streams.tell(read, lost)

    @staticmethod
    def _tell_raw(listener: Callable[[native.Event], None], event: native.Event) -> None:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 - somebody else's code; the log has it.
            _LOG.exception("a listener for events failed")

    def _join_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None or listener.ident is None:
            return
        if listener is not threading.current_thread():
            # A listener for events that itself waits for this stop must not hold it for ever.
            listener.join(_JOIN_S)


def _listening(name: str, described: Listener, host: str, port: int) -> Listening:
    if described.socket is not None:
        return Listening(name, described.kind, "", 0, "none", str(described.socket))
    return Listening(
        name, described.kind, host, port, described.client_certificates, described.path or ""
    )
