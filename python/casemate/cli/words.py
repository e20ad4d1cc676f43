"""From the words of a command line to values, without the pydantic that typer would load for it.

Typer turns every word, and every option that was not given, into its type by pydantic. That is half
of the time that a short command takes from its start to its end. The types of our options are few:
text, numbers in a range, paths, choices, and lists of these.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer.models import ParameterInfo

PROPERTY = "-D"
"""The option whose words are counted by what they say, as mosquitto's programs have it."""

_SEPARATOR = "\0"
"""Joins the words of one property: the system lets no word of a command line hold it."""

_PAIR = "user-property"

Convert = Callable[[str], object]


class Command(TyperCommand):
    """Is a command whose words are read here."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as typer's.
        """Gives the parameters, that of `--help` among them."""
        return _read_here(super().get_params(ctx))

    def make_parser(self, ctx: Any) -> Any:  # noqa: ANN401 - the parser is typer's own.
        """Gives the parser, in which one `-D` takes three words, or four for a user property."""
        parser = super().make_parser(ctx)
        option = getattr(parser, "_short_opt", {}).get(PROPERTY)
        if option is not None:
            process = option.process

            def gather(value: str, state: Any) -> None:  # noqa: ANN401 - as above.
                words = [value, *state.rargs[:1]]
                count = 4 if words[-1] == _PAIR else 3
                words = [value, *state.rargs[: count - 1]]
                del state.rargs[: count - 1]
                process(_SEPARATOR.join(words), state)

            option.process = gather
        return parser


class Group(TyperGroup):
    """Is a group of commands whose own words are read here."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as typer's.
        """Gives the parameters, those of completion and `--help` among them."""
        return _read_here(super().get_params(ctx))


def property_words(option: str) -> list[str]:
    """Gives the words of one `-D`."""
    return option.split(_SEPARATOR)


class _Reader:
    """Turns what stands for one parameter into its value; takes the place of typer's own."""

    def __init__(self, convert: Convert, *, is_list: bool) -> None:
        self._convert = convert
        self._is_list = is_list

    def coerce(self, value: Any, param: Any, ctx: Any) -> object:  # noqa: ANN401 - as typer's.
        if value is None:
            return () if self._is_list else None
        try:
            if self._is_list:
                return [self._one(word) for word in value]
            return self._one(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from error

    def _one(self, word: object) -> object:
        # A default has its type already.
        return self._convert(word) if isinstance(word, str) else word


def _read_here(parameters: list[Any]) -> list[Any]:
    for one in parameters:
        described = getattr(one, "type_descriptor", None)
        if described is None:
            continue
        annotation = described.annotation
        is_list = get_origin(annotation) is list
        kind = get_args(annotation)[0] if is_list else annotation
        convert = _converter(kind, described.parameter_info)
        if convert is not None:
            reader = _Reader(convert, is_list=is_list)
            one.get_runtime_param = lambda reader=reader: reader
    return parameters


def _converter(kind: Any, said: ParameterInfo) -> Convert | None:  # noqa: ANN401 - any type.
    """Gives what makes a value of a word; None leaves it to typer."""
    if said.parser is not None:
        return None
    if kind is str or (kind is bool and said.envvar is None):
        # A flag has no words: it was given, or not.
        return str
    if kind is Path and not (said.exists or said.resolve_path):
        return Path
    if kind is int or kind is float:
        return _number(kind, said.min, said.max)
    if get_origin(kind) is Literal:
        return _choice([str(one) for one in get_args(kind)])
    return None


def _number(kind: type[int] | type[float], least: float | None, most: float | None) -> Convert:
    words = "a whole number" if kind is int else "a number"
    if least is not None and most is not None:
        words = f"{words} from {least:,} to {most:,}"
    elif least is not None:
        words = f"{words} of at least {least:,}"

    def convert(word: str) -> object:
        try:
            value = kind(word)
        except ValueError:
            raise ValueError(f'"{word}" is not {words}') from None
        # Written so that a NaN, which is no less than anything, is refused.
        if not ((least is None or value >= least) and (most is None or value <= most)):
            raise ValueError(f'"{word}" is not {words}')
        return value

    return convert


def _choice(known: list[str]) -> Convert:
    def convert(word: str) -> object:
        if word not in known:
            raise ValueError(f'"{word}" is not one of {", ".join(known)}')
        return word

    return convert
