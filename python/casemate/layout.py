"""What stands where in a home, who may read it, and the files of a local identity.

A client on the broker's machine needs no more of a home than this, and loads no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from casemate.errors import HomeMissing, IdentityMissing
from casemate.files import require_private, require_unwritable_by_others
from casemate.names import admit_account_name, is_account_name

CONFIGURATION = "casemate.toml"
POLICY = "policy.toml"
ACCOUNTS = "accounts.db"
STORE = "store"

PKI = "pki"
ROOT_CERTIFICATE = "root.crt"
ROOT_KEY = "root.key"
ISSUER_CERTIFICATE = "issuer.crt"
ISSUER_KEY = "issuer.key"
SERVER_CERTIFICATE = Path("pki/server.crt")
SERVER_KEY = Path("pki/server.key")

IDENTITIES = "identities"
CLIENT_CERTIFICATE = "client.crt"
CLIENT_KEY = "client.key"
CLIENT_AUTHORITY = "ca.crt"


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """Names the files by which a client proves itself to this home's broker.

    Attributes:
        name: The account.
        certificate: Its certificate with the issuer's, PEM.
        key: Its private key, PEM, mode 0600.
        ca: The root's certificate, by which it knows the broker, PEM.
    """

    name: str
    certificate: Path
    key: Path
    ca: Path


def admit_home(home: Path) -> None:
    """Refuses a folder that is no home, or that other accounts of the machine may look into.

    The authority's keys may be kept elsewhere; all else must be there.

    Args:
        home: The folder, absolute.

    Raises:
        HomeMissing: The folder is not a home.
        FileExposed: Others may read a secret, or change what decides over access.
        HomeError: A part of the home is missing or cannot be looked at.
    """
    if not (home / CONFIGURATION).is_file():
        raise HomeMissing(
            f"there is no home in {home}",
            hint=f'run "casemate init --home {home}", or name another folder with --home',
        )
    for public in (
        home,
        home / CONFIGURATION,
        home / POLICY,
        home / IDENTITIES,
        home / PKI / ROOT_CERTIFICATE,
        home / PKI / ISSUER_CERTIFICATE,
        home / SERVER_CERTIFICATE,
    ):
        require_unwritable_by_others(public)
    for private in (home / PKI, home / SERVER_KEY, home / ACCOUNTS):
        require_private(private)
    for elsewhere in (ROOT_KEY, ISSUER_KEY):
        if (home / PKI / elsewhere).exists():
            require_private(home / PKI / elsewhere)


def has_identity(home: Path, name: str) -> bool:
    """Tells whether certificate and key of this name are kept in a home."""
    return is_account_name(name) and (identity_folder(home, name) / CLIENT_KEY).is_file()


def find_identity(home: Path, name: str) -> LocalIdentity:
    """Finds the files by which a client of this machine proves itself.

    Args:
        home: A folder that `admit_home` has let pass.
        name: The account.

    Raises:
        IdentityMissing: There are none of this name.
        FileExposed: Others may read the key.
        NameRefused: The name cannot be an account's.
    """
    admit_account_name(name)
    if not has_identity(home, name):
        raise IdentityMissing(
            f'there is no identity "{name}" in {home}',
            hint=f'run "casemate device add {name} --role ROLE"',
        )
    found = identity_files(identity_folder(home, name), name)
    require_private(found.key)
    for file in (found.certificate, found.ca):
        require_unwritable_by_others(file)
    return found


def identity_folder(home: Path, name: str) -> Path:
    """Gives the folder of an identity; the name is an account's."""
    return home / IDENTITIES / name


def identity_files(folder: Path, name: str) -> LocalIdentity:
    """Names what stands in the folder of an identity."""
    return LocalIdentity(
        name, folder / CLIENT_CERTIFICATE, folder / CLIENT_KEY, folder / CLIENT_AUTHORITY
    )
