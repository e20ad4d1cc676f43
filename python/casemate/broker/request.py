"""A reload that another process asks for: a file in the home, answered in the status.

No signal and no process id: a broker that ended and a stranger that got its number cannot be
confused, and a broker in a container is reached through the folder that it shares.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path

from casemate import files
from casemate.broker.status import Reload, is_served, read_status
from casemate.errors import BrokerError, BrokerStopped, CasemateError, HomeError

REQUEST_FILE = "reload.request"

_LOOK_S = 0.05
_TOKEN = re.compile(rb"[0-9a-f]{32}")


def ask(home: Path, within_s: float) -> Reload:
    """Asks the broker of a home to reload, and waits for what came of it.

    Args:
        home: Whose.
        within_s: Seconds to wait.

    Raises:
        BrokerStopped: No broker serves this home, or it ended meanwhile.
        BrokerError: It did not answer in time.
        HomeError: The folder cannot be written, or the status cannot be read.

    Example:
        ```python
        from casemate import Broker
        from casemate.broker import ask_to_reload

        with Broker() as broker:
            print(ask_to_reload(broker.home, within_s=5).refused)  # ()
        ```
    """
    until = time.monotonic() + within_s
    token = secrets.token_hex(16)
    path = home / REQUEST_FILE
    is_put = False
    while time.monotonic() < until:
        if not is_served(home):
            raise BrokerStopped(
                f"no broker serves {home}", hint=f'run "casemate run --home {home}"'
            )
        if is_put:
            answer = read_status(home).reload
            if answer is not None and answer.token == token:
                return answer
        else:
            # Where another request waits, this one waits for it.
            is_put = _put(path, token)
        time.sleep(_LOOK_S)
    if is_put:
        path.unlink(missing_ok=True)
    raise BrokerError(
        f"the broker did not answer in {within_s:g} s", hint="see its log; is it very busy?"
    )


def take(home: Path) -> str | None:
    """Takes the request that waits in a home, if there is one: its token."""
    path = home / REQUEST_FILE
    try:
        token = files.read_bounded(path)
    except FileNotFoundError:
        return None
    except (OSError, CasemateError):
        token = b""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # What cannot be removed would be obeyed again and again.
        return None
    return token.decode("ascii") if _TOKEN.fullmatch(token) else None


def _put(path: Path, token: str) -> bool:
    """Puts a request where none waits; a reader sees all of it or nothing."""
    beside = path.with_name(f".{path.name}.{token}.new")
    try:
        files.write_whole(beside, token.encode(), files.PRIVATE_MODE)
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise HomeError(f"{path} cannot be written", cause=files.reason(error)) from error
    return True
