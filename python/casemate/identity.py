"""Accounts: who there is, what proves it, and which roles they hold, in one SQLite file."""

from __future__ import annotations

import builtins
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from casemate import layout
from casemate.errors import (
    AccountExists,
    CredentialsRefused,
    IdentityError,
    NameRefused,
    UnknownAccount,
)
from casemate.files import PRIVATE_MODE, require_private
from casemate.names import Kind, admit_account_name, admit_role_name, is_account_name
from casemate.passwords import (
    PASSWORD_BYTES_MAX,
    Hasher,
    PasswordCost,
    admit_password,
    generate_password,
    octets,
)

__all__ = ["FILE_NAME", "Account", "Accounts", "Certificate", "PasswordCost", "generate_password"]

FILE_NAME = layout.ACCOUNTS

FINGERPRINT_BYTES = 32
ROLES_PER_ACCOUNT_MAX = 64

_SCHEMA_VERSION = 1
_APPLICATION_ID = 0x63_73_6D_61  # "csma"
_BUSY_TIMEOUT_S = 5.0

# Names are compared without case when they are taken, so that no two accounts look alike, and
# with case when they are looked up. Every change goes through `generation`.
_SCHEMA = """
CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'device')),
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    password_hash TEXT CHECK (password_hash IS NULL OR password_hash LIKE '$argon2id$%'),
    created_s INTEGER NOT NULL
);
CREATE TABLE role (
    account INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;
CREATE TABLE certificate (
    fingerprint BLOB PRIMARY KEY
        CHECK (typeof(fingerprint) = 'blob' AND length(fingerprint) = 32),
    account INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    not_after_s INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX certificate_account ON certificate (account);
CREATE TABLE state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    generation INTEGER NOT NULL
);
INSERT INTO state VALUES (1, 1);
"""


class Certificate(NamedTuple):
    """Names an enabled account by its certificate, for the broker to install.

    A plain tuple: SHA-256 of the DER (32 bytes), account name, roles, and the end of the
    certificate's validity in seconds of Unix time.
    """

    fingerprint: bytes
    account: str
    roles: tuple[str, ...]
    not_after_s: int


@dataclass(frozen=True, slots=True)
class Account:
    """Describes one account without its secrets.

    Attributes:
        name: Its name, unique without regard to case.
        kind: `user` or `device`.
        roles: Names of its roles, sorted.
        disabled: Whether it is refused whatever it proves.
        has_password: Whether a password can prove it.
        certificates: Fingerprint and end of validity (s of Unix time) of each certificate.
        password_mark: Differs when another password was set, and stays when its hash is renewed;
            empty without one. Says nothing about the password.
    """

    name: str
    kind: Kind
    roles: tuple[str, ...]
    disabled: bool
    has_password: bool
    certificates: tuple[tuple[bytes, int], ...]
    password_mark: str = ""


class _Opened(NamedTuple):
    """Remembers which thread of which process opened a connection."""

    process: int
    thread: threading.Thread
    connection: sqlite3.Connection

    def close(self) -> None:
        # The parent of a fork still uses what the child inherited.
        if self.process == os.getpid():
            self.connection.close()


