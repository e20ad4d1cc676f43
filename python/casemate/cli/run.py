"""`casemate run`: serves an existing home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", envvar="CASEMATE_HOME", metavar="DIR", help="Home (default: here)."),
]


def run(
    home: HomeOption = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log each connection and refusal.")
    ] = False,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Say where it listens as one JSON line.")
    ] = False,
) -> None:
    """Serve an existing home until SIGINT or SIGTERM.

    Changes of accounts and policy come into force within a second; a wrong one is reported, and
    the last good state stays.
    """
    from casemate.broker import Broker
    from casemate.cli.posture import log_event, print_posture
    from casemate.cli.serve import log_to_stderr, serve

    log_to_stderr(verbose)
    broker = Broker((home or Path()).absolute(), on_event=log_event if verbose else None)
    serve(broker, lambda: print_posture(broker, json_lines=json_lines))
