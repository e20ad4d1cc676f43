"""`casemate reload`: has a running broker take its configuration and certificates anew."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption

_REFUSED = 1


def reload(
    home: HomeOption = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds to wait.")
    ] = 30.0,
    as_json: JsonOption = False,
) -> int:
    """Have the broker of a home take configuration, certificates, policy and accounts anew.

    Waits for what comes of it. Live connections stay. What is wrong is said and stays as it was.
    Ends with 0 where everything is in force and 1 where something is not.
    """
    from casemate.broker import ask_to_reload

    outcome = ask_to_reload(console.open_home(home).path, timeout_s)
    if as_json:
        said = {name: value for name, value in asdict(outcome).items() if name != "token"}
        typer.echo(json.dumps(said))
    else:
        for words in outcome.changed:
            typer.echo(f"in force   {console.printable(words)}")
        for option in outcome.needs_restart:
            typer.echo(f"restart    {console.printable(option)} counts from the next start")
        for words in outcome.refused:
            typer.echo(f"refused    {console.printable(words)}", err=True)
        if not (outcome.changed or outcome.needs_restart or outcome.refused):
            typer.echo("in force   nothing has changed")
    return _REFUSED if outcome.refused else 0
