"""Homes of brokers that a test configures itself, where a lab would be too much the same."""

from __future__ import annotations

from pathlib import Path

from casemate import files, identity, policy
from casemate.broker import Broker
from casemate.config import Configuration, Listener
from casemate.home import Home
from casemate.identity import Accounts
from casemate.passwords import PasswordCost

CHEAP = PasswordCost(time=1, memory_kib=64)
USER = "visitor"
SECRET = "correct-horse-battery-staple-7"

_POLICY = """\
[roles.visitor]
allow = [{ both = "public/#", retain = true }]

# Every home has an operator, whose role must be there.
[roles.operator]
allow = []
"""


def made(folder: Path) -> Path:
    """Makes a home with one user, who may use public/#."""
    Home.init(folder)
    files.write_whole(folder / policy.FILE_NAME, _POLICY.encode(), files.PRIVATE_MODE)
    with Accounts(folder / identity.FILE_NAME, cost=CHEAP) as accounts:
        accounts.add(USER, "user", ["visitor"], SECRET)
    return folder


def served(home: Path, *listeners: Listener) -> Broker:
    """Gives a broker of a home, not started yet."""
    configuration = Configuration(listeners=listeners).in_home(home)
    return Broker(home, configuration=configuration, password_cost=CHEAP)


def authority(home: Path) -> Path:
    """Gives the file by which a client knows the brokers of a home."""
    return Home.open(home).local_identity("operator").ca
