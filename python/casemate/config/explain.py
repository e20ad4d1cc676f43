"""From what validation found to one error: file and line, or variable; what was found; a hint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from casemate.config.shape import model_of
from casemate.config.variables import Variables, variable
from casemate.document import Document, Place, nearest
from casemate.errors import ConfigurationError


def first(
    document: Document,
    problems: list[ErrorDetails],
    whole: type[BaseModel],
    named: Variables | None = None,
) -> ConfigurationError:
    """Makes one error of the first problem: of the variables, then of the file.

    Args:
        document: That was checked.
        problems: What is wrong in it, at least one.
        whole: What may stand in it.
        named: The variables whose values were laid over it.
    """
    described = [_describe(document, problem, whole, named or {}) for problem in problems]
    described.sort(key=lambda error: error.line or 0)
    error = described[0]
    if len(described) > 1:
        more = len(described) - 1
        error.message += f" (and {more} more {'problem' if more == 1 else 'problems'})"
    return error


def blame(
    document: Document, named: Variables, place: Place, message: str, hint: str
) -> ConfigurationError:
    """Makes the error of a place, named by the variable or the line that it comes from."""
    name = _variable(document, named, place)
    if name is None:
        return ConfigurationError(message, file=document.file, line=document.line(place), hint=hint)
    hint = hint.replace("remove the line", "unset it")
    if place not in named and hint.startswith("add "):
        hint = f"{hint}, such as with {variable(place)}"
    return ConfigurationError(f"{name}: {message}", hint=hint)


def _variable(document: Document, named: Variables, place: Place) -> str | None:
    """Finds the variable at a place, or below the nearest table that only variables have made."""
    while place:
        if place in named:
            return named[place]
        if place in document.lines:
            return None
        below = [one for one in named if one[: len(place)] == place]
        if below:
            return named[min(below, key=str)]
        place = place[:-1]
    return None


def _describe(
    document: Document, problem: ErrorDetails, whole: type[BaseModel], named: Variables
) -> ConfigurationError:
    context = problem.get("ctx", {})
    place = (*problem["loc"], *context.get("place", ()))
    # An element of a list has no key of its own; it goes by the list's.
    key = next((one for one in reversed(place) if isinstance(one, str)), "listeners")
    model, section = _table(place, document.file.name, whole)
    kind = problem["type"]
    if kind == "extra_forbidden":
        keys = list(model.model_fields)
        known = nearest(key, keys)
        return blame(
            document,
            named,
            place,
            f"unknown key {key[:64]!a} in {section}",
            f'did you mean "{known}"?' if known else f"known keys: {', '.join(keys)}",
        )
    if kind == "missing":
        return blame(document, named, place, f"{key} is missing in {section}", f"add {key} = …")
    if kind == "contradiction":
        return blame(document, named, place, str(context["what"]), _beside(named, place, context))
    found = _found(context.get("found", problem["input"]))
    message = f"{key} in {section}: {_expected(problem, context)}, found {found}"
    return blame(document, named, place, message, _hint(problem, context))


def _beside(named: Variables, place: Place, context: Mapping[str, Any]) -> str:
    """Gives the hint of a contradiction, with the variables that may be its other half."""
    hint = str(context["hint"])
    others = [name for one, name in named.items() if one[:-1] == place[:-1] and one != place]
    return f"{hint} (set too: {', '.join(sorted(others)[:4])})" if others else hint


def _expected(problem: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind = problem["type"]
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"out of range, at {'least' if 'ge' in context else 'most'} {_bound(context)}"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    if kind == "string_too_short":
        return f"expected a written reason of at least {context['min_length']} characters"
    if kind == "too_long":
        return f"expected at most {context['max_length']}"
    expected = {
        "int_type": "expected a whole number",
        "string_type": "expected text in quotes",
        "model_type": "expected a table",
        "bool_type": "expected true or false",
        "tuple_type": "expected tables [[listeners]]"
        if problem["loc"] == ("listeners",)
        else "expected a list in [brackets]",
    }
    message = problem["msg"]
    return expected.get(kind, message[:1].lower() + message[1:])


def _bound(context: Mapping[str, Any]) -> str:
    return f"{context.get('ge', context.get('le')):,}"


def _hint(problem: ErrorDetails, context: Mapping[str, Any]) -> str:
    if "hint" in context:
        return str(context["hint"])
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        choices = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        meant = nearest(problem["input"], choices)
        return f'did you mean "{meant}"?' if meant else ""
    if problem["type"] in ("greater_than_equal", "less_than_equal"):
        side = "lowest" if "ge" in context else "highest"
        return f"use {_bound(context)} ({side}), or remove the line for the default"
    return ""


def _found(value: object) -> str:
    """Shows what stands in the file, in plain ASCII and cut to fit a line."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    shown = str(value).lower() if isinstance(value, bool) else ascii(value)
    return shown if len(shown) <= 48 else f"{shown[:47]}…"


def _table(place: Place, file: str, whole: type[BaseModel]) -> tuple[type[BaseModel], str]:
    """Finds the model of the table that a place is in, and how its heading is written."""
    model, names, is_repeated = whole, list[str](), False
    for key in place[:-1]:
        if isinstance(key, int):
            continue
        field = model.model_fields.get(key)
        inner, many = (None, False) if field is None else model_of(field.annotation)
        if inner is None:
            break
        model, is_repeated = inner, many
        names.append(key)
    heading = ".".join(names)
    if not names:
        return model, file
    return model, f"[[{heading}]]" if is_repeated else f"[{heading}]"
