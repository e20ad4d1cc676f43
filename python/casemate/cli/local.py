"""What this machine knows of a home's broker: where it listens, and the files of an identity."""

from __future__ import annotations

from pathlib import Path

from casemate.errors import BrokerStopped
from casemate.layout import LocalIdentity, admit_home, find_identity


def identity_files(home: Path, name: str) -> LocalIdentity:
    """Finds certificate, key and CA of a local identity.

    Raises:
        HomeError: There is no home, or no such identity in it.
    """
    home = home.absolute()
    admit_home(home)
    return find_identity(home, name)


def tls_address(home: Path) -> tuple[str, int]:
    """Gives host and port of a home's TLS listener, as this machine reaches it.

    Raises:
        BrokerStopped: It is neither running nor configured with a fixed port.
        ConfigurationError: The configuration is wrong.
    """
    from casemate.broker.status import is_served, reachable, read_status

    if is_served(home):
        for running in read_status(home).listeners:
            if running.kind == "tls":
                return reachable(running.host), running.port
    from casemate import config

    for configured in config.load(home).listeners:
        if configured.kind == "tls" and configured.port:
            return reachable(configured.host), configured.port
    raise BrokerStopped(
        f"the broker of {home} is not running, or has no TLS listener",
        hint=f'run "casemate run --home {home}", or name -h and -p',
    )
