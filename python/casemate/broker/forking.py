"""What a forked child has inherited of a broker: its sockets, which it must not keep open.

As long as a child holds them, its parent's port stays bound and its parent's clients do not hear
that they were closed.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

Bound = frozenset[tuple[str, int]]
"""Addresses that a broker is bound to: host and port, or the path of a unix socket and 0."""

_DESCRIPTORS = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound.


def close_inherited(bound: Bound) -> None:
    """Closes every socket of this process at one of these addresses: listeners and connections.

    Only in a child, just after the fork: there is one thread, and nothing else is opened meanwhile.
    """
    try:
        names = os.listdir(_DESCRIPTORS)  # noqa: PTH208 - numbers, and no more than that.
    except OSError:
        return
    for number in sorted(int(name) for name in names if name.isdigit()):
        try:
            inherited = socket.socket(fileno=number)
        except OSError:
            # No socket, or the one that listed them.
            continue
        if _is_at(inherited, bound):
            inherited.close()
        else:
            inherited.detach()


def _is_at(inherited: socket.socket, bound: Bound) -> bool:
    try:
        name = inherited.getsockname()
    except OSError:
        return False
    if isinstance(name, tuple):
        host, port = str(name[0]), int(name[1])
        return port > 0 and any((one, port) in bound for one in (host, *_ANY))
    return isinstance(name, str) and name != "" and (name, 0) in bound
