"""A throw-away broker: secure as a real one, started in milliseconds, gone with the test."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from casemate import files, policy
from casemate.broker import Broker
from casemate.broker.status import Listening
from casemate.client import Client
from casemate.config import Configuration, Limits, Listener, Store
from casemate.errors import BrokerError, PolicyError
from casemate.home import Home, LocalIdentity
from casemate.identity import Accounts
from casemate.layout import ACCOUNTS, IDENTITIES
from casemate.passwords import PasswordCost, generate_password
from casemate.testing.relay import Relay
from casemate.testing.template import ROLES, copy_home

LOOPBACK = "127.0.0.1"

Kind = Literal["tls", "tcp", "wss", "ws", "unix"]

_WEB = ("wss", "ws")
_PATH = "/mqtt"
_SOCKET = "mqtt.sock"

_STORE = Store(durability="memory")
"""What is thrown away at the end need not be on the disk before."""

_CHEAP = PasswordCost(time=1, memory_kib=1_024)
"""A check costs a millisecond here, where passwords are random and thrown away."""


class ThrowAwayBroker(Broker):
    """Serves on free ports of loopback, with identities for whoever a test needs.

    It is the real broker with the real policy: nobody is let in without a certificate or a
    password, and what no rule allows is denied. Only its keys are shared with the other
    throw-away brokers of the process, and its password hashes are cheap.

    Example:
        ```python
        from casemate.errors import Refused
        from casemate.testing import ThrowAwayBroker

        POLICY = 'roles.reader.allow = [{ subscribe = "news/#" }]'

        with ThrowAwayBroker(policy=POLICY) as broker:
            with broker.client(role="reader").blocking() as reader:
                try:
                    reader.publish("news/today", "hello", qos=1)
                except Refused as refusal:
                    print(hex(refusal.reason_code))  # 0x87
        ```
    """

    def __init__(
        self,
        *,
        policy: str | None = None,
        kinds: Iterable[Kind] = ("tls",),
        limits: Limits | None = None,
        **options: Any,  # noqa: ANN401 - as for Broker.
    ) -> None:
        """Makes its home; nothing listens yet.

        Args:
            policy: Text of `policy.toml`; None takes that of a new home, with the roles
                `operator` (may do everything), `sensor` and `console`.
            kinds: A listener for each: `tls`, `tcp`, `wss`, `ws`, `unix`. Without TLS a password
                is the only proof.
            limits: As in `casemate.toml`.
            options: As for `Broker`, such as its hooks.

        Raises:
            PolicyError: The policy is wrong.
            ValueError: No listener was asked for.
        """
        listeners = tuple(_listener(kind) for kind in kinds)
        if not listeners:
            raise ValueError("kinds names at least one listener")
        home = copy_home()
        self._remove = weakref.finalize(self, _remove, home.parent, os.getpid())
        try:
            if policy is not None:
                _write_policy(home, policy)
            configuration = Configuration(
                listeners=listeners, limits=limits or Limits(), shards=1, store=_STORE
            ).in_home(home)
            super().__init__(
                home,
                configuration=configuration,
                password_cost=_CHEAP,
                **options,
            )
        except BaseException:
            self._remove()
            raise

    def start(self) -> None:
        """Opens the listeners and serves; a throw-away broker starts once.

        Raises:
            BrokerError: It was stopped, and its home is gone.
            CasemateError: As `Broker.start`.
        """
        if not self._remove.alive:
            raise BrokerError("a throw-away broker starts once", hint="make a new one")
        super().start()

    def stop(self, deadline_s: float | None = None) -> bool:
        """Stops, and removes its home; as `Broker.stop`.

        Args:
            deadline_s: As for `Broker.stop`.
        """
        flushed = super().stop(deadline_s)
        self._remove()
        return flushed

    @property
    def ca_file(self) -> Path:
        """The CA that its clients trust, PEM."""
        return self.identity(ROLES[0]).ca

    def listening(self, kind: Kind = "tls") -> Listening:
        """Gives where one of its listeners is.

        Args:
            kind: One of those that it was made with.

        Raises:
            BrokerError: It has none of that kind.
        """
        for one in self.addresses:
            if one.kind == kind:
                return one
        raise BrokerError(f"this broker has no {kind} listener", hint=f'add "{kind}" to kinds')

    def client(
        self,
        name: str | None = None,
        *,
        role: str = "operator",
        through: Relay | None = None,
        **options: Any,  # noqa: ANN401 - as for Client.
    ) -> Client:
        """Gives a client with a certificate of its own; `async with` or `.blocking()` connects it.

        Args:
            name: Of the identity, which is made if there is none; None takes the role's name.
            role: Its role, where it is made.
            through: A relay in front of this broker, that may do the network's worst.
            options: As for `Client`.

        Raises:
            UnknownRole: The policy does not define the role.
            BrokerStopped: The broker does not run.
        """
        proof = self.identity(name or role, role)
        at = self.listening("tls") if through is None else through
        defaults = {
            "host": LOOPBACK,
            "port": at.port,
            "client_id": proof.name,
            "ca_file": proof.ca,
            "cert_file": proof.certificate,
            "key_file": proof.key,
        }
        return Client(**{**defaults, **options})

    def identity(self, name: str, role: str = "operator") -> LocalIdentity:
        """Gives the files of an identity, for clients of any make.

        Args:
            name: Of the device; made if there is none.
            role: Its role, where it is made.

        Raises:
            UnknownRole: The policy does not define the role.
            NameRefused: The name cannot be an account's.
        """
        home = Home.open(self.home)
        if not (self.home / IDENTITIES / name).is_dir():
            home.add_device(name, role)
            self._look()
        return home.local_identity(name)

    def add_user(self, name: str, role: str = "operator") -> str:
        """Adds somebody who proves himself by a password; gives the password.

        Args:
            name: 1–128 letters, digits, `.`, `_`, `@` or `-`.
            role: That the policy defines.

        Raises:
            AccountExists: The name is taken.
            UnknownRole: The policy does not define the role.
        """
        secret = generate_password(name)
        home = Home.open(self.home)
        home.policy().require_roles([role], f'user "{name}"')
        # Not through the home, which hashes at the full cost.
        with Accounts(self.home / ACCOUNTS, cost=_CHEAP) as accounts:
            accounts.add(name, "user", [role], secret)
        self._look()
        return secret

    def set_policy(self, text: str) -> None:
        """Replaces the policy; returns when it is in force.

        Args:
            text: Of `policy.toml`.

        Raises:
            PolicyError: It is wrong, and the old one stays in force.
        """
        _write_policy(self.home, text)
        self._look()

    def relay(self, kind: Kind = "tls") -> Relay:
        """Gives a relay in front of a listener; `with` starts and stops it.

        Args:
            kind: Of the listener.

        Raises:
            BrokerError: There is no such listener.
        """
        return Relay(LOOPBACK, self.listening(kind).port)

    def _look(self) -> None:
        """Puts what was changed in force, where the broker runs already."""
        if not self.is_running:
            return
        refused = self.reload().refused
        if refused:
            raise PolicyError("the broker refused a change", cause="; ".join(refused))


def _listener(kind: Kind) -> Listener:
    if kind == "unix":
        return Listener(kind=kind, socket=Path(_SOCKET))
    return Listener(kind=kind, host=LOOPBACK, port=0, path=_PATH if kind in _WEB else None)


def _remove(base: Path, pid: int) -> None:
    """Removes a home, but never for a forked child, whose parent still serves it."""
    if os.getpid() == pid:
        shutil.rmtree(base, ignore_errors=True)


def _write_policy(home: Path, text: str) -> None:
    file = home / policy.FILE_NAME
    policy.Policy.parse(text, file)
    files.write_whole(file, text.encode(), files.PRIVATE_MODE)
