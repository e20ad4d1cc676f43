"""What may stand in the configuration, read off its models: each option, its kind, its meaning."""

from __future__ import annotations

import re
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from casemate.config.configuration import Configuration

Kind = Literal["number", "flag", "text", "list"]

_KINDS: dict[object, Kind] = {bool: "flag", int: "number", str: "text", Path: "text"}
_ATTRIBUTE = re.compile(r"^    (\w+): (.*)$")


@dataclass(frozen=True, slots=True)
class Option:
    """Describes one option.

    Attributes:
        section: Key of the table that it stands in; empty at the top.
        name: Its key.
        is_repeated: Whether there are many such tables, as with listeners.
        kind: What is written: a whole number, true or false, text, or a list of texts.
        default: What counts where nothing is said; None where that depends, or is nothing.
        meaning: What its model's docstring says about it.
    """

    section: str
    name: str
    is_repeated: bool
    kind: Kind
    default: object
    meaning: str


@cache
def options() -> tuple[Option, ...]:
    """Gives every option, in the order of the models."""
    return tuple(_options())


def sections() -> dict[str, type[BaseModel]]:
    """Gives the model of each table by its key; under "" the whole configuration."""
    found: dict[str, type[BaseModel]] = {"": Configuration}
    for name, field in Configuration.model_fields.items():
        model, _ = model_of(field.annotation)
        if model is not None:
            found[name] = model
    return found


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Gives what a model's docstring says about each of its attributes, in one line each."""
    _, _, listed = textwrap.dedent(f"    {model.__doc__ or ''}").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in listed.splitlines():
        begun = _ATTRIBUTE.match(line)
        if begun:
            name = begun[1]
            found[name] = begun[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _options() -> Iterator[Option]:
    for name, model in sections().items():
        repeated = name != "" and model_of(Configuration.model_fields[name].annotation)[1]
        explained = meanings(model)
        for key, field in model.model_fields.items():
            if name == "" and model_of(field.annotation)[0] is not None:
                continue
            default = None if field.is_required() else field.default
            kind = _kind(field.annotation)
            yield Option(name, key, repeated, kind, default, explained.get(key, ""))


def model_of(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    """Finds the model of a table, or of the tables of a list; says whether it is a list."""
    if get_origin(annotation) is tuple:
        return model_of(get_args(annotation)[0])[0], True
    if get_origin(annotation) is Annotated:
        return model_of(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    return None, False


def _kind(annotation: Any) -> Kind:  # noqa: ANN401 - an annotation may be anything.
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _kind(next(one for one in get_args(annotation) if one is not type(None)))
    if origin is tuple:
        return "list"
    return "text" if origin is Literal else _KINDS[annotation]
