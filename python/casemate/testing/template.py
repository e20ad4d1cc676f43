"""One home per process, made once; each throw-away broker starts from a copy of it.

Keys, certificates and synced files are what a secure broker costs; copied, they cost a few
milliseconds. The brokers of one process therefore share an authority, and nothing else.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from pathlib import Path

from casemate.home import OPERATOR, Home

ROLES = (OPERATOR, "sensor", "console")
"""Roles of a new home's policy; an identity named for each is there already."""

_lock = threading.Lock()
_made: dict[int, Path] = {}


def copy_home() -> Path:
    """Gives a home of its own in a temporary folder, which the caller removes.

    Returns:
        The home; its parent is the folder to remove.

    Raises:
        CasemateError: As `Home.init`.
    """
    base = Path(tempfile.mkdtemp(prefix="casemate-test-"))
    try:
        shutil.copytree(_template(), base / "home")
    except BaseException:
        shutil.rmtree(base, ignore_errors=True)
        raise
    return base / "home"


def _template() -> Path:
    """Gives the template of this process; a forked child makes its own."""
    with _lock:
        if os.getpid() not in _made:
            base = Path(tempfile.mkdtemp(prefix="casemate-template-"))
            try:
                Home.init(base / "home", lasting=False)
                home = Home.open(base / "home", lasting=False)
                for role in ROLES:
                    if role != OPERATOR:
                        home.add_device(role, role)
            except BaseException:
                shutil.rmtree(base, ignore_errors=True)
                raise
            _made[os.getpid()] = base
        return _made[os.getpid()] / "home"


def _remove() -> None:
    base = _made.pop(os.getpid(), None)
    if base is not None:
        shutil.rmtree(base, ignore_errors=True)


def _forget_lock() -> None:
    """Lets a forked child make its own, whatever another thread was doing at the fork."""
    global _lock
    _lock = threading.Lock()


atexit.register(_remove)
os.register_at_fork(after_in_child=_forget_lock)
