"""A home: the folder with everything that one broker is, made whole or not at all.

```
casemate.toml             the configuration
policy.toml               what each role may do
accounts.db               who there is
pki/                      root.crt root.key issuer.crt issuer.key chain.crt server.crt server.key
identities/<name>/        client.crt client.key ca.crt: what one client needs, ready to copy
```
"""

from __future__ import annotations

import errno
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from casemate import config, identity, pki, policy
from casemate.errors import (
    AccountExists,
    HomeError,
    HomeExists,
    UnknownAccount,
)
from casemate.files import (
    FOLDER_MODE,
    PRIVATE_MODE,
    PUBLIC_MODE,
    read_bounded,
    reason,
    require_unwritable_by_others,
    sync_folder,
    sync_tree,
    write_whole,
)
from casemate.layout import (
    ACCOUNTS,
    CLIENT_AUTHORITY,
    CLIENT_CERTIFICATE,
    CLIENT_KEY,
    CONFIGURATION,
    IDENTITIES,
    ISSUER_CERTIFICATE,
    PKI,
    POLICY,
    ROOT_CERTIFICATE,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    LocalIdentity,
    admit_home,
    find_identity,
    has_identity,
    identity_files,
    identity_folder,
)
from casemate.names import Kind, admit_account_name
from casemate.passwords import admit_password

OPERATOR = "operator"

__all__ = ["OPERATOR", "Home", "LocalIdentity", "Report"]

# In the order in which they are put into a folder that exists: `pki` can be put there only once,
# so that of two makers one fails; the configuration comes last, as it makes the folder a home.
_ENTRIES = (PKI, IDENTITIES, ACCOUNTS, POLICY, CONFIGURATION)


@dataclass(frozen=True, slots=True)
class Report:
    """Says what making a home has made.

    Attributes:
        home: The folder.
        paths: Every file in it.
        fingerprint: SHA-256 of the root's certificate, in pairs with colons.
        operator: Name of the first account; its files stand under identities/.
        server_names: What the server's certificate is valid for.
        keys_encrypted: Whether the authority's keys need a passphrase.
    """

    home: Path
    paths: tuple[Path, ...]
    fingerprint: str
    operator: str
    server_names: tuple[str, ...]
    keys_encrypted: bool


