"""What outlives a broker: the store as the configuration describes it, its keys, and how it is."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from casemate import files, native
from casemate.broker.status import StoreStatus
from casemate.config import Store
from casemate.config.store import Durability
from casemate.errors import CasemateError, ConfigurationError, StoreError, StoreInUse
from casemate.layout import STORE

KEY_COMMAND_S = 30.0
"""How long a command may take to print a key, in seconds."""

READING_BYTES_MIN = 64 * 1024 * 1024
"""From this size on it is said that reading the store takes a moment, in bytes."""

_KEY = re.compile(rb"\s*([0-9A-Fa-f]{64})\s*\Z")
_KEY_HINT = 'a key is 64 hexadecimal digits, such as "openssl rand -hex 32" prints'
_ANSWER_BYTES_MAX = 4_096


class Keeping:
    """The store of one run of a broker; nothing is kept where there is none."""

    def __init__(self, described: Store, home: Path, *, lasting: bool) -> None:
        """Reads the keys; the store itself is opened by the engine.

        Args:
            described: As configured, with absolute paths.
            home: Of the broker.
            lasting: Whether the home outlives the process.

        Raises:
            ConfigurationError: It is to be kept, and there is no place for it.
            StoreError: A key cannot be had.
        """
        self.durability = durability_of(described, lasting=lasting)
        self._is_encrypted = described.is_encrypted
        self.folder: Path | None = None
        self.store: native.Store | None = None
        if self.durability != "memory":
            self.folder = folder_of(described, home)
            self.store = opened(described, home)

    @property
    def bytes_on_disk(self) -> int:
        """What there is to read at the start, in bytes."""
        return 0 if self.folder is None else size(self.folder)

    def status(self, server: native.Server) -> StoreStatus:
        """Says how it is."""
        health = server.store_health()
        if health is None or self.folder is None:
            return StoreStatus()
        return StoreStatus(
            durability=self.durability,
            folder=str(self.folder),
            is_encrypted=self._is_encrypted,
            failing=health.failing or "",
            is_full=health.is_full,
            failures=health.failures,
            damage=tuple(health.damage),
            commits_read=health.commits_read,
            bytes_read=health.bytes_read,
            read_ms=health.read_ms,
        )


def durability_of(described: Store, *, lasting: bool) -> Durability:
    """Gives the durability that is in force.

    Args:
        described: As configured.
        lasting: Whether the broker has a home that outlives it.

    Raises:
        ConfigurationError: Something is to be kept by a broker that has no place for it.
    """
    if lasting or described.durability == "memory" or described.folder is not None:
        return described.durability
    if described.is_chosen:
        raise ConfigurationError(
            f'durability = "{described.durability}" needs a folder, and this broker has no home',
            hint='give the broker a home, or the store a folder, or use durability = "memory"',
        )
    return "memory"


def folder_of(described: Store, home: Path) -> Path:
    """Gives the folder of a store."""
    return home / STORE if described.folder is None else described.folder


def opened(described: Store, home: Path) -> native.Store:
    """Describes a store for the engine; the keys are read now.

    Args:
        described: As configured, with absolute paths.
        home: Of the broker.

    Raises:
        StoreError: A key cannot be had.
    """
    return native.Store(
        folder_of(described, home),
        durability="os" if described.durability == "os" else "disk",
        key=read_key(described),
        former_keys=[_key_of_file(file) for file in described.former_key_files],
        reads_plain=described.insecure_plain is not None,
    )


def read_key(described: Store, environment: Mapping[str, str] | None = None) -> bytes | None:
    """Gives the key that new data is encrypted under; None where it is not.

    Args:
        described: Names where it comes from; paths are absolute.
        environment: Variables; None takes those of this process.

    Raises:
        StoreError: It cannot be had, or is no key. No part of it is in the message.
    """
    if described.key_file is not None:
        return _key_of_file(described.key_file)
    if described.key_variable is not None:
        name = described.key_variable
        said = (os.environ if environment is None else environment).get(name)
        if said is None:
            raise StoreError(
                f"the variable {name} with the key of the store is not set",
                hint="set it where the broker is started, or use key_file",
            )
        return _key(said.encode(errors="replace"), f"the variable {name}")
    if described.key_command:
        return _key_of_command(described.key_command)
    return None


def size(folder: Path) -> int:
    """Gives the bytes of a store on disk; 0 where there is none."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".log"):
                    total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        # What is wrong with it, the engine says.
        return total
    return total


def set_aside(folder: Path) -> tuple[str, ...]:
    """Gives the damaged files that a start has set aside, by name."""
    try:
        return tuple(sorted(one.name for one in folder.glob("*.damaged")))
    except OSError:
        return ()


def store_error(error: native.StoreRefused) -> StoreError:
    """Makes the store's error of the engine's."""
    message, kind, hint = error.args
    if kind == "in-use":
        return StoreInUse(message, hint=hint)
    return StoreError(message, hint=hint or _HINTS.get(kind, ""))


_HINTS = {
    "full": "make room on its disk",
    "records": "start the version that wrote it",
    "disk": "look at the disk, and at what the system says about it",
}


def _key_of_file(file: Path) -> bytes:
    try:
        files.require_private(file)
        content = files.read_bounded(file)
    except OSError as error:
        raise StoreError(
            f"the key of the store {file} cannot be read", cause=files.reason(error)
        ) from error
    except CasemateError as error:
        # The message has no part of the key, but may say whose fault it is.
        raise StoreError(f"the key of the store: {error}", hint=error.hint) from error
    return _key(content, str(file))


def _key_of_command(words: tuple[str, ...]) -> bytes:
    what = f"the command {words[0]} for the key of the store"
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own words, without a shell.
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=KEY_COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StoreError(
            f"{what} has not ended in {KEY_COMMAND_S:.0f} s", hint="run it by hand"
        ) from error
    except OSError as error:
        raise StoreError(
            f"{what} cannot be run", cause=files.reason(error), hint="name its whole path"
        ) from error
    if done.returncode != 0:
        # Of its words on stderr the first line, as it may have said much.
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0][:200]
        raise StoreError(f"{what} ended with {done.returncode}", cause=said, hint="run it by hand")
    return _key(done.stdout[:_ANSWER_BYTES_MAX], what)


def _key(text: bytes, what: str) -> bytes:
    found = _KEY.match(text)
    if found is None:
        raise StoreError(f"{what} holds no key of a store", hint=_KEY_HINT)
    return bytes.fromhex(found[1].decode())
