"""`casemate up`: makes a home where there is none, serves it, and says what to do next."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from casemate.cli import console, init
from casemate.cli.console import (
    HomeOption,
    JsonOption,
    LogFormatOption,
    LogLevelOption,
    Verbose,
    WrongUsage,
)

if TYPE_CHECKING:
    from casemate.home import Report

_EXAMPLE_DEVICE = "thermostat-7"


def up(
    home: HomeOption = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="A host name or address that devices use; may be repeated."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", help="First run: address to listen on (default: every one)."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="First run: port (default: 8883)."),
    ] = None,
    wss_port: Annotated[
        int | None,
        typer.Option(
            "--wss-port", min=0, max=65_535, help="First run: port of WebSocket (default: 8084)."
        ),
    ] = None,
    verbose: Verbose = False,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a home if there is none, then serve it until SIGINT or SIGTERM.

    The first run makes an authority, a server certificate, an operator and a policy, and prints
    every path, the fingerprint of the authority, and the lines to paste next. With --json it is an
    object for the home that was made, if one was, and one when the broker listens.
    """
    from casemate.broker import Broker
    from casemate.cli import journal, systemd
    from casemate.cli.posture import next_steps, print_posture, print_report
    from casemate.cli.serve import serve
    from casemate.config import FILE_NAME
    from casemate.home import OPERATOR

    folder = console.home_folder(home)
    if not (folder / FILE_NAME).exists():
        with console.undisturbed():
            made = make_home(folder, names or (), host, port, wss_port)
            if as_json:
                init.print_report(made, as_json=True)
            else:
                print_report(made)
    elif names or (host, port, wss_port) != (None, None, None):
        raise WrongUsage(
            "the home is there already: casemate.toml has its addresses, its certificate its names"
        )
    configured = console.open_home(folder).configuration().log
    asked = journal.settings(configured, log_format, log_level, verbose=verbose)
    with journal.begun(asked) as events:
        broker = Broker(folder, raw_events=events.take, inherited=systemd.inherited)

        def ready() -> None:
            journal.say_listening(broker, events)
            print_posture(broker, as_json=as_json)
            if as_json:
                return
            for line in next_steps(broker, _EXAMPLE_DEVICE, viewer=OPERATOR):
                typer.echo(line)

        serve(broker, ready)


def make_home(
    folder: Path,
    names: Iterable[str] = (),
    host: str | None = None,
    port: int | None = None,
    wss_port: int | None = None,
) -> Report:
    """Makes a home that listens where it was asked to.

    Args:
        folder: Where; it holds nothing of a home yet.
        names: Host names and addresses by which clients reach the broker.
        host: Address to listen on; None is the default of a new home.
        port: Of TLS, 0-65535; None is the default of a new home.
        wss_port: Of WebSocket over TLS, likewise.

    Raises:
        WrongUsage: The host is no address.
        HomeError: As `Home.init`.
    """
    from casemate import config, files
    from casemate.home import Home

    text = config.default_text()
    if host is not None:
        try:
            address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        except ValueError as error:
            raise WrongUsage(f'--host is an IP address, not "{host}"') from error
        text = text.replace('host = "0.0.0.0"', f'host = "{address}"')
    if port is not None:
        text = text.replace("port = 8883", f"port = {port}", 1)
    if wss_port is not None:
        text = text.replace("port = 8084", f"port = {wss_port}", 1)
    report = Home.init(folder, names)
    files.write_whole(folder / config.FILE_NAME, text.encode(), files.PRIVATE_MODE)
    return report