class Accounts:
    """Keeps accounts in a private SQLite file; safe to use from every thread.

    Each thread has its own connection. Each change is one transaction and raises `generation`,
    which the broker polls.

    Args:
        path: A file made by `Accounts.create`; mode 0600.
        cost: Cost of new password hashes; cheaper stored ones are renewed at the next login.
        lasting: Whether a change is on the disk when it returns. False is for what nobody would
            look for after a crash of the machine; one of the program loses nothing either way.

    Raises:
        IdentityError: The file is missing, damaged, or of another version.
        FileExposed: Other accounts of the machine may read it.
    """

    def __init__(
        self, path: Path, *, cost: PasswordCost | None = None, lasting: bool = True
    ) -> None:
        self._synchronous = "FULL" if lasting else "OFF"
        self.path: Path = path.absolute()
        self._hasher = Hasher(cost or PasswordCost())
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: builtins.list[_Opened] = []
        self._closed = False
        if not self.path.is_file():
            raise IdentityError(
                f"{self.path} is missing", hint='run "casemate init" to make a home'
            )
        require_private(self.path)
        self._require_version()

    @classmethod
    def create(
        cls, path: Path, *, cost: PasswordCost | None = None, lasting: bool = True
    ) -> Accounts:
        """Makes an empty account store: nobody can log in until an account is added.

        Arguments as of the class.

        Raises:
            IdentityError: The file exists already or its folder cannot be written.
        """
        try:
            # The mode is set as the file appears; SQLite gives its side files the same one.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE))
        except OSError as error:
            raise IdentityError(
                f"{path} cannot be made", cause=(error.strerror or "").lower()
            ) from error
        try:
            with _answering(path):
                connection = sqlite3.connect(path, isolation_level=None)
                try:
                    if not lasting:
                        connection.execute("PRAGMA synchronous = OFF")
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.executescript(
                        f"BEGIN IMMEDIATE;{_SCHEMA}"
                        f"PRAGMA application_id = {_APPLICATION_ID};"
                        f"PRAGMA user_version = {_SCHEMA_VERSION};COMMIT;"
                    )
                finally:
                    connection.close()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return cls(path, cost=cost, lasting=lasting)

    def close(self) -> None:
        """Closes the connections of all threads; no other call may follow or be under way."""
        with self._lock:
            self._closed = True
            for opened in self._open:
                opened.close()
            self._open.clear()

    def __enter__(self) -> Accounts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    @property
    def generation(self) -> int:
        """Counts the changes; a higher number than last time means: read again."""
        return int(self._read("SELECT generation FROM state")[0][0])

    def get(self, name: str) -> Account:
        """Describes one account.

        Raises:
            UnknownAccount: There is none of exactly this name.
        """
        for account in self._described(name):
            return account
        raise _unknown(name)

    def list(self) -> tuple[Account, ...]:
        """Describes all accounts, by name."""
        return tuple(self._described(None))

    def certificates(self) -> tuple[Certificate, ...]:
        """Lists the certificates of all enabled accounts, expired ones too.

        The broker installs them and refuses each from its `not_after_s` on.
        """
        return tuple(
            Certificate(fingerprint, account.name, account.roles, not_after_s)
            for account in self._described(None)
            if not account.disabled
            for fingerprint, not_after_s in account.certificates
        )

    # Proving

    def verify(self, name: str, password: str | bytes | None) -> Account:
        """Checks a name and password and gives the account they prove.

        Takes the time of one hash and the same path whether the account is unknown, disabled,
        has no password, or the password is wrong. Blocks for that time (some 50–200 ms)
        without the interpreter's lock; call it from a bounded pool.

        Args:
            name: As the client sent it; anything at all.
            password: 1–1,024 bytes; text counts as UTF-8.

        Raises:
            CredentialsRefused: They prove nobody; the message is always the same.
            IdentityError: The store cannot answer; the client must be refused.

        Source: CVE-2016-9877 (a name without a password), CVE-2021-46434 (names told by time).
        """
        secret = octets(password)
        # Decided without the name, so it may be decided without a hash.
        if secret is None or not 0 < len(secret) <= PASSWORD_BYTES_MAX:
            raise _refused()
        stored = self._password_of(name)
        matches = self._hasher.matches(stored or self._hasher.nobody, secret)
        # Read again: the account may have been disabled or changed while the hash was computed.
        current = self._password_of(name)
        if stored is None or current != stored or not matches:
            raise _refused()
        self._renew_hash(name, stored, secret)
        try:
            return self.get(name)
        except UnknownAccount:
            raise _refused() from None

    # Changing

    def add(
        self, name: str, kind: Kind, roles: Iterable[str] = (), password: str | None = None
    ) -> Account:
        """Adds an account; without a password only a certificate can prove it.

        Args:
            name: 1–128 characters of `A–Z a–z 0–9 . _ @ -`, the first a letter or digit.
            kind: `user` or `device`.
            roles: At most 64 names of roles; none means that it may do nothing.
            password: Its password, or None for none.

        Raises:
            NameRefused: The name, the kind or a role is not well-formed.
            AccountExists: The name is taken.
            WeakPassword: The password is too easy.
        """
        admit_account_name(name)
        held = _admitted_roles(roles)
        if kind not in ("user", "device"):
            raise NameRefused(f"{ascii(kind)[:48]} is not a kind of account")
        hashed = None if password is None else self._hashed(name, password)
        with self._change() as connection:
            try:
                cursor = connection.execute(
                    "INSERT INTO account (name, kind, password_hash, created_s)"
                    " VALUES (?, ?, ?, ?)",
                    (name, kind, hashed, int(time.time())),
                )
            except sqlite3.IntegrityError as error:
                raise AccountExists(
                    f'there is an account "{name}" already, or one that differs only in case',
                    hint="choose another name, or remove the account first",
                ) from error
            _give_roles(connection, int(cursor.lastrowid or 0), held)
        return self.get(name)

    def remove(self, name: str) -> None:
        """Removes an account with its password, roles and certificates.

        Raises:
            UnknownAccount: There is none of this name.
        """
        with self._change() as connection:
            connection.execute("DELETE FROM account WHERE id = ?", (_id(connection, name),))

    def set_password(self, name: str, password: str) -> None:
        """Gives an account a new password.

        Raises:
            UnknownAccount: There is none of this name.
            WeakPassword: The password is too easy.
        """
        self.get(name)
        hashed = self._hashed(name, password)
        with self._change() as connection:
            connection.execute(
                "UPDATE account SET password_hash = ? WHERE id = ?",
                (hashed, _id(connection, name)),
            )

    def set_roles(self, name: str, roles: Iterable[str]) -> None:
        """Replaces the roles of an account.

        Raises:
            UnknownAccount: There is none of this name.
            NameRefused: A role is not well-formed, or there are more than 64.
        """
        held = _admitted_roles(roles)
        with self._change() as connection:
            account = _id(connection, name)
            connection.execute("DELETE FROM role WHERE account = ?", (account,))
            _give_roles(connection, account, held)

    def disable(self, name: str) -> None:
        """Refuses an account from now on, whatever it proves.

        Raises:
            UnknownAccount: There is none of this name.
        """
        self._set_disabled(name, 1)

    def enable(self, name: str) -> None:
        """Accepts a disabled account again.

        Raises:
            UnknownAccount: There is none of this name.
        """
        self._set_disabled(name, 0)

    def add_certificate(self, name: str, fingerprint: bytes, not_after_s: int) -> None:
        """Lets a certificate prove an account.

        Args:
            name: The account.
            fingerprint: SHA-256 of the certificate's DER, 32 bytes.
            not_after_s: End of its validity, in seconds of Unix time.

        Raises:
            UnknownAccount: There is none of this name.
            AccountExists: The certificate proves an account already.
            IdentityError: The fingerprint is not 32 bytes.
        """
        if len(fingerprint) != FINGERPRINT_BYTES:
            raise IdentityError(f"a fingerprint is {FINGERPRINT_BYTES} bytes of SHA-256")
        with self._change() as connection:
            account = _id(connection, name)
            try:
                connection.execute(
                    "INSERT INTO certificate VALUES (?, ?, ?)",
                    (bytes(fingerprint), account, int(not_after_s)),
                )
            except sqlite3.IntegrityError as error:
                raise AccountExists("the certificate proves an account already") from error

    def remove_certificate(self, fingerprint: bytes) -> None:
        """Stops a certificate from proving anyone; an unknown one is left at that."""
        with self._change() as connection:
            connection.execute(
                "DELETE FROM certificate WHERE fingerprint = ?", (bytes(fingerprint),)
            )

    # Inside

    def _set_disabled(self, name: str, disabled: int) -> None:
        with self._change() as connection:
            connection.execute(
                "UPDATE account SET disabled = ? WHERE id = ?", (disabled, _id(connection, name))
            )

    def _described(self, name: str | None) -> Iterator[Account]:
        if name is not None and not is_account_name(name):
            return
        rows = self._read(
            "SELECT a.name, a.kind, a.disabled, a.password_hash,"
            " (SELECT group_concat(r.name) FROM role r WHERE r.account = a.id),"
            " (SELECT group_concat(hex(c.fingerprint) || ':' || c.not_after_s)"
            "  FROM certificate c WHERE c.account = a.id)"
            " FROM account a WHERE ?1 IS NULL OR a.name = ?1 COLLATE BINARY ORDER BY a.name",
            (name,),
        )
        for account, kind, disabled, password_hash, roles, certificates in rows:
            shown = (entry.split(":") for entry in (certificates or "").split(",") if entry)
            yield Account(
                account,
                kind,
                tuple(sorted(role for role in (roles or "").split(",") if role)),
                bool(disabled),
                password_hash is not None,
                tuple(sorted((bytes.fromhex(digest), int(end)) for digest, end in shown)),
                _password_mark(password_hash),
            )

    def _password_of(self, name: str) -> str | None:
        """Finds the hash that could prove an enabled account of this name."""
        # A name that cannot exist is asked for like any other, so that it takes as long.
        asked = name if is_account_name(name) else "-"
        rows = self._read(
            "SELECT password_hash FROM account"
            " WHERE name = ? COLLATE BINARY AND disabled = 0 AND password_hash IS NOT NULL",
            (asked,),
        )
        return str(rows[0][0]) if rows else None

    def _hashed(self, name: str, password: str) -> str:
        admit_password(name, password)
        return self._hasher.hash(password.encode("utf-8"))

    def _renew_hash(self, name: str, stored: str, secret: bytes) -> None:
        """Replaces a hash that is cheaper than today's cost."""
        if not self._hasher.is_cheap(stored):
            return
        renewed = self._hasher.renewed(secret, stored)
        try:
            # Not a change of who may do what, so the generation stays. The old hash is named so
            # that a password set meanwhile is never undone.
            self._connection().execute(
                "UPDATE account SET password_hash = ? WHERE name = ? AND password_hash = ?",
                (renewed, name, stored),
            )
        except sqlite3.OperationalError:
            # The store is busy or read-only: the proof stands, and the next login tries again.
            return

    def _read(
        self, statement: str, values: tuple[object, ...] = ()
    ) -> builtins.list[tuple[Any, ...]]:
        with _answering(self.path):
            return self._connection().execute(statement, values).fetchall()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Runs one transaction and raises the generation with it, or changes nothing."""
        with _answering(self.path):
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("UPDATE state SET generation = generation + 1")
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def _connection(self) -> sqlite3.Connection:
        """Gives this thread's connection in this process."""
        # SQLite connections must not cross a fork: the child would share the parent's locks.
        mine: tuple[int, sqlite3.Connection] | None = getattr(self._local, "mine", None)
        if mine is not None and mine[0] == os.getpid() and not self._closed:
            return mine[1]
        # Mode rw never makes a file: a store that vanished must not come back empty.
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            # Only so that `close` may end it from another thread; it is used by one.
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA trusted_schema = OFF")
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if self._closed:
                connection.close()
                raise IdentityError("the account store is closed")
            # What a thread leaves behind is closed here, so that threads may come and go.
            for opened in [o for o in self._open if not o.thread.is_alive()]:
                opened.close()
                self._open.remove(opened)
            self._open.append(_Opened(os.getpid(), threading.current_thread(), connection))
        self._local.mine = (os.getpid(), connection)
        return connection

    def _require_version(self) -> None:
        application = self._read("PRAGMA application_id")[0][0]
        version = self._read("PRAGMA user_version")[0][0]
        if application != _APPLICATION_ID:
            raise IdentityError(
                f"{self.path} is not an account store",
                hint="restore it from a backup; a damaged store lets nobody in",
            )
        if version != _SCHEMA_VERSION:
            raise IdentityError(
                f"{self.path} has version {version}, this program reads {_SCHEMA_VERSION}",
                hint="use the version of casemate that wrote it",
            )


