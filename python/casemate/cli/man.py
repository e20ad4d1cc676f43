"""`casemate man`: shows the manual page of a command, or writes all of them into a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from casemate.cli import console
from casemate.cli.console import JsonOption, WrongUsage

if TYPE_CHECKING:
    from casemate.cli.manual import Page

_PAGE_MODE = 0o644


def man(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", show_default=False)
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Write every page below it, into man1."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the manual page of a command, or write all pages into a folder.

    A terminal gets the page as man shows it, a file or a pipe gets its source. Examples:

    casemate man pub

    casemate man --to ~/.local/share/man
    """
    from casemate.cli.manual import pages

    if to is not None:
        if words:
            raise WrongUsage("--to writes every page; leave the command out")
        _write(to, pages(), as_json=as_json)
        return
    page = next((one for one in pages() if one.words == tuple(words or ())), None)
    if page is None:
        raise WrongUsage(f'there is no command "{" ".join(words or ())}"')
    reader = shutil.which("man") if sys.stdout is not None and sys.stdout.isatty() else None
    if as_json:
        console.answer({"name": page.name, "text": page.text}, (), as_json=True)
    elif reader is None:
        typer.echo(page.text, nl=False)
    else:
        _show(page, reader)


def _write(folder: Path, found: list[Page], *, as_json: bool) -> None:
    from casemate import files
    from casemate.errors import HomeError

    below = folder.expanduser().absolute() / "man1"
    try:
        below.mkdir(parents=True, exist_ok=True)
        for page in found:
            files.write_whole(below / page.file, page.text.encode(), _PAGE_MODE)
    except OSError as error:
        raise HomeError(
            f"the pages cannot be written into {below}",
            cause=(error.strerror or "").lower(),
            hint="name another folder with --to",
        ) from error
    written = [str(below / page.file) for page in found]
    console.answer({"written": written}, (f"written  {one}" for one in written), as_json=as_json)


def _show(page: Page, reader: str) -> None:
    with TemporaryDirectory(prefix="casemate-man-") as folder:
        file = Path(folder) / page.file
        file.write_text(page.text, encoding="ascii")
        # The one program of the system that knows how the reader likes to read.
        subprocess.run([reader, str(file)], check=False)  # noqa: S603