class Home:
    """Opens what belongs to one broker; made by `init` or `open`.

    Attributes:
        path: The folder, absolute.
    """

    def __init__(self, path: Path, *, lasting: bool = True) -> None:
        """Takes a folder that was checked already; use `open`."""
        self.path = path
        self._lasting = lasting

    @classmethod
    def init(
        cls,
        path: str | Path,
        names: Iterable[str] = (),
        passphrase: str | None = None,
        *,
        operator: str = OPERATOR,
        password: str | None = None,
        lasting: bool = True,
    ) -> Report:
        """Makes a home: authority, server certificate, operator, policy, configuration.

        It is built in a folder of its own and put in place at the end; what fails leaves nothing.

        Args:
            path: A folder that does not exist, or one that holds nothing of a home yet.
            names: Host names and addresses by which clients reach the broker, besides those
                that this machine knows of itself.
            passphrase: Encrypts the authority's keys; None leaves them to the mode 0600.
            operator: Name of the first account, which may do everything.
            password: Its password besides the certificate; None for none.
            lasting: Whether all of it is on the disk when this returns. False is for a home that
                goes with its process, and that nobody would look for after a crash.

        Raises:
            HomeExists: There is a home, or a part of one.
            HomeError: The folder cannot be made, or others may write in it.
            NameRefused: The operator's name cannot be an account's.
            WeakPassword: The password is too easy.
            PkiError: A name is not a host's, or the passphrase has the wrong length.
        """
        home = Path(path).absolute()
        admit_account_name(operator)
        if password is not None:
            admit_password(operator, password)
        asked = [pki.admit_host_name(name) for name in names]
        with _workshop(home) as workshop:
            report = _build(workshop, asked, passphrase, operator, password)
            _put_in_place(workshop, home, lasting=lasting)
        return Report(
            home,
            tuple(home / path for path in report.paths),
            report.fingerprint,
            operator,
            report.server_names,
            report.keys_encrypted,
        )

    @classmethod
    def open(cls, path: str | Path, *, lasting: bool = True) -> Home:
        """Opens a home after a look at modes, owners and what is there.

        The authority's keys may be kept elsewhere; all else must be there.

        Args:
            path: The folder.
            lasting: As for `init`, for what is changed by it.

        Raises:
            HomeMissing: The folder is not a home.
            FileExposed: Others may read a secret, or change what decides over access.
            HomeError: A part of the home is missing or cannot be looked at.
        """
        home = Path(path).absolute()
        admit_home(home)
        return cls(home, lasting=lasting)

    def configuration(self) -> config.Configuration:
        """Reads the configuration; raises as `config.load`."""
        return config.load(self.path)

    def policy(self) -> policy.Policy:
        """Reads the policy; raises as `Policy.load`."""
        return policy.Policy.load(self.path / POLICY)

    def accounts(self) -> identity.Accounts:
        """Opens the account store, which the caller closes; raises as `Accounts`."""
        return identity.Accounts(self.path / ACCOUNTS, lasting=self._lasting)

    def authority(self, passphrase: str | None = None) -> pki.Authority:
        """Opens the authority for signing; raises as `Authority.load`."""
        return pki.Authority.load(self.path / PKI, passphrase)

    def client_authorities(self) -> bytes:
        """Gives the certificates, PEM, that a client's certificate must lead to.

        Both root and issuer, so that a client that presents its certificate alone passes too.

        Raises:
            HomeError: They cannot be read.
        """
        content = b""
        for file in (ROOT_CERTIFICATE, ISSUER_CERTIFICATE):
            try:
                content += read_bounded(self.path / PKI / file)
            except OSError as error:
                raise HomeError(
                    f"{self.path / PKI / file} cannot be read", cause=reason(error)
                ) from error
        return content

    def add_device(
        self,
        name: str,
        role: str,
        passphrase: str | None = None,
        *,
        lifetime_days: int = pki.LIFETIME_DAYS,
    ) -> LocalIdentity:
        """Adds a device: an account, a certificate that proves it, and the files to copy.

        Args:
            name: 1–128 characters of `A–Z a–z 0–9 . _ @ -`, the first a letter or digit.
            role: A role that the policy defines.
            passphrase: Of the authority's key, if that is encrypted.
            lifetime_days: Validity of the certificate, 1–397 days.

        Raises:
            NameRefused: The name cannot be an account's.
            AccountExists: The name is taken.
            UnknownRole: The policy does not define the role.
            PkiError: The authority cannot sign; see its subclasses.
            HomeError: The files cannot be written.
        """
        admit_account_name(name)
        self.policy().require_roles([role], f'device "{name}"')
        with self.accounts() as store:
            if any(name.casefold() == account.name.casefold() for account in store.list()):
                raise AccountExists(
                    f'there is an account "{name}" already, or one that differs only in case',
                    hint="choose another name, or remove the account first",
                )
            authority = self.authority(passphrase)
            issued = authority.issue_client("device", name, lifetime_days=lifetime_days)
            return _enrol(
                self.path,
                store,
                authority,
                issued,
                _Enrolment("device", name, [role]),
                lasting=self._lasting,
            )

    def remove_device(self, name: str) -> None:
        """Removes a device with its files; a running broker closes its connection.

        Raises:
            UnknownAccount: There is no device of this name.
            HomeError: Its files cannot be removed; the account is gone all the same.
        """
        self._remove(name, "device")

    def add_user(self, name: str, roles: Iterable[str], password: str) -> identity.Account:
        """Adds a user with a password.

        Raises:
            NameRefused: The name cannot be an account's.
            AccountExists: The name is taken.
            UnknownRole: The policy does not define a role.
            WeakPassword: The password is too easy.
        """
        roles = list(roles)
        self.policy().require_roles(roles, f'user "{admit_account_name(name)}"')
        with self.accounts() as store:
            return store.add(name, "user", roles, password)

    def remove_user(self, name: str) -> None:
        """Removes a user with its files, if it has any.

        Raises:
            UnknownAccount: There is no user of this name.
            HomeError: Its files cannot be removed; the account is gone all the same.
        """
        self._remove(name, "user")

    def has_identity(self, name: str) -> bool:
        """Tells whether certificate and key of this name are kept here."""
        return has_identity(self.path, name)

    def local_identity(self, name: str) -> LocalIdentity:
        """Finds the files by which a client of this machine proves itself.

        Raises:
            IdentityMissing: There are none of this name.
            FileExposed: Others may read the key.
            NameRefused: The name cannot be an account's.
        """
        return find_identity(self.path, name)

    def _remove(self, name: str, kind: Kind) -> None:
        with self.accounts() as store:
            account = store.get(name)
            if account.kind != kind:
                raise UnknownAccount(
                    f'"{name}" is a {account.kind}, not a {kind}',
                    hint=f'run "casemate {account.kind} remove {name}"',
                )
            # The account first: once it is gone, its files open nothing any more.
            store.remove(name)
        try:
            shutil.rmtree(identity_folder(self.path, name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise HomeError(
                f"{identity_folder(self.path, name)} cannot be removed",
                cause=reason(error),
                hint="the account is removed; remove the folder by hand",
            ) from error


@contextmanager
def _workshop(home: Path) -> Iterator[Path]:
    """Makes a private folder on the same disk as the home will be, and removes it at the end."""
    _require_absent(home)
    if home.exists():
        require_unwritable_by_others(home)
    beside = home if home.exists() else home.parent
    workshop = beside / f".casemate-{secrets.token_hex(8)}.new"
    try:
        beside.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        workshop.mkdir(mode=FOLDER_MODE)
    except OSError as error:
        raise HomeError(f"{home} cannot be made", cause=reason(error)) from error
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _require_absent(home: Path) -> None:
    if home.exists() and not home.is_dir():
        raise HomeExists(f"{home} is not a folder", hint="choose another folder")
    found = [entry for entry in _ENTRIES if (home / entry).exists()]
    if CONFIGURATION in found:
        raise HomeExists(
            f"there is a home in {home} already",
            hint="use it as it is, or choose another folder with --home",
        )
    if found:
        raise HomeExists(
            f"{home} holds {', '.join(found)}, which a new home would overwrite",
            hint="choose another folder with --home, or move them away",
        )


def _build(
    folder: Path,
    names: list[str],
    passphrase: str | None,
    operator: str,
    password: str | None,
) -> Report:
    """Makes all parts of a home in a folder; the paths in the report are relative to it.

    Nothing is waited for until it is on the disk: that is done once, when all of it is there.
    """
    host = socket.gethostname()
    authority = pki.Authority.create(folder / PKI, host, passphrase, lasting=False)
    server = authority.issue_server([*pki.machine_names(), *names])
    for file, content, mode in (
        (SERVER_KEY, server.key_pem, PRIVATE_MODE),
        (SERVER_CERTIFICATE, server.chain_pem, PUBLIC_MODE),
        (POLICY, policy.default_text().encode(), PRIVATE_MODE),
        (CONFIGURATION, config.default_text().encode(), PRIVATE_MODE),
    ):
        write_whole(folder / file, content, mode, lasting=False)
    (folder / IDENTITIES).mkdir(mode=FOLDER_MODE)
    issued = authority.issue_client("user", operator)
    who = _Enrolment("user", operator, [OPERATOR], password)
    with identity.Accounts.create(folder / ACCOUNTS, lasting=False) as store:
        _enrol(folder, store, authority, issued, who, lasting=False)
    return Report(
        folder,
        tuple(sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())),
        authority.fingerprint,
        operator,
        server.names,
        passphrase is not None,
    )


def _put_in_place(workshop: Path, home: Path, *, lasting: bool) -> None:
    """Moves what was built to where it belongs, or back again if that fails.

    What is there under its name after a crash is there as a whole: it was on the disk before.
    """
    moved: list[str] = []
    try:
        if lasting:
            sync_tree(workshop)
        if not home.exists():
            workshop.rename(home)
        else:
            for entry in _ENTRIES:
                (workshop / entry).rename(home / entry)
                moved.append(entry)
        if lasting:
            sync_folder(home)
            sync_folder(home.parent)
    except OSError as error:
        for entry in reversed(moved):
            with suppress(OSError):
                (home / entry).rename(workshop / entry)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise HomeExists(f"somebody else has made a home in {home} meanwhile") from error
        raise HomeError(f"{home} cannot be made", cause=reason(error)) from error


@dataclass(frozen=True, slots=True)
class _Enrolment:
    """Says who is added."""

    kind: Kind
    name: str
    roles: list[str]
    password: str | None = field(default=None, repr=False)


def _enrol(
    home: Path,
    store: identity.Accounts,
    authority: pki.Authority,
    issued: pki.Issued,
    who: _Enrolment,
    *,
    lasting: bool,
) -> LocalIdentity:
    """Adds an account with its certificate and writes its files; undoes the one without the other.

    The account comes first, because its name can be taken only once.
    """
    folder = identity_folder(home, who.name)
    store.add(who.name, who.kind, who.roles, who.password)
    try:
        _write_identity(folder, authority, issued, lasting=lasting)
        store.add_certificate(who.name, issued.fingerprint, issued.not_after_s)
    except BaseException:
        store.remove(who.name)
        raise
    return identity_files(folder, who.name)


def _write_identity(
    folder: Path, authority: pki.Authority, issued: pki.Issued, *, lasting: bool
) -> None:
    beside = folder.with_name(f".{secrets.token_hex(8)}.new")
    try:
        beside.mkdir(mode=FOLDER_MODE)
        for file, content, mode in (
            (CLIENT_KEY, issued.key_pem, PRIVATE_MODE),
            (CLIENT_CERTIFICATE, issued.chain_pem, PUBLIC_MODE),
            (CLIENT_AUTHORITY, authority.root_pem, PUBLIC_MODE),
        ):
            write_whole(beside / file, content, mode, lasting=False)
        if lasting:
            sync_tree(beside)
        # Fails on a folder that holds anything: the files of another are never overwritten.
        beside.rename(folder)
        if lasting:
            sync_folder(folder.parent)
    except OSError as error:
        raise HomeError(
            f"{folder} cannot be written",
            cause=reason(error),
            hint="move an old folder of that name away",
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
