"""The options of `sub` and `rr` that say how a message is printed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from casemate.cli.form import Piece

FormOption = Annotated[
    str | None,
    typer.Option(
        "-F",
        metavar="FORMAT",
        help="json, hex, raw, pretty, or a text with %t topic, %p payload, %x hex, %q QoS, "
        "%l length, %I time, %j JSON, \\n …",
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Print the topic before each message.")
]
NoNewline = Annotated[bool, typer.Option("-N", help="No line end after a message.")]
PrettyOption = Annotated[bool, typer.Option("--pretty", help="JSON over several lines.")]


@dataclass(slots=True, kw_only=True)
class Printing:
    """Collects how a message is printed; each field is an option of the command line."""

    form: FormOption = None
    verbose: VerboseOption = False
    no_newline: NoNewline = False
    pretty: PrettyOption = False

    def writer(self, *, as_json: bool) -> Piece:
        """Gives what writes a message, its line end included.

        Args:
            as_json: `--json` was said; `-F` stands above it.

        Raises:
            WrongUsage: The format cannot be.
        """
        from casemate.cli.form import NAMED, read_form

        is_watched = sys.stdout is not None and sys.stdout.isatty()
        form = self._named(as_json=as_json, is_watched=is_watched)
        end = b"" if self.no_newline or form == "raw" else b"\n"
        write: Piece
        if form == "json":
            from casemate.cli.record import line

            write = line
        elif form == "pretty":
            from casemate.cli.picture import is_coloured, pictures

            write = pictures(coloured=is_coloured())
        else:
            # What is piped on must arrive as it was published; what a person looks at must be safe.
            write = read_form(NAMED.get(form, form), raw=not is_watched, pretty=self.pretty)
        return lambda message, at_ns: write(message, at_ns) + end

    def _named(self, *, as_json: bool, is_watched: bool) -> str:
        if self.form is not None:
            return self.form
        if as_json:
            return "json"
        if self.verbose:
            return "text"
        return "pretty" if is_watched and not self.no_newline else "%p"
