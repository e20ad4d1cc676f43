"""The log of a command that serves: how it is asked for, and its life beside the broker's."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from casemate import logs
from casemate.broker import Broker
from casemate.config import Log


def settings(configured: Log, form: str | None, level: str | None, *, verbose: bool = False) -> Log:
    """Gives what the log is to be: the command line stands above the configuration.

    Args:
        configured: From `casemate.toml`.
        form: `--log-format`, if it was given.
        level: `--log-level`, if it was given.
        verbose: `-v`, which is short for `info`.
    """
    asked: dict[str, Any] = {"format": form, "level": level or ("info" if verbose else None)}
    return configured.model_copy(
        update={name: value for name, value in asked.items() if value is not None}
    )


@contextmanager
def begun(asked: Log) -> Iterator[logs.EventLog]:
    """Logs to stderr; gives what takes the events of a broker, until everything is written."""
    logs.begin(asked, sys.stderr)
    with logs.EventLog() as events:
        yield events


def say_listening(broker: Broker, events: logs.EventLog) -> None:
    """Logs each listener of a broker that has started, and from now on what it loses."""
    events.count_losses(lambda: broker.events_lost)
    for one in broker.addresses:
        fields: dict[str, logs.Value] = {
            "listener": one.name,
            "address": one.host or None,
            "port": one.port or None,
            "kind": one.kind,
        }
        logs.write(logging.INFO, "listening", fields)
