"""What every command shares: its options, how it answers, how it says that it failed."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from casemate.errors import (
    AuthorityLocked,
    CasemateError,
    ConfigurationError,
    DeadlinePassed,
    HomeError,
    HomeExists,
    PolicyError,
    Refused,
    StoreError,
    StoreInUse,
)

if TYPE_CHECKING:
    from casemate.home import Home

DONE = 0
FAILED = 1
USAGE = 2
UNUSABLE = 3
TIME_OVER = 27
"""As mosquitto's programs end when `-W` has passed."""
INTERRUPTED = 130
PIPE_CLOSED = 141
"""As a program ends that a closed pipe kills: 128 and the number of SIGPIPE."""

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", envvar="CASEMATE_HOME", metavar="DIR", help="Home (default: here)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, errors too.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="CASEMATE_PASSPHRASE_FILE",
        metavar="FILE",
        help="File with the passphrase of the CA's key.",
    ),
]

LogFormatOption = Annotated[
    Literal["console", "json"] | None,
    typer.Option("--log-format", help="Form of the log on stderr (default: as in casemate.toml)."),
]
LogLevelOption = Annotated[
    Literal["debug", "info", "warning", "error"] | None,
    typer.Option("--log-level", help="How much is logged (default: as in casemate.toml)."),
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Log each connection: --log-level info.")
]

_SECRET_BYTES_MAX = 4_096


class WrongUsage(typer.TyperException):
    """Says that a command line cannot be, and what would; nothing was done.

    Args:
        message: What is wrong, in one sentence without a full stop.
        hint: What to write instead; empty points to the command's help.
    """

    exit_code = USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def home_folder(home: Path | None) -> Path:
    """Gives the folder that a command means."""
    return (home or Path()).absolute()


def open_home(home: Path | None) -> Home:
    """Opens the home that a command means; raises as `Home.open`."""
    from casemate.home import Home

    return Home.open(home_folder(home))


def answer(values: Mapping[str, object], lines: Iterable[str], *, as_json: bool) -> None:
    """Prints a result: as JSON, or as lines for people.

    Args:
        values: What JSON shows; only what JSON can say.
        lines: What people read.
        as_json: Which of them.
    """
    if as_json:
        typer.echo(json.dumps(values))
        return
    for line in lines:
        typer.echo(printable(line))


def answer_table(
    columns: Sequence[str], rows: Sequence[Mapping[str, object]], *, as_json: bool
) -> None:
    """Prints rows: as a JSON list, or as a table for people.

    Args:
        columns: Keys of the rows that people see, which are the headings too.
        rows: What is known of each; a list is shown with spaces.
        as_json: Which of them.
    """
    if as_json:
        typer.echo(json.dumps(list(rows)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(_cell(row[column]))) for column in columns))
    # Rich honours NO_COLOR by itself, and draws no colours where no terminal is.
    Console().print(table)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait until what has begun is whole and told.

    Only what is short belongs in it: nobody is asked, and nothing is waited for.

    Raises:
        KeyboardInterrupt: Ctrl-C came meanwhile; everything was done.
        SystemExit: SIGTERM did, with 143.
    """
    pressed: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        pressed.append(number)

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    heard = [one for one, handler in before.items() if handler is not signal.SIG_IGN]
    for one in heard:
        signal.signal(one, note)
    try:
        yield
    finally:
        for one in heard:
            signal.signal(one, before[one])
    if signal.SIGINT in pressed:
        raise KeyboardInterrupt
    if pressed:
        raise SystemExit(128 + pressed[0])


@contextmanager
def refusing() -> Iterator[None]:
    """Turns a refusal of the client's, which for a program is a ValueError, into a usage error."""
    try:
        yield
    except ValueError as error:
        raise WrongUsage(str(error)) from error


def warn(message: str, *, as_json: bool) -> None:
    """Says on stderr what goes on all the same, but should be known."""
    if as_json:
        typer.echo(json.dumps({"warning": {"message": message}}), err=True)
        return
    typer.echo(f"warning: {printable(message)}", err=True)


