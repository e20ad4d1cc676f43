"""What systemd hands over and wants to hear: sockets, readiness, reloads, signs of life.

Nothing here does anything where systemd has not asked for it in the environment. What it says is
sd_notify(3) and sd_listen_fds(3), both plain text.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from casemate.config import Configuration

_LOG = logging.getLogger("casemate.systemd")

_FIRST = 3
"""The first descriptor that is handed over (`SD_LISTEN_FDS_START`)."""

_SOCKETS_MAX = 1_024

_SEND_S = 1.0
"""How long a word to systemd may take, in seconds; its queue is hardly ever full."""


_LAST_S = 10
"""What the end of a process may take beyond its drain, in seconds."""


class Supervisor:
    """Tells systemd how the process is doing; says nothing where nobody listens."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Reads where systemd listens, and takes it out of the environment of children.

        Args:
            environment: As of this process; None is this process's own.
        """
        given = os.environ if environment is None else environment
        self._address = given.pop("NOTIFY_SOCKET", "")
        interval_us = given.pop("WATCHDOG_USEC", "")
        pid = given.pop("WATCHDOG_PID", str(os.getpid()))
        self.alive_every_s: float | None = None
        """How often to give a sign of life: half the time after which it is missed, seconds."""
        if self._address and interval_us.isdecimal() and pid == str(os.getpid()):
            self.alive_every_s = int(interval_us) / 2_000_000 or None

    def ready(self) -> None:
        """Says that clients can connect, or that a reload is over."""
        self._say("READY=1")

    def reloading(self) -> None:
        """Says that a reload begins (`Type=notify-reload` waits for the end of it)."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self._say(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self, within_s: float) -> None:
        """Says that the end has begun, and how long it may take."""
        within_us = int((within_s + _LAST_S) * 1_000_000)
        self._say(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={within_us}")

    def alive(self) -> None:
        """Gives a sign of life."""
        self._say("WATCHDOG=1")

    def _say(self, words: str) -> None:
        if not self._address:
            return
        # A name in the abstract namespace is written with @ in place of the zero byte.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(_SEND_S)
                out.sendto(words.encode(), address)
        except OSError as error:
            # The messages must flow on; systemd draws its own conclusions.
            _LOG.warning("systemd cannot be told %s: %s", words.split("=")[0], error)


def inherited(
    configuration: Configuration, environment: MutableMapping[str, str] | None = None
) -> list[tuple[str, int]]:
    """Takes the sockets that systemd hands over, each for the listener whose address it has.

    What is no listening stream socket, or at an address that no listener has, is closed: nobody
    would ever accept what waits there.

    Args:
        configuration: With the listeners.
        environment: As of this process; None is this process's own.

    Returns:
        Name of the listener and descriptor.
    """
    given = os.environ if environment is None else environment
    wanted = dict(_addresses(configuration))
    taken: list[tuple[str, int]] = []
    for descriptor, name in _handed_over(given):
        os.set_inheritable(descriptor, False)
        found = _listening_at(descriptor)
        listener = wanted.pop(found, None) if found is not None else None
        if listener is None:
            os.close(descriptor)
            where = "no listening stream socket" if found is None else f"at {ascii(found)[1:-1]}"
            _LOG.warning(
                "the socket %s of systemd (%s) fits no listener and was closed", ascii(name), where
            )
        else:
            taken.append((listener, descriptor))
    return taken


def _handed_over(given: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Gives descriptor and name of each socket that is meant for this very process."""
    count = given.get("LISTEN_FDS", "")
    if given.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return
    names = given.get("LISTEN_FDNAMES", "").split(":")
    for position in range(min(int(count), _SOCKETS_MAX)):
        yield _FIRST + position, names[position] if position < len(names) else "unknown"


def forget(environment: MutableMapping[str, str] | None = None) -> None:
    """Takes the hand-over out of the environment once it is done: it is not meant for children."""
    given = os.environ if environment is None else environment
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        given.pop(name, None)


def _addresses(configuration: Configuration) -> Iterator[tuple[str, str]]:
    for name, listener in configuration.named():
        if listener.socket is not None:
            yield str(listener.socket), name
        elif listener.port != 0:
            yield _shown(listener.host, listener.port), name


def _listening_at(descriptor: int) -> str | None:
    """Gives the address of a stream socket that listens; None for everything else."""
    try:
        one = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return None
    with one:
        try:
            listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            address = one.getsockname()
        except OSError:
            return None
        if one.type != socket.SOCK_STREAM or not listens:
            return None
        if one.family == socket.AF_UNIX:
            # One in the abstract namespace is bytes, and no listener has such an address.
            return address if isinstance(address, str) else None
        if one.family in (socket.AF_INET, socket.AF_INET6):
            return _shown(*address[:2])
    return None


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
