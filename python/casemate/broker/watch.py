"""Changes on disk on their way into the running engine; a bad one keeps the last good state."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from casemate import native
from casemate.broker import assemble
from casemate.broker.arrangement import Arrangement, signature
from casemate.errors import CasemateError
from casemate.identity import Account, Accounts
from casemate.policy import Policy

_LOG = logging.getLogger("casemate.broker")

INTERVAL_S = 0.5
"""How often accounts and policy are looked at, in seconds."""

POLICY_IN_FORCE_S = 5.0
"""Time that the shards may take to obey a new policy, in seconds."""

_PARTS = ("configuration", "policy", "accounts", "shards")
"""Problems that keep a part of what was asked for from being in force."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Says why the engine still runs with an older state than the disk has.

    Attributes:
        since_unix_s: When it was found, in seconds of Unix time.
        message: In words, without secrets.

    Example:
        ```python
        from casemate import Broker

        with Broker() as broker:
            (broker.home / "policy.toml").write_text("roles = 3")
            broker.reload()
            print(broker.problems["policy"].message)  # …policy.toml:1: …
        ```
    """

    since_unix_s: int
    message: str


class Watch:
    """Polls the account store and the policy file, and installs what has changed.

    The configuration is looked at when it is asked for, and where it says so on each change.
    Each of the three is in force as a whole or not at all, but none waits for another: a device
    that was removed must go, whatever is wrong with a certificate.
    """

    def __init__(
        self,
        accounts: Accounts,
        policy_file: Path,
        arrangement: Arrangement,
        tick: Callable[[], None],
    ) -> None:
        """Reads accounts and policy as they are now.

        Args:
            accounts: The store.
            policy_file: The policy.
            arrangement: The configuration.
            tick: Called after each look, for what else is done from time to time.

        Raises:
            PolicyError: The policy is wrong, so that there is nothing to start with.
            IdentityError: The store cannot answer.
        """
        self._accounts = accounts
        self._policy_file = policy_file
        self._arrangement = arrangement
        self._tick = tick
        self._changed: list[str] = []
        self.needs_restart: tuple[str, ...] = ()
        self._epoch = 1
        # The mark is taken before the content: what changes in between is seen next time.
        self._signature = signature(policy_file)
        self._policy = Policy.load(policy_file)
        self._generation = accounts.generation
        self._known = _by_name(accounts)
        self._problems: dict[str, Problem] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._looking = threading.Lock()
        self._check_roles()

    @property
    def problems(self) -> dict[str, Problem]:
        """What keeps the engine from the state of the disk, by what it concerns."""
        return dict(self._problems)

    def roles_of(self, name: str) -> tuple[str, ...]:
        """Gives the roles of an account as last read; none for who has none."""
        account = self._known.get(name)
        return () if account is None else account.roles

    def compiled(self) -> native.Policy:
        """Gives the policy for the engine's start.

        Raises:
            PolicyError: The engine refuses it.
        """
        return assemble.policy(self._epoch, self._policy)

    def start(self, server: native.Server) -> None:
        """Begins to look."""
        self._thread = threading.Thread(
            target=self._run, args=(server,), name="casemate-watch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends looking."""
        self._stopping.set()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()
            self._thread = None

    def look(self, server: native.Server) -> None:
        """Looks now, and returns when what has changed is in force."""
        with self._looking:
            self._try("policy", lambda: self._look_at_policy(server))
            self._try("accounts", lambda: self._look_at_accounts(server))
            if self._arrangement.current.reload_on_change and self._arrangement.is_news():
                self._try("configuration", lambda: self._install_configuration(server))

    def reload(self, server: native.Server) -> tuple[list[str], list[str]]:
        """Looks at everything now, the configuration too.

        Returns:
            What has changed, and why parts of it are as they were; in words.
        """
        with self._looking:
            self._changed.clear()
            self._try("configuration", lambda: self._install_configuration(server))
            self._try("policy", lambda: self._look_at_policy(server))
            self._try("accounts", lambda: self._look_at_accounts(server))
            refused = [one.message for what, one in self.problems.items() if what in _PARTS]
            return list(self._changed), refused

    def _run(self, server: native.Server) -> None:
        while not self._stopping.wait(INTERVAL_S):
            self.look(server)
            try:
                self._tick()
            except Exception:  # noqa: BLE001 - looking must go on; the log has it.
                _LOG.exception("the status could not be written")

    def _try(self, what: str, look: Callable[[], None]) -> None:
        try:
            look()
        except CasemateError as error:
            self._tell(what, str(error))
        except Exception as error:  # noqa: BLE001 - it is told, and the log has it.
            # The engine keeps what it has; looking must not end because of one bad look.
            _LOG.exception("looking at the %s failed", what)
            self._tell(what, f"{type(error).__name__} while looking at the {what}")

    def _tell(self, what: str, message: str) -> None:
        """Keeps a problem and logs it once, not at every look."""
        known = self._problems.get(what)
        if known is None or known.message != message:
            self._problems[what] = Problem(int(time.time()), message)
            _LOG.error(
                "the change is not in force, the last good state is kept: %s",
                message,
                extra={"event": "problem", "fields": {"part": what}},
            )

    def _say_reloaded(self, part: str, changed: str) -> None:
        fields = {"part": part}
        _LOG.info("in force: %s", changed, extra={"event": "reloaded", "fields": fields})

    def _install_configuration(self, server: native.Server) -> None:
        changed, needs_restart = self._arrangement.install(server)
        self._problems.pop("configuration", None)
        self.needs_restart = tuple(needs_restart)
        self._changed += changed
        self._check_roles()
        if changed:
            self._say_reloaded("configuration", ", ".join(changed))
        if needs_restart:
            self._tell("restart", f"changed, but needs a restart: {', '.join(needs_restart)}")
        else:
            self._problems.pop("restart", None)

    def _look_at_policy(self, server: native.Server) -> None:
        mark = signature(self._policy_file)
        if mark == self._signature and "policy" not in self._problems:
            return
        read = Policy.load(self._policy_file)
        compiled = assemble.policy(self._epoch + 1, read)
        server.install_policy(compiled)
        self._epoch += 1
        self._policy, self._signature = read, mark
        self._problems.pop("policy", None)
        self._check_roles()
        if not server.wait_policy_in_force(self._epoch, POLICY_IN_FORCE_S):
            self._tell("shards", f"a shard did not take the policy in {POLICY_IN_FORCE_S:g} s")
            return
        self._problems.pop("shards", None)
        self._changed.append("policy")
        self._say_reloaded("policy", "policy.toml")

    def _look_at_accounts(self, server: native.Server) -> None:
        generation = self._accounts.generation
        if generation == self._generation and "accounts" not in self._problems:
            return
        certificates = assemble.accounts(self._accounts)
        known = _by_name(self._accounts)
        server.install_accounts(certificates)
        for name, before in self._known.items():
            after = known.get(name)
            if after is None:
                server.expel(name, end_sessions=True)
            elif _has_less(before, after):
                server.expel(name, end_sessions=False)
        self._known, self._generation = known, generation
        self._problems.pop("accounts", None)
        self._check_roles()
        self._changed.append("accounts")
        self._say_reloaded("accounts", "accounts")

    def _check_roles(self) -> None:
        """Tells of roles that nobody defines; they allow nothing."""
        try:
            for account in self._known.values():
                self._policy.require_roles(account.roles, f'account "{account.name}"')
            for name, listener in self._arrangement.current.named():
                if listener.anonymous_role is not None:
                    self._policy.require_roles([listener.anonymous_role], f'listener "{name}"')
        except CasemateError as error:
            self._tell("roles", str(error))
        else:
            self._problems.pop("roles", None)


def _has_less(before: Account, after: Account) -> bool:
    """Says whether live connections of an account may rest on what it no longer is."""
    return (
        after.disabled
        or before.roles != after.roles
        or (before.has_password and before.password_mark != after.password_mark)
    )


def _by_name(accounts: Accounts) -> dict[str, Account]:
    return {account.name: account for account in accounts.list()}
