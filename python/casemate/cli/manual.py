"""The manual pages in roff, written off the program itself: one for each command, one for all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer.main

from casemate import __version__
from casemate.cli.app import program

SECTION = 1

EXITS = {
    0: "done; help or the version was printed",
    1: "refused or failed: no broker runs, the broker said no, nothing answers, a name is taken",
    2: "the command line is wrong; nothing was done",
    3: "configuration, policy, home or store is wrong, or a file cannot be read: mend it first",
    27: "no answer, or not enough messages, within the time; as mosquitto's programs end with -W",
    130: "ended by Ctrl-C",
    141: "whoever read the output has gone, as in casemate sub … | head",
}
"""What each exit code means; the guide of the command line has the same table."""

_WEIGHED = "doctor"
"""The command that weighs what it finds by exit codes of its own, which its description says."""

_SPECIAL = {
    "\\": "\\(rs", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq",
}  # fmt: skip
_EXAMPLE = "casemate "


@dataclass(frozen=True, slots=True)
class Page:
    """Is one manual page.

    Attributes:
        words: The words of the command; empty for the program itself.
        text: In roff, of the macros of man(7).
    """

    words: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        """Gives what `man` is asked for, such as `casemate-device-add`."""
        return "-".join(("casemate", *self.words))

    @property
    def file(self) -> str:
        """Gives the name of its file."""
        return f"{self.name}.{SECTION}"


def pages() -> list[Page]:
    """Gives all pages, that of the program first."""
    root: Any = typer.main.get_command(program())
    return list(_pages(root, root.make_context("casemate", [], resilient_parsing=True), ()))


def _pages(command: Any, context: Any, words: tuple[str, ...]) -> Iterator[Page]:  # noqa: ANN401
    commands = {
        name: (one, one.make_context(name, [], parent=context, resilient_parsing=True))
        for name, one in getattr(command, "commands", {}).items()
    }
    yield Page(words, "\n".join([*_lines(command, context, words, commands), ""]))
    for name, (one, inner) in commands.items():
        yield from _pages(one, inner, (*words, name))


def _lines(
    command: Any,  # noqa: ANN401 - a command of typer's, whose classes are its own.
    context: Any,  # noqa: ANN401
    words: tuple[str, ...],
    commands: dict[str, tuple[Any, Any]],
) -> Iterator[str]:
    name = "-".join(("casemate", *words))
    paragraphs = (command.help or "").split("\n\n")
    version = f"casemate {__version__}"
    # Without a date: the same program writes the same pages.
    yield f'.TH {_said(name.upper())} {SECTION} "" "{_said(version)}" "casemate"'
    yield ".SH NAME"
    yield f"{_said(name)} \\- {_said(_heading(paragraphs[0]))}"
    yield ".SH SYNOPSIS"
    yield f".B {_said(' '.join(('casemate', *words)))}"
    yield _said(" ".join(command.collect_usage_pieces(context)))
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(paragraphs):
        yield from ([".PP"] if number else [])
        yield from _paragraph(paragraph)
    if commands:
        yield ".SH COMMANDS"
        for inner, (one, _) in commands.items():
            yield from (".TP", f".B {_said(inner)}", _said(one.get_short_help_str(limit=200)))
    yield from _options(command, context)
    if words != (_WEIGHED,):
        yield from _exits()
    yield from _environment(command)
    yield from _others(words, commands)


def _heading(paragraph: str) -> str:
    """Makes of a first sentence what `whatis` shows: without its full stop."""
    return " ".join(paragraph.split()).partition(". ")[0].rstrip(".")


def _paragraph(text: str) -> Iterator[str]:
    if text.startswith(_EXAMPLE):
        yield from (".RS 4", ".nf", _said(" ".join(text.split())), ".fi", ".RE")
    else:
        yield _said(" ".join(text.split()))


def _options(command: Any, context: Any) -> Iterator[str]:  # noqa: ANN401 - as above.
    found = [
        (one, record)
        for one in command.get_params(context)
        if one.param_type_name == "option" and (record := one.get_help_record(context))
    ]
    if found:
        yield ".SH OPTIONS"
    for one, (_, words) in found:
        names = ", ".join(f"\\fB{_said(name)}\\fR" for name in one.opts)
        value = "" if one.is_flag else f" \\fI{_said(one.display_type_rich(context))}\\fR"
        yield from (".TP", f"{names}{value}", _said(" ".join(words.split())))


def _exits() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, words in EXITS.items():
        yield from (".TP", f".B {code}", f"{_said(words)}.")


def _environment(command: Any) -> Iterator[str]:  # noqa: ANN401 - as above.
    yield ".SH ENVIRONMENT"
    for one in command.params:
        if one.envvar and not getattr(one, "hidden", False):
            yield from (".TP", f".B {_said(one.envvar)}", f"Stands for {_said(one.opts[-1])}.")
    yield from (".TP", ".B NO_COLOR", "Where it is set, nothing is coloured.")


def _others(words: tuple[str, ...], commands: dict[str, tuple[Any, Any]]) -> Iterator[str]:
    above = [words[:number] for number in range(len(words))]
    named = [*above, *((*words, name) for name in commands)]
    if named:
        yield ".SH SEE ALSO"
        pages = ("-".join(("casemate", *one)) for one in named)
        yield ",\n".join(f"\\fB{_said(one)}\\fR({SECTION})" for one in pages)


def _said(text: str) -> str:
    """Writes text so that roff shows it as it is, whatever stands in it."""
    written = "".join(_SPECIAL.get(c, c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)
    # A dot at the beginning of a line would be a request.
    return re.sub(r"^\.", r"\\&.", written)