@contextmanager
def _answering(path: Path) -> Iterator[None]:
    """Turns every failure of SQLite into a refusal that a caller cannot mistake for an answer."""
    try:
        yield
    except sqlite3.Error as error:
        raise IdentityError(
            f"{path} cannot be read or changed",
            cause=str(error),
            hint="check the disk and the file; until then nobody is let in",
        ) from error


def _refused() -> CredentialsRefused:
    return CredentialsRefused("the name and password are not accepted")


def _unknown(name: str) -> UnknownAccount:
    return UnknownAccount(
        f"there is no account {name[:64]!a}", hint='run "casemate user list" or "device list"'
    )


def _password_mark(stored: str | None) -> str:
    """Names a password by the salt that was chosen with it, and does not tell even that."""
    return "" if stored is None else hashlib.sha256(stored.split("$")[-2].encode()).hexdigest()[:16]


def _id(connection: sqlite3.Connection, name: str) -> int:
    row = None
    if is_account_name(name):
        row = connection.execute(
            "SELECT id FROM account WHERE name = ? COLLATE BINARY", (name,)
        ).fetchone()
    if row is None:
        raise _unknown(name)
    return int(row[0])


def _admitted_roles(roles: Iterable[str]) -> tuple[str, ...]:
    held = tuple(sorted({admit_role_name(role) for role in roles}))
    if len(held) > ROLES_PER_ACCOUNT_MAX:
        raise NameRefused(f"an account holds at most {ROLES_PER_ACCOUNT_MAX} roles")
    return held


def _give_roles(connection: sqlite3.Connection, account: int, roles: tuple[str, ...]) -> None:
    connection.executemany("INSERT INTO role VALUES (?, ?)", [(account, role) for role in roles])
