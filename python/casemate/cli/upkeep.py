"""What time and hands do to a home: file modes, certificates, the clock, and its running broker."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from casemate import config, files, identity, pki, policy
from casemate.broker import is_served, read_status
from casemate.cli.drift import drift, unconfigured
from casemate.cli.finding import Finding
from casemate.config import Listener, Reading
from casemate.errors import CasemateError, FileExposed
from casemate.identity import Account
from casemate.layout import CLIENT_KEY, IDENTITIES, PKI

ENDING = timedelta(days=30)
"""Time before the end of a certificate from which it is said."""

_CLOCK_SLACK = timedelta(minutes=5)
_SILENT_S = 30


def modes(home: Path) -> Iterator[Finding]:
    """Yields files that others may read or change, and parts of the home that are not there."""
    decide = [
        home,
        *(home / one for one in (config.FILE_NAME, policy.FILE_NAME, IDENTITIES)),
        *(home / PKI / one for one in (pki.ROOT_CERTIFICATE, pki.ISSUER_CERTIFICATE)),
        home / config.SERVER_CERTIFICATE,
    ]
    for path in decide:
        yield from _mode(path, files.require_unwritable_by_others)
    for path in (home / PKI, home / config.SERVER_KEY, home / identity.FILE_NAME):
        yield from _mode(path, files.require_private)
    # The authority's keys may be kept elsewhere; identities may be moved to their devices.
    keys = [home / PKI / pki.ROOT_KEY, home / PKI / pki.ISSUER_KEY]
    keys += sorted((home / IDENTITIES).glob(f"*/{CLIENT_KEY}"))
    for path in keys:
        if _is_there(path):
            yield from _mode(path, files.require_private)


def certificates(home: Path, reading: Reading | None, now: datetime) -> Iterator[Finding]:
    """Yields certificates of the broker that have ended, will soon, or cannot be read."""
    at = shlex.quote(str(home))
    anew = f'run "casemate init" for a new home beside {at}, and add its devices there'
    yield from _certificate(home / PKI / pki.ROOT_CERTIFICATE, now, anew)
    yield from _certificate(home / PKI / pki.ISSUER_CERTIFICATE, now, anew)
    seen: set[Path] = set()
    for name, listener in () if reading is None else reading.configuration.named():
        for path in _shown(listener):
            if path not in seen:
                seen.add(path)
                own = path == home / config.SERVER_CERTIFICATE
                mend = f'run "casemate renew --home {at}"' if own else f"replace {path}"
                yield from _certificate(path, now, mend, f" of listener {name}")


def expiries(accounts: tuple[Account, ...], home: Path, now: datetime) -> Iterator[Finding]:
    """Yields accounts whose last certificate has ended or will soon."""
    for account in accounts:
        if account.disabled or not account.certificates:
            continue
        end_s = max(one for _, one in account.certificates)
        left_s = end_s - now.timestamp()
        if left_s > ENDING.total_seconds():
            continue
        at = shlex.quote(str(home))
        roles = " ".join(f"--role {one}" for one in account.roles[:1])
        mend = f'run "casemate device remove {account.name} --home {at}", then '
        mend += f'"casemate device add {account.name} {roles} --home {at}"'
        if account.kind == "user":
            mend = f'run "casemate device add NAME {roles} --home {at}", and use that identity'
        day = f"{datetime.fromtimestamp(end_s, now.tzinfo):%Y-%m-%d}"
        yield Finding(
            "account-expired" if left_s <= 0 else "account-ending",
            f"the certificate of {account.kind} {account.name} ends on {day}",
            mend,
        )


def clock(home: Path, now: datetime) -> Iterator[Finding]:
    """Yields proof that this machine's clock is behind: something that is newer than now."""
    latest = now + _CLOCK_SLACK
    for name in (config.FILE_NAME, policy.FILE_NAME, identity.FILE_NAME, "status.json"):
        try:
            written = datetime.fromtimestamp((home / name).stat().st_mtime, now.tzinfo)
        except OSError:
            continue
        if written > latest:
            yield _behind(f"{name} was written on {written:%Y-%m-%d %H:%M} UTC", now)
            return
    begin, _ = _validity(home / PKI / pki.ROOT_CERTIFICATE)
    if begin is not None and begin > latest:
        yield _behind(f"the authority was made on {begin:%Y-%m-%d %H:%M} UTC", now)


