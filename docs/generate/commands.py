"""Every command of the program, with its arguments and options, read off the program itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

from casemate.cli.app import program

# As the parser has them, which gives these types no public name.
Command = Any
Context = Any
Parameter = Any


def text() -> str:
    """Gives the page: a section for each command, an entry for each option."""
    root = typer.main.get_command(program())
    return "\n".join(line for line in _command(root, ("casemate",), None))


def names() -> list[str]:
    """Gives the words of each command that does something."""
    root = typer.main.get_command(program())
    return [" ".join(words) for words, command in _walk(root, ("casemate",)) if _does(command)]


def _walk(command: Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Command]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(inner, (*words, name))


def _does(command: Command) -> bool:
    return not getattr(command, "commands", {})


def _command(command: Command, words: tuple[str, ...], parent: Context) -> Iterator[str]:
    context = command.context_class(command, info_name=words[-1], parent=parent)
    path = " ".join(words)
    yield f"{'#' * (len(words) + 1)} {path}"
    yield ""
    if _does(command):
        usage = " ".join(command.collect_usage_pieces(context))
        yield from ("```text", f"{path} {usage}".rstrip(), "```", "")
    yield inspect.cleandoc(command.help or "")
    yield ""
    yield from (f"```{{program}} {path}", "```", "")
    for parameter in command.get_params(context):
        if not getattr(parameter, "hidden", False):
            yield from _parameter(parameter, context)
    for name, inner in getattr(command, "commands", {}).items():
        yield from _command(inner, (*words, name), context)


def _parameter(parameter: Parameter, context: Context) -> Iterator[str]:
    record = parameter.get_help_record(context)
    if record is None:
        raise ValueError(f"{context.command_path} has an option without a name")
    written, meaning = record
    if parameter.param_type_name == "argument":
        yield from (f"`{written}`", f": {meaning}", "")
        return
    yield from (f"```{{option}} {written}", meaning.replace("[", "\\["), "```", "")
