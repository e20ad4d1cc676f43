"""What a running broker leaves in its home: a claim that there is one, and how it is doing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from casemate import files
from casemate.errors import BrokerError, BrokerStopped, CasemateError, HomeError

CLAIM_FILE = "broker.lock"
STATUS_FILE = "status.json"

_BLOCK_BYTES = 4_096
_SPARE_BYTES = 512
_READS = 3

_CLAIM_S = 0.3
"""Time that somebody who only looks may hold the claim, in seconds."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Names one address that accepts connections.

    Attributes:
        name: The listener's name.
        kind: `tls`, `tcp`, `wss`, `ws` or `unix`.
        host: Address as it is bound; empty for `unix`.
        port: The port, the one that the system chose where none was asked for; 0 for `unix`.
        client_certificates: `none`, `optional` or `required`.
        path: Of the WebSocket, or of the unix socket; else empty.

    Example:
        ```python
        from casemate import Broker

        with Broker() as broker:
            (listening,) = broker.addresses
            print(listening.kind, listening.client_certificates)  # tls optional
        ```
    """

    name: str
    kind: str
    host: str
    port: int
    client_certificates: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Reload:
    """Says what came of a reload.

    Attributes:
        generation: Counts the reloads of one broker, from 1.
        at_unix_s: When it was over, in seconds of Unix time.
        changed: What is in force now and was not before, in words.
        needs_restart: Options that have changed and count from the next start only.
        refused: Why parts of it are not in force; those are as they were.
        token: Of the request that it answers; None where nobody waits for it.

    Example:
        ```python
        from casemate import Broker
        from casemate.home import Home

        with Broker() as broker:
            Home.open(broker.home).add_device("t7", "sensor")
            reload = broker.reload()
            print(reload.changed, reload.refused)  # … ()
        ```
    """

    generation: int
    at_unix_s: int
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]
    refused: tuple[str, ...]
    token: str | None = None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """Says how durable what a broker acknowledges is, and how its store is.

    Attributes:
        durability: `disk`, `os` or `memory`, as in the configuration.
        folder: Of the store; empty for `memory`.
        is_encrypted: Whether new data is encrypted.
        failing: Why nothing can be kept now, so that nothing that must be kept is acknowledged;
            empty while all is well.
        is_full: Whether it fails for lack of room.
        failures: How often it began to fail since the start.
        damage: What was not found whole at the start, each in words.
        commits_read: Commits that were read at the start.
        bytes_read: Bytes in them.
        read_ms: How long that took, in milliseconds.

    Example:
        ```python
        from casemate import Broker
        from casemate.home import Home

        with Broker(Home.init("lab").home) as broker:
            store = broker.status().store
            print(store.durability, store.failing == "", store.damage)  # disk True ()
        ```
    """

    durability: str = "memory"
    folder: str = ""
    is_encrypted: bool = False
    failing: str = ""
    is_full: bool = False
    failures: int = 0
    damage: tuple[str, ...] = ()
    commits_read: int = 0
    bytes_read: int = 0
    read_ms: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """Says how a broker is doing.

    Attributes:
        version: Of casemate.
        pid: Of its process.
        started_unix_s: When it started, in seconds of Unix time.
        updated_unix_s: When this was written.
        listeners: Where it listens.
        counters: Totals and gauges by name.
        problems: Changes on disk that are not in force, and why.
        weakenings: What the configuration allows against its safe default, and the reason given.
        reload: What came of the last reload that was asked for; None before the first.
        store: How durable what is acknowledged is, and how the store is.

    Example:
        ```python
        from casemate import Broker

        with Broker() as broker:
            status = broker.status()
            print(status.counters["sessions_now"], status.problems, status.weakenings)  # 0 () ()
        ```
    """

    version: str
    pid: int
    started_unix_s: int
    updated_unix_s: int
    listeners: tuple[Listening, ...]
    counters: dict[str, int]
    problems: tuple[str, ...]
    weakenings: tuple[str, ...]
    reload: Reload | None = None
    store: StoreStatus = StoreStatus()

    def write(self, home: Path) -> None:
        """Replaces the status of a home.

        Args:
            home: Whose.

        Raises:
            HomeError: The folder cannot be written.
        """
        text = json.dumps(asdict(self), indent=1).encode()
        # With room to grow, so that a later one fits into the same blocks of the disk.
        text = text.ljust(-(-(len(text) + _SPARE_BYTES) // _BLOCK_BYTES) * _BLOCK_BYTES, b"\n")
        # A status of before a crash is nobody's: the claim beside it went with the process.
        try:
            files.write_whole(home / STATUS_FILE, text, files.PRIVATE_MODE, lasting=False)
        except HomeError:
            # A full disk takes no new file. Just then somebody must be told: what is there needs
            # no room to be written over, and who reads it halfway reads it again.
            files.overwrite(home / STATUS_FILE, text)


class Claim:
    """Holds a home for one broker; the system lets go of it when the process ends."""

    def __init__(self, home: Path) -> None:
        """Takes the claim.

        Raises:
            BrokerError: Another broker serves this home.
            HomeError: The folder cannot be written.
        """
        path = home / CLAIM_FILE
        try:
            self._descriptor: int | None = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, files.PRIVATE_MODE
            )
        except OSError as error:
            raise HomeError(f"{path} cannot be opened", cause=files.reason(error)) from error
        until = time.monotonic() + _CLAIM_S
        while not _lock(self._descriptor, fcntl.LOCK_EX):
            if time.monotonic() > until:
                os.close(self._descriptor)
                self._descriptor = None
                raise BrokerError(
                    f"a broker serves {home} already",
                    hint=f'see "casemate status --home {home}"',
                )
            time.sleep(_CLAIM_S / 10)

    def release(self) -> None:
        """Lets go; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_served(home: Path) -> bool:
    """Says whether a broker serves a home at this moment.

    Args:
        home: Folder of the home; one that does not exist is not served.

    Example:
        ```python
        from casemate import Broker
        from casemate.broker import is_served, read_status

        with Broker() as broker:
            home = broker.home
            print(is_served(home), read_status(home).listeners[0].kind)  # True tls
        print(is_served(home))  # False
        ```
    """
    try:
        descriptor = os.open(home / CLAIM_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def read_status(home: Path) -> Status:
    """Reads how the broker of a home is doing.

    Args:
        home: Folder of the home.

    Raises:
        BrokerStopped: No broker serves this home.
        HomeError: What it left cannot be read.
    """
    if not is_served(home):
        raise BrokerStopped(f"no broker serves {home}", hint=f'run "casemate run --home {home}"')
    path = home / STATUS_FILE
    try:
        return _parsed(_read(path))
    except FileNotFoundError as error:
        raise BrokerStopped(f"the broker of {home} is still starting") from error
    except (OSError, ValueError, TypeError, KeyError, CasemateError) as error:
        raise HomeError(f"{path} cannot be read", cause=str(error)) from error


def reachable(host: str) -> str:
    """Gives the address under which this machine reaches a listener.

    Args:
        host: As it is bound, such as `0.0.0.0`.
    """
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound.


def remove_status(home: Path) -> None:
    """Removes the status of a broker that has stopped."""
    (home / STATUS_FILE).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """Reads the values; one that was being written over is read again."""
    for _ in range(_READS - 1):
        with contextlib.suppress(ValueError):
            values: dict[str, Any] = json.loads(files.read_bounded(path))
            return values
    last: dict[str, Any] = json.loads(files.read_bounded(path))
    return last


def _parsed(values: dict[str, Any]) -> Status:
    values["listeners"] = tuple(Listening(**one) for one in values["listeners"])
    for name in ("problems", "weakenings"):
        values[name] = tuple(values[name])
    if values.get("reload") is not None:
        said = values["reload"]
        for name in ("changed", "needs_restart", "refused"):
            said[name] = tuple(said[name])
        values["reload"] = Reload(**said)
    kept = values.get("store", {})
    values["store"] = StoreStatus(**{**kept, "damage": tuple(kept.get("damage", ()))})
    return Status(**values)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
