"""The program `casemate`: joins the commands and turns every end into an exit code.

0: done. 1: refused or failed. 2: the command line is wrong. 3: configuration, policy or home is
wrong. 130: ended by Ctrl-C. `doctor` alone weighs what it finds with 0, 1 and 2.

A command's module imports what it needs when it runs: `--help` reads them all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from casemate import __version__
from casemate.cli import (
    config,
    connection,
    console,
    device,
    doctor,
    init,
    lab,
    pub,
    reload,
    renew,
    role,
    run,
    simulate,
    status,
    sub,
    up,
    user,
)
from casemate.errors import CasemateError

app = typer.Typer(
    name="casemate",
    help="A secure MQTT broker, its devices and its clients.",
    no_args_is_help=True,
    # Plain help: a table drawn by rich costs more time than all the rest of it.
    rich_markup_mode=None,
    # A traceback with its variables would show passwords.
    pretty_exceptions_enable=False,
)

app.command(short_help="Make a home: authority, certificate, operator, policy.")(init.init)
app.command(short_help="Make a home if there is none, and serve it.")(up.up)
app.command(short_help="Serve an existing home until a signal.")(run.run)
app.command(short_help="Have a running broker take its files anew.")(reload.reload)
app.command(short_help="Renew the certificate of the home's own broker.")(renew.renew)
app.command(short_help="Say how the broker of a home is doing.")(status.status)
app.command(short_help="Find what is not safe, and say what mends it.")(doctor.doctor)
app.add_typer(config.app)
app.add_typer(device.app)
app.add_typer(user.app)
app.add_typer(role.app)
app.command(short_help="Publish messages.", context_settings=connection.CONTEXT)(pub.pub)
app.command(context_settings=connection.CONTEXT)(sub.sub)
app.command(short_help="Run a fleet of devices, for demos and tests.")(simulate.simulate)
app.command(short_help="Run a throw-away broker on loopback, for tests.")(lab.lab)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"casemate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Keep MQTT devices and programs safe from the first start."""


def execute(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code.

    Args:
        arguments: Words behind the program's name; None takes those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=words, prog_name="casemate", standalone_mode=False)
    except CasemateError as error:
        console.print_error(error, as_json="--json" in words)
        return console.exit_code(error)
    except typer.TyperException as error:
        if not error.format_message():
            # A group without a command has shown its help, which says all.
            return error.exit_code
        # Usage: the parser's own words, in the same form as every other error.
        context = getattr(error, "ctx", None)
        command = "casemate" if context is None else context.command_path
        hint = f'run "{command} --help"'
        console.print_failure("usage", error.format_message(), hint, as_json="--json" in words)
        return error.exit_code
    except typer.Abort:
        console.print_failure("aborted", "nothing was done", "", as_json="--json" in words)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone, as in `… | head`; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command line and ends the process with its exit code."""
    sys.exit(execute(arguments))