def print_error(error: CasemateError, *, as_json: bool) -> None:
    """Says on stderr what went wrong and what helps."""
    number = error.reason_code if isinstance(error, Refused) else None
    print_failure(error.code, str(error), error.hint, as_json=as_json, reason_code=number)


def print_failure(
    code: str, message: str, hint: str, *, as_json: bool, reason_code: int | None = None
) -> None:
    """Says on stderr what went wrong: one line, one more for the hint, or one JSON object.

    Args:
        code: That of the error, for programs.
        message: One sentence.
        hint: What to do; may be empty.
        as_json: Whether it is an object.
        reason_code: That of MQTT, where a broker has given one; only in the object.
    """
    if as_json:
        said: dict[str, object] = {"code": code, "message": message, "hint": hint}
        if reason_code is not None:
            said["reason_code"] = reason_code
        typer.echo(json.dumps({"error": said}), err=True)
        return
    typer.echo(f"error: {printable(message)}", err=True)
    if hint:
        typer.echo(f"hint: {printable(hint)}", err=True)


def exit_code(error: CasemateError) -> int:
    """Gives the exit code of an error."""
    if isinstance(error, DeadlinePassed):
        return TIME_OVER
    if isinstance(error, HomeExists | StoreInUse):
        return FAILED
    unusable = ConfigurationError | PolicyError | HomeError | StoreError
    return UNUSABLE if isinstance(error, unusable) else FAILED


def printable(text: str) -> str:
    """Shows control characters as escapes, so that no text can steer the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def safe(text: str) -> str:
    """Does the same to what has come with a message, in which a tab may stay."""
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in text)


def can_ask() -> bool:
    """Says whether somebody sits at a terminal who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def require_file(file: Path) -> None:
    """Raises ConfigurationError where a file that was named on the command line is missing."""
    if not file.exists():
        raise ConfigurationError("the file is missing", file=file, hint="check its name and folder")


def read_secret(file: Path) -> str:
    """Reads a secret from a file of at most 4 KiB; one line break at its end is left out.

    Raises:
        ConfigurationError: It cannot be read, is too long, or is not UTF-8.
    """
    try:
        with file.open("rb") as source:
            content = source.read(_SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(
            "the secret cannot be read", file=file, cause=(error.strerror or "").lower()
        ) from error
    return _secret(content, file)


def read_secret_from_stdin() -> str:
    """Reads a secret from stdin to its end; otherwise as `read_secret`."""
    if sys.stdin is None:
        raise ConfigurationError("it is closed", file=Path("stdin"))
    return _secret(sys.stdin.buffer.read(_SECRET_BYTES_MAX + 1), Path("stdin"))


def passphrase(file: Path | None, home: Home) -> str | None:
    """Finds the passphrase of a home's authority: from a file, or by asking who sits there.

    Raises:
        AuthorityLocked: One is needed and nobody can be asked.
        ConfigurationError: The file cannot be read.
    """
    from casemate import pki
    from casemate.layout import PKI

    if file is not None:
        return read_secret(file)
    if not pki.is_locked(home.path / PKI):
        return None
    if not can_ask():
        raise AuthorityLocked(
            "the authority's key is encrypted", hint="give its passphrase with --passphrase-file"
        )
    return str(typer.prompt("Passphrase of the authority", hide_input=True))


def day(unix_s: int) -> str:
    """Gives the day of a moment in UTC, as YYYY-MM-DD."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d}"


def _secret(content: bytes, file: Path) -> str:
    if len(content) > _SECRET_BYTES_MAX:
        raise ConfigurationError(f"the secret is longer than {_SECRET_BYTES_MAX} bytes", file=file)
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        # Without the decoder's own words, which would show the secret's bytes.
        raise ConfigurationError("the secret is not UTF-8", file=file) from error


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(str(one) for one in value) or "-"
    return (
        "-" if value is None else "yes" if value is True else "no" if value is False else str(value)
    )
