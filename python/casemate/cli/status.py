"""`casemate status`: says how the broker of a home is doing, once or as long as somebody looks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption

if TYPE_CHECKING:
    from casemate.broker import Status

_INTERVAL_S = 1.0
"""How often a running broker writes its status, in seconds."""


def status(
    home: HomeOption = None,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Go on until Ctrl-C, each second.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether the broker of a home runs, where it listens, and what it counts.

    Ends with 0 where it runs, with 1 where it does not (or stops while it is watched), and with 3
    where there is no home or its status cannot be read. With --watch a terminal shows one picture
    that changes, and a file or a pipe gets one line each second; rates are over five seconds.
    With --json it is one object, or one object a line.
    """
    from casemate.broker import read_status
    from casemate.cli import dashboard

    folder = console.open_home(home).path
    if watch:
        _watch(folder, as_json=as_json)
        return
    found = read_status(folder)
    if as_json:
        typer.echo(json.dumps({**dashboard.snapshot(found, {}), "rates": None}))
        return
    for line in dashboard.lines(found, int(time.time())):
        typer.echo(console.printable(line))


def _watch(folder: Path, *, as_json: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from casemate.cli import dashboard

    rates = dashboard.Rates()
    screen = Console()
    if as_json or not screen.is_terminal:
        for at_s, found in _statuses(folder):
            grown = rates.take(at_s, found)
            said = dashboard.snapshot(found, grown) if as_json else dashboard.line(found, grown)
            typer.echo(json.dumps(said) if as_json else said)
        return
    # Rich honours NO_COLOR by itself.
    with Live(console=screen, auto_refresh=False) as live:
        for at_s, found in _statuses(folder):
            picture = dashboard.view(found, rates.take(at_s, found), int(time.time()))
            live.update(picture, refresh=True)


def _statuses(folder: Path) -> Iterator[tuple[float, Status]]:
    """Yields each status and when it was written, until a signal; raises when the broker stops."""
    from casemate.broker import read_status
    from casemate.broker.status import STATUS_FILE
    from casemate.cli.serve import until_stopped
    from casemate.errors import BrokerStopped

    with until_stopped() as stopped:
        while True:
            found = read_status(folder)
            try:
                written_s = (folder / STATUS_FILE).stat().st_mtime
            except OSError as error:
                raise BrokerStopped(f"the broker of {folder} has stopped") from error
            yield written_s, found
            if stopped.wait(_INTERVAL_S):
                return
