"""Password checks for the engine: few at a time, each with an answer, refusal where in doubt."""

from __future__ import annotations

import logging
import threading
import time

from casemate import native
from casemate.errors import CasemateError, CredentialsRefused
from casemate.identity import Accounts
from casemate.passwords import PasswordCost

_LOG = logging.getLogger("casemate.broker")

_BAD_USER_NAME_OR_PASSWORD = 0x86
_SERVER_UNAVAILABLE = 0x88

_WAIT_S = 0.5
"""How long a thread waits before it looks whether it should end, in seconds."""

_PASSES_KIB_PER_S = 10 * 3 * 65_536
"""Work of hashing that one thread does in a second at least: ten hashes at the default cost."""

_QUESTIONS_MAX = 65_536


class Answers:
    """Runs the threads that check passwords.

    The number of threads bounds the memory (64 MiB each at the default cost) and the processors
    that an attacker can keep busy; the engine's queue bounds how many wait, so that whoever is
    asked about is answered before its CONNECT deadline or refused as busy at once.
    """

    def __init__(self, accounts: Accounts, threads: int, cost: PasswordCost) -> None:
        """Starts nothing yet.

        Args:
            accounts: Who there is.
            threads: Checks at a time, 1-64.
            cost: Of one check.
        """
        self._accounts = accounts
        self._checks_per_s = _PASSES_KIB_PER_S / (cost.time * cost.memory_kib)
        self._thread_count = threads
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def waiting_max(self, deadline_s: int) -> int:
        """Gives how many questions can be answered within a deadline, in seconds."""
        within = int(self._thread_count * self._checks_per_s * deadline_s)
        return min(max(within, self._thread_count), _QUESTIONS_MAX)

    def start(self, server: native.Server) -> None:
        """Begins to answer."""
        for number in range(self._thread_count):
            thread = threading.Thread(
                target=self._run, args=(server,), name=f"casemate-password-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Ends the threads, after the check that each is at."""
        self._stopping.set()
        for thread in self._threads:
            # One that was never begun has nothing to end.
            if thread.ident is not None:
                thread.join()
        self._threads.clear()

    def _run(self, server: native.Server) -> None:
        while not self._stopping.is_set():
            asked = time.monotonic()
            question = server.next_question(_WAIT_S)
            if question is None:
                if time.monotonic() - asked < _WAIT_S / 2:
                    # An engine that has ended answers at once; the owner will stop us.
                    self._stopping.wait(_WAIT_S)
                continue
            try:
                self._answer(server, question)
            except Exception:  # noqa: BLE001 - a refusal follows, and the log has it.
                # Whatever went wrong, it proves nobody; and the thread must go on answering.
                _LOG.exception("a password could not be checked; the client was refused")
                server.refuse(question.id, _SERVER_UNAVAILABLE)

    def _answer(self, server: native.Server, question: native.Question) -> None:
        try:
            account = self._accounts.verify(question.username, question.password)
        except CredentialsRefused:
            server.refuse(question.id, _BAD_USER_NAME_OR_PASSWORD)
        except CasemateError as error:
            _LOG.error("a password could not be checked: %s", error)
            server.refuse(question.id, _SERVER_UNAVAILABLE)
        else:
            server.grant(
                question.id,
                account.name,
                list(account.roles),
                client_id_bound=question.client_id == account.name,
            )
