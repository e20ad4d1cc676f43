"""Asks the hooks of a program who may come in: within a time, and no answer is a refusal."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, cast

from casemate import native
from casemate.broker.events import Connecting, ProvenBy
from casemate.broker.hook_loop import HookLoop
from casemate.broker.hooks import ConnectHook, Tally, name_of
from casemate.errors import ConnectRefused

_LOG = logging.getLogger("casemate.broker")

ASKED_AT_ONCE_MAX = 256
"""Clients about which hooks are being asked; others wait in the engine, which bounds them too."""

_SERVER_UNAVAILABLE = 0x88

_WAIT_S = 0.5
"""How long the thread waits before it looks whether it should end, in seconds."""

Refusal = Callable[[Connecting, str], None]


class _Asking:
    """One client about whom the hooks are asked; ended by the task, or by the time limit."""

    def __init__(self, number: int, asked: Connecting, until: float) -> None:
        self.number = number
        self.asked = asked
        self.until = until
        self.task: asyncio.Task[None] | None = None
        self.is_late = False
        self.is_answered = False


class Admissions:
    """Takes those who wait to be let in from the engine, and answers for the hooks.

    The time limit is kept by a thread, so that it holds whatever the hooks do to their event
    loop. A client whose hooks fail, hang, or have no loop to run in is refused.
    """

    def __init__(
        self,
        hooks: Sequence[ConnectHook],
        loop: HookLoop,
        timeout_s: float,
        tally: Tally,
        note_refusal: Refusal,
    ) -> None:
        """Starts nothing yet.

        Args:
            hooks: Asked one after the other; looked at anew for each client.
            loop: Where they run.
            timeout_s: For all of them together, in seconds.
            tally: Of all hooks.
            note_refusal: Told whom a hook has refused, and why.
        """
        self._hooks = hooks
        self._loop = loop
        self._timeout_s = timeout_s
        self._tally = tally
        self._note_refusal = note_refusal
        self._stopping = threading.Event()
        self._freed = threading.Event()
        self._lock = threading.Lock()
        self._open: set[_Asking] = set()
        # In the order of their deadlines, as all have the same time.
        self._due: deque[_Asking] = deque()
        self._thread: threading.Thread | None = None

    def start(self, server: native.Server) -> None:
        """Begins to ask."""
        self._thread = threading.Thread(
            target=self._run, args=(server,), name="casemate-admissions", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Asks about nobody any more; who was asked about is refused by the end of the engine."""
        self._stopping.set()
        self._freed.set()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()
            self._thread = None

    def _run(self, server: native.Server) -> None:
        while not self._stopping.is_set():
            self._end_late(server)
            asked = time.monotonic()
            wait_s = min(_WAIT_S, max(0.0, self._due[0].until - asked)) if self._due else _WAIT_S
            with self._lock:
                is_full = len(self._open) >= ASKED_AT_ONCE_MAX
                self._freed.clear()
            if is_full:
                self._freed.wait(wait_s)
                continue
            admission = server.next_admission(wait_s)
            if admission is not None:
                try:
                    self._ask(server, admission)
                except Exception:  # noqa: BLE001 - a refusal follows, and the log has it.
                    # Whatever went wrong, others wait to be asked about.
                    _LOG.exception("nobody could be asked about a client; it was refused")
                    server.turn_away(admission.id, _SERVER_UNAVAILABLE)
            elif time.monotonic() - asked < wait_s / 2:
                # An engine that has ended answers at once; the owner will stop us.
                self._stopping.wait(wait_s)

    def _ask(self, server: native.Server, admission: native.Admission) -> None:
        asked = Connecting(
            listener=admission.listener,
            address=admission.address,
            client_id=admission.client_id,
            name=admission.name,
            roles=tuple(admission.roles),
            proven_by=cast(ProvenBy, admission.proven_by),
            version=cast(Literal[3, 4, 5], admission.version),
        )
        asking = _Asking(admission.id, asked, time.monotonic() + self._timeout_s)
        with self._lock:
            self._open.add(asking)
        self._due.append(asking)
        if len(self._due) > 2 * ASKED_AT_ONCE_MAX:
            # Those that were answered behind one that hangs.
            self._due = deque(one for one in self._due if one in self._open)
        if not self._loop.begin(lambda: self._decide(server, asking)):
            self._close(asking)
            self._refuse(server, asking, "its event loop is gone")

    async def _decide(self, server: native.Server, asking: _Asking) -> None:
        """Runs in the loop of the hooks."""
        asking.task = asyncio.current_task()
        try:
            if asking.is_late:
                return
            for hook in tuple(self._hooks):
                if not await self._asks(server, hook, asking):
                    return
            server.admit(asking.number)
            asking.is_answered = True
        finally:
            if not asking.is_answered:
                # Whatever has ended this task, even the end of the program.
                self._refuse(server, asking, "the hook gave no answer")
            self._close(asking)

    async def _asks(self, server: native.Server, hook: ConnectHook, asking: _Asking) -> bool:
        """Asks one hook; whatever it does but return is a no."""
        try:
            await hook(asking.asked)
        except ConnectRefused as refusal:
            self._tally.add("hooks_refused")
            self._note_refusal(asking.asked, str(refusal))
            server.turn_away(asking.number, refusal.reason_code)
            asking.is_answered = True
        except Exception as error:  # noqa: BLE001 - somebody else's code; a refusal follows.
            self._refuse(server, asking, f"the hook {name_of(hook)} failed", error)
            asking.is_answered = True
        else:
            return True
        return False

    def _refuse(
        self,
        server: native.Server,
        asking: _Asking,
        why: str,
        error: BaseException | None = None,
        what: Literal["failed", "late"] = "failed",
    ) -> None:
        """Refuses somebody whom no hook has refused, and says so where it still waits."""
        self._note_refusal(asking.asked, why)
        if not server.turn_away(asking.number, _SERVER_UNAVAILABLE):
            return
        total = self._tally.add(f"hooks_{what}")
        if total.bit_count() == 1:
            # Not each time: who knocks on and on must not fill a disk.
            _LOG.error(
                "on_connect: %s; the client was refused (%d in all)", why, total, exc_info=error
            )

    def _end_late(self, server: native.Server) -> None:
        now = time.monotonic()
        while self._due and (self._due[0].until <= now or self._due[0] not in self._open):
            asking = self._due.popleft()
            if asking not in self._open:
                continue
            asking.is_late = asking.is_answered = True
            why = f"no answer within {self._timeout_s:g} s"
            self._refuse(server, asking, why, what="late")
            task = asking.task
            if task is not None:
                self._loop.call(lambda task=task: task.cancel())  # type: ignore[misc]

    def _close(self, asking: _Asking) -> None:
        with self._lock:
            self._open.discard(asking)
            self._freed.set()
