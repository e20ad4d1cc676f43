"""What `casemate doctor` finds about the store: its durability, key, damage and failures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from casemate import files, native
from casemate.broker import is_served, keeping, read_status
from casemate.cli.access import mending
from casemate.cli.finding import Finding
from casemate.config import Reading
from casemate.errors import CasemateError, FileExposed

VERIFIED_BYTES_MAX = 256 * 1024 * 1024
"""A store that nobody serves is read through up to this size, in bytes."""


def store(reading: Reading, home: Path) -> Iterator[Finding]:
    """Yields what is odd about the store of a home, as configured and as it lies on the disk."""
    described = reading.configuration.store
    restart = "then restart the broker"
    if described.durability == "memory":
        yield Finding(
            "durability-memory",
            'the store has durability = "memory"',
            mending(reading, ("store", "durability"), 'use "disk"', restart),
        )
        return
    if described.durability == "os":
        yield Finding(
            "durability-os",
            'the store has durability = "os"',
            mending(reading, ("store", "durability"), 'use "disk"', restart),
        )
    folder = keeping.folder_of(described, home)
    if described.insecure_plain is not None:
        yield Finding(
            "store-mixed",
            f"data that is not encrypted is read ({described.insecure_plain})",
            mending(
                reading,
                ("store", "insecure_plain"),
                f'stop the broker, run "casemate store compact --home {shlex.quote(str(home))}", '
                "remove the line",
                "start it again",
            ),
        )
    if keeping.size(folder) > 0 and not described.is_encrypted:
        yield Finding(
            "store-plain",
            f"what is kept in {folder} is not encrypted",
            "encrypt its disk, or give the store a key: docs/durability.md says how",
        )
    yield from _on_disk(reading, folder, home)


def _on_disk(reading: Reading, folder: Path, home: Path) -> Iterator[Finding]:
    if not folder.exists():
        return
    try:
        files.require_private(folder)
    except FileExposed as error:
        yield Finding("file-open", error.message, error.hint)
    except CasemateError as error:
        yield Finding("store-unreadable", str(error), "restore the folder from a backup")
        return
    for name in keeping.set_aside(folder):
        yield Finding(
            "store-damaged",
            f"{folder / name} was damaged and set aside",
            "restore a backup, or accept the loss and move the file away",
        )
    if is_served(home):
        yield from _served(home)
    else:
        yield from _unserved(reading, folder, home)


def _served(home: Path) -> Iterator[Finding]:
    try:
        kept = read_status(home).store
    except CasemateError:
        # Said already, with all else about the broker.
        return
    for words in kept.damage:
        yield Finding(
            "store-damaged",
            f"found at the start: {words}",
            "restore a backup, or accept the loss",
        )
    if kept.failing:
        words = "its disk is full" if kept.is_full else "its disk fails"
        yield Finding(
            "store-failing",
            f"the store keeps nothing now, {words}: {kept.failing}",
            "make room, and it goes on by itself" if kept.is_full else "look at the disk",
        )


def _unserved(reading: Reading, folder: Path, home: Path) -> Iterator[Finding]:
    described = reading.configuration.store
    try:
        opened = keeping.opened(described, home)
    except CasemateError as error:
        yield Finding("store-key", str(error), error.hint or "give the key that it had before")
        return
    if keeping.size(folder) > VERIFIED_BYTES_MAX:
        return
    try:
        damage = opened.inspect().damage
    except native.StoreRefused as refused:
        fault = keeping.store_error(refused)
        check = "store-key" if refused.args[1] in ("key", "plain") else "store-unreadable"
        yield Finding(check, str(fault), fault.hint)
        return
    for words in damage:
        yield Finding("store-damaged", words, "restore a backup, or accept the loss")
