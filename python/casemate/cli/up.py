"""`casemate up`: makes a home where there is none, serves it, and says what to do next."""

from __future__ import annotations

from typing import Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption

_EXAMPLE_DEVICE = "thermostat-7"


def up(
    home: HomeOption = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="A host name or address that devices use; may be repeated."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log each connection and refusal.")
    ] = False,
) -> None:
    """Make a home if there is none, then serve it until SIGINT or SIGTERM.

    The first run makes an authority, a server certificate, an operator and a policy, and prints
    every path, the fingerprint of the authority, and the lines to paste next.
    """
    from casemate.broker import Broker
    from casemate.cli.posture import log_event, next_steps, print_posture, print_report
    from casemate.cli.serve import log_to_stderr, serve
    from casemate.config import FILE_NAME
    from casemate.home import OPERATOR, Home

    log_to_stderr(verbose)
    folder = console.home_folder(home)
    if not (folder / FILE_NAME).exists():
        print_report(Home.init(folder, names=list(names or ())))
    elif names:
        raise typer.BadParameter("the home is there already; its certificate has its names")
    broker = Broker(folder, on_event=log_event if verbose else None)

    def ready() -> None:
        print_posture(broker, as_json=False)
        for line in next_steps(broker, _EXAMPLE_DEVICE, viewer=OPERATOR):
            typer.echo(line)

    serve(broker, ready)
