"""`casemate status`: says how the broker of a home is doing."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption

_STALE_S = 10

_SHOWN = (
    ("connections_now", "connections"),
    ("sessions_now", "sessions"),
    ("subscriptions_now", "subscriptions"),
    ("retained_now", "retained messages"),
    ("publishes_received", "messages received"),
    ("publishes_sent", "messages sent"),
    ("bytes_received", "bytes received"),
    ("bytes_sent", "bytes sent"),
    ("authentication_refused", "logins refused"),
    ("publish_denied", "publishes denied"),
    ("subscribe_denied", "subscriptions denied"),
)


def status(
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether the broker of a home runs, where it listens, and what it counts.

    Ends with 0 where it runs and 1 where it does not.
    """
    from casemate.broker import read_status
    from casemate.cli.posture import describe

    found = read_status(console.home_folder(home))
    if as_json:
        typer.echo(json.dumps({**asdict(found), "running": True}))
        return
    now = int(time.time())
    typer.echo(f"running    pid {found.pid}, for {_span(now - found.started_unix_s)}")
    for listening in found.listeners:
        typer.echo(f"listening  {describe(listening)}")
    for weakening in found.weakenings:
        typer.echo(f"weakened   {weakening}")
    for problem in found.problems:
        typer.echo(f"problem    {problem}")
    for key, words in _SHOWN:
        if key in found.counters:
            typer.echo(f"{found.counters[key]:>12,}  {words}")
    age_s = now - found.updated_unix_s
    if age_s > _STALE_S:
        typer.echo(f"problem    the status is {_span(age_s)} old; can the home be written?")


def _span(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"
