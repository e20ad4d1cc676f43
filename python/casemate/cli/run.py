"""`casemate run`: serves an existing home."""

from __future__ import annotations

from typing import Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption


def run(
    home: HomeOption = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log each connection and refusal.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve an existing home until SIGINT or SIGTERM.

    Changes of accounts and policy come into force within a second; a wrong one is reported, and
    the last good state stays.
    """
    from casemate.broker import Broker
    from casemate.cli.posture import log_event, print_posture
    from casemate.cli.serve import log_to_stderr, serve

    log_to_stderr(verbose)
    broker = Broker(console.home_folder(home), on_event=log_event if verbose else None)
    serve(broker, lambda: print_posture(broker, as_json=as_json))