def authority_keys(home: Path) -> Iterator[Finding]:
    """Yields keys of the authority that lie beside the broker without a passphrase."""
    plain = []
    for name in (pki.ROOT_KEY, pki.ISSUER_KEY):
        try:
            if b"ENCRYPTED" not in files.read_bounded(home / PKI / name):
                plain.append(name)
        except (OSError, CasemateError):
            continue
    if plain:
        yield Finding(
            "authority-key",
            f"{' and '.join(plain)} in {home / PKI} have no passphrase",
            "move them to a place without a network; only adding a device and renewing a "
            'certificate need issuer.key. A new home has them encrypted: "casemate init --encrypt"',
        )


def broker(home: Path, reading: Reading | None, now: datetime) -> Iterator[Finding]:
    """Yields what the running broker says of itself; nothing where none runs."""
    if not is_served(home):
        return
    at = shlex.quote(str(home))
    try:
        status = read_status(home)
    except CasemateError as error:
        yield Finding("broker-silent", str(error), "look at its log, and restart it")
        return
    for problem in status.problems:
        yield Finding("broker-problem", problem, f'mend it, then run "casemate reload --home {at}"')
    silent_s = int(now.timestamp()) - status.updated_unix_s
    if silent_s > _SILENT_S:
        words = f"the broker (pid {status.pid}) has said nothing for {silent_s:,} s"
        yield Finding("broker-silent", words, "look at its log, and restart it")
    if reading is None:
        return
    mend = f'run "casemate reload --home {at}"; what variables of its process set needs a restart'
    for difference in drift(reading.configuration, status):
        yield Finding("not-in-force", difference, mend)
    for weakening in unconfigured(reading.configuration, status):
        yield Finding("weakened-in-force", weakening, mend)


def _mode(path: Path, require: Callable[[Path], None]) -> Iterator[Finding]:
    try:
        require(path)
    except FileExposed as error:
        yield Finding("file-open", error.message, error.hint)
    except CasemateError as error:
        mend = "restore it from a copy of the home"
        yield Finding("file-missing", str(error), mend)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # Of a folder that may not be looked into, its own mode has been said.
        return False


def _shown(listener: Listener) -> list[Path]:
    if not listener.is_encrypted:
        return []
    return [one for one in (listener.certificate, listener.client_ca) if one is not None]


def _certificate(path: Path, now: datetime, mend: str, whose: str = "") -> Iterator[Finding]:
    begin, end = _validity(path)
    if begin is None or end is None:
        yield Finding("certificate-unreadable", f"{path}{whose} holds no certificate", mend)
    elif end <= now:
        yield Finding("certificate-expired", f"{path}{whose} ended on {end:%Y-%m-%d}", mend)
    elif begin > now:
        yield _behind(f"{path}{whose} is valid from {begin:%Y-%m-%d %H:%M} UTC on", now)
    elif end - now <= ENDING:
        yield Finding("certificate-ending", f"{path}{whose} ends on {end:%Y-%m-%d}", mend)


def _validity(path: Path) -> tuple[datetime, datetime] | tuple[None, None]:
    try:
        return pki.validity(files.read_bounded(path))
    except (OSError, ValueError, CasemateError):
        return None, None


def _behind(words: str, now: datetime) -> Finding:
    return Finding(
        "clock-behind",
        f"{words}, and this machine says {now:%Y-%m-%d %H:%M} UTC",
        "set the clock, and keep it right with NTP",
    )
