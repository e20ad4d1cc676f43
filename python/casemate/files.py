"""Files of a home: read whole within a bound, written whole or not at all, private if secret."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from casemate.errors import FileExposed, HomeError

TEXT_BYTES_MAX = 1_048_576
"""Largest configuration, policy or certificate that is read, in bytes."""

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644
FOLDER_MODE = 0o700


def read_bounded(path: Path) -> bytes:
    """Reads a whole regular file of at most 1 MiB.

    Args:
        path: The file; a pipe or device is refused, as reading it may never end.

    Raises:
        OSError: The file is missing or unreadable; the caller names it in its own error.
        HomeError: It is not a regular file, or larger than 1 MiB.
    """
    # Non-blocking, because opening a pipe for reading would otherwise wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise HomeError(f"{path} is not a regular file")
        content = file.read(TEXT_BYTES_MAX + 1)
    if len(content) > TEXT_BYTES_MAX:
        raise HomeError(f"{path} is larger than {TEXT_BYTES_MAX:,} bytes")
    return content


def write_whole(path: Path, content: bytes, mode: int, *, lasting: bool = True) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part.

    Args:
        path: Where the file will be; an existing one is replaced.
        content: All of it.
        mode: Permission bits, set before the first byte is written.
        lasting: Whether it is on the disk when this returns. False is for what nobody would look
            for after a crash of the machine, and for what `sync_tree` follows.

    Raises:
        HomeError: The folder is missing, full or not ours to write.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        descriptor = os.open(
            beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                # The umask may have narrowed the mode; certificates must stay readable.
                os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        if lasting:
            sync_folder(path.parent)
    except OSError as error:
        raise HomeError(f"{path} cannot be written", cause=reason(error)) from error


def overwrite(path: Path, content: bytes) -> None:
    """Writes over a file of our own that is there; a reader may see a part of both.

    Args:
        path: The file.
        content: All of it; it needs no room on the disk where it is not longer than before.

    Raises:
        HomeError: There is no such file, or it takes nothing.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.truncate()
    except OSError as error:
        raise HomeError(f"{path} cannot be written", cause=reason(error)) from error


def sync_tree(folder: Path) -> None:
    """Makes everything in a folder durable, each file and each folder once.

    Raises:
        OSError: Something cannot be opened or synced.
    """
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(place) / name, os.O_RDONLY | os.O_NOFOLLOW)
        sync_folder(Path(place))


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable.

    Raises:
        OSError: The folder cannot be opened or synced.
    """
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def require_private(path: Path) -> None:
    """Refuses a secret that any other account of the machine may read or change.

    Args:
        path: A private key, the account store, or a folder of such files.

    Raises:
        FileExposed: Owner or mode are wrong; the hint says which command mends it.
        HomeError: The file is missing or cannot be looked at.

    Source: CVE-2017-9868 (a store that every account of the machine could read).
    """
    status = _status(path)
    _require_owner(path, status)
    exposed = stat.S_IMODE(status.st_mode) & 0o077
    if exposed:
        right = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise FileExposed(
            f"{path} is open to other accounts (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f'run "chmod {right} {path}" and replace the secret if others could read it',
        )


def require_unwritable_by_others(path: Path) -> None:
    """Refuses a file that decides over access and that another account may change.

    Args:
        path: The configuration, the policy, a certificate or the home itself.

    Raises:
        FileExposed: The group or everyone may write, or another account owns it.
        HomeError: The file is missing or cannot be looked at.
    """
    status = _status(path)
    _require_owner(path, status)
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise FileExposed(
            f"{path} can be changed by other accounts (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f'run "chmod go-w {path}" and read it through before you trust it',
        )


def reason(error: OSError) -> str:
    """Gives the system's words for an error, without the path, which the message has."""
    return (error.strerror or type(error).__name__).lower()


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise HomeError(f"{path} cannot be read", cause=reason(error)) from error


def _require_owner(path: Path, status: os.stat_result) -> None:
    # Root may own what a service account only reads; anyone else's file is not ours to trust.
    if status.st_uid in (os.geteuid(), 0):
        return
    raise FileExposed(
        f"{path} belongs to another account (uid {status.st_uid})",
        hint=f'run "chown {os.geteuid()} {path}" as its owner, or run as that account',
    )


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
