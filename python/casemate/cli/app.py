"""The program `casemate`: joins the commands and turns every end into an exit code.

0: done. 1: refused or failed. 2: the command line is wrong. 3: configuration, policy, home or
store is wrong. 27: no answer within the time. 130: ended by Ctrl-C. 141: nobody reads the output
any more. `doctor` alone weighs what it finds with 0, 1 and 2.

Only the command that was asked for is loaded, and for `--help` none. A command's module imports
what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from casemate import __version__
from casemate.cli import console, words
from casemate.errors import CasemateError


@dataclass(frozen=True, slots=True)
class Entry:
    """Is one command, or a group of them, in a module of its own name.

    Attributes:
        name: Of the command, and of the module and its function or, for a group, its `app`.
        help: One line for the list of commands.
        hides_h: `-h` is no help, but the host, as in mosquitto's programs.
        is_brief: Nothing of the process has a life beside the command: it may end without Python
            taking itself apart.
        is_group: It has commands of its own.
    """

    name: str
    help: str
    hides_h: bool = False
    is_brief: bool = False
    is_group: bool = False


ENTRIES = (
    Entry("init", "Make a home: authority, certificate, operator, policy."),
    Entry("up", "Make a home if there is none, and serve it."),
    Entry("run", "Serve an existing home until a signal."),
    Entry("reload", "Have a running broker take its files anew."),
    Entry("renew", "Renew the certificate of the home's own broker."),
    Entry("status", "Say how the broker of a home is doing."),
    Entry("doctor", "Find what is not safe, and say what mends it."),
    Entry("pub", "Publish messages.", hides_h=True, is_brief=True),
    Entry("sub", "Subscribe, and print each message.", hides_h=True, is_brief=True),
    Entry("rr", "Publish a request and print its answer.", hides_h=True, is_brief=True),
    Entry("simulate", "Run a fleet of devices, for demos and tests."),
    Entry("bench", "Load a broker and measure it.", hides_h=True),
    Entry("lab", "Run a throw-away broker on loopback, for tests."),
    Entry("man", "Show a manual page, or write all of them."),
    Entry("config", "The configuration: casemate.toml and CASEMATE_… variables.", is_group=True),
    Entry("device", "Devices and their certificates.", is_group=True),
    Entry("user", "Users and their passwords.", is_group=True),
    Entry("store", "What is kept on disk: look, verify, back up, move.", is_group=True),
    Entry("role", "Roles of policy.toml, and who holds them.", is_group=True),
)

_COMPLETION = "_CASEMATE_COMPLETE"


def program(wanted: str | None = None) -> typer.Typer:
    """Gives the program.

    Args:
        wanted: The command that is loaded; None loads all. What is no command loads none, and
            knows them by their names and lines of help alone.
    """
    app = typer.Typer(
        name="casemate",
        cls=words.Group,
        help="A secure MQTT broker, its devices and its clients.",
        no_args_is_help=True,
        # Plain help: a table drawn by rich costs more time than all the rest of it.
        rich_markup_mode=None,
        # A traceback with its variables would show passwords.
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    chosen = [one for one in ENTRIES if wanted in (None, one.name)]
    for entry in ENTRIES if not chosen else ():
        app.command(entry.name, short_help=entry.help)(_named_only)
    for entry in chosen:
        module = import_module(f"casemate.cli.{entry.name}")
        if entry.is_group:
            app.add_typer(module.app)
            continue
        app.command(
            cls=words.Command,
            short_help=entry.help,
            context_settings={"help_option_names": ["--help"]} if entry.hides_h else None,
        )(getattr(module, entry.name))
    return app


def _named_only() -> None:
    """Stands for a command where only the list of them is looked at."""


def is_brief(line: Sequence[str]) -> bool:
    """Says whether a command line is that of a client, after which nothing remains to be done."""
    return any(one.is_brief and one.name == line[0] for one in ENTRIES if line)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"casemate {__version__}")
        raise typer.Exit


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
    line = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in line
    try:
        # A shell that completes words looks into every command, and says so in a variable.
        wanted = None if _COMPLETION in os.environ else line[0] if line else ""
        code = program(wanted)(args=line, prog_name="casemate", standalone_mode=False)
    except CasemateError as error:
        # `--quiet` is of pub, sub and rr, as mosquitto has it: the exit code says it all.
        if "--quiet" not in line:
            console.print_error(error, as_json=as_json)
        return console.exit_code(error)
    except typer.TyperException as error:
        return _wrong_usage(error, _named(line), as_json=as_json)
    except typer.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            return console.INTERRUPTED
        console.print_failure("aborted", "nothing was done", "", as_json=as_json)
        return console.FAILED
    except KeyboardInterrupt:
        return console.INTERRUPTED
    except SystemExit as end:
        # Typer and rich end the process where the reader has gone, as in `… | head`.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        return _pipe_closed()
    except BrokenPipeError:
        return _pipe_closed()
    except OSError as error:
        return _system_refused(error, as_json=as_json)
    return code if isinstance(code, int) else console.DONE


def _named(line: Sequence[str]) -> str:
    """Gives the words of a command line that name its command."""
    entry = next((one for one in ENTRIES if line and one.name == line[0]), None)
    if entry is None:
        return "casemate"
    return " ".join(["casemate", *line[: 2 if entry.is_group else 1]])


def _wrong_usage(error: typer.TyperException, named: str, *, as_json: bool) -> int:
    """Says what is wrong with the command line, in the same form as every other error."""
    if type(error).__name__ == "NoArgsIsHelpError":
        # A group alone asks what there is: its help, as it stands.
        typer.echo(error.format_message(), err=True)
        return error.exit_code
    # The parser lists choices line by line.
    message = " ".join(error.format_message().split())
    if not message:
        # A group without a command has shown its help, which says all.
        return error.exit_code
    hint = getattr(error, "hint", "")
    if not hint:
        context = getattr(error, "ctx", None)
        command = named if context is None else context.command_path
        hint = f'run "{command} --help"'
    console.print_failure("usage", message, hint, as_json=as_json)
    return error.exit_code


def _pipe_closed() -> int:
    _leave_stdout()
    return console.PIPE_CLOSED


def _system_refused(error: OSError, *, as_json: bool) -> int:
    """Says what a command could not foresee, such as a full disk under its output."""
    _leave_stdout()
    what = "the output cannot be written" if error.filename is None else str(error.filename)
    message = f"{what}: {(error.strerror or str(error)).lower()}"
    console.print_failure("system", message, "", as_json=as_json)
    return console.FAILED


def _leave_stdout() -> None:
    """Gives what is still buffered nowhere to go, or the end of the process would fail on it."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command line and ends the process with its exit code."""
    sys.exit(execute(arguments))
