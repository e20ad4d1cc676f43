"""What the environment says over `casemate.toml`: variables `CASEMATE_…`, nested by `__`."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from casemate.config import shape
from casemate.config.shape import Option
from casemate.document import Place, nearest
from casemate.errors import ConfigurationError

PREFIX = "CASEMATE_"
BETWEEN = "__"

SECRET_FILES = ("CASEMATE_PASSPHRASE_FILE",)
"""Where commands read a secret from; casemate.toml itself holds none, only paths of keys. The
secret never stands in the environment, which children inherit and `ps e` shows."""

_OWN = frozenset({"CASEMATE_HOME", *SECRET_FILES})
_INDEX_DIGITS_MAX = 4

_NUMBER = re.compile(r"[+-]?(0|[1-9](_?[0-9]){0,24})\Z", re.ASCII)
_POSITION = re.compile(r"0\Z|[1-9][0-9]*\Z", re.ASCII)
_SERVICE_LINK = re.compile(r"CASEMATE_(SERVICE_(HOST|PORT)|PORT)(_|\Z)")

Variables = Mapping[Place, str]
"""Which variable has set which option."""


def variable(place: Place) -> str:
    """Gives the name of the variable that sets an option."""
    return PREFIX + BETWEEN.join(str(one).upper() for one in place)


def overlay(
    values: dict[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], Variables]:
    """Lays what the environment says over the values of a document.

    Args:
        values: Of the document; they stay as they are.
        environment: Names and texts, such as those of this process.

    Returns:
        Values for the models to check, and which variable each of them came from. What a
        variable says is checked there like what the file says.

    Raises:
        ConfigurationError: A name that begins with `CASEMATE_` sets nothing, holds a secret, is
            empty, or leaves a gap between the listeners.
    """
    laid = copy.deepcopy(values)
    variables: dict[Place, str] = {}
    for name, (place, option) in sorted(_places(environment).items(), key=lambda one: one[1][0]):
        if _put(laid, place, _value(name, environment[name], option)):
            variables[place] = name
    return laid, variables


def _places(environment: Mapping[str, str]) -> dict[str, tuple[Place, Option]]:
    found = {}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in _OWN:
            found[name] = _place(name)
    return found


def _place(name: str) -> tuple[Place, Option]:
    words = name.removeprefix(PREFIX).split(BETWEEN)
    for option in shape.options():
        place = _meant(words, option)
        if place is not None:
            return place, option
    raise _unknown(name, words)


def _meant(words: list[str], option: Option) -> Place | None:
    """Gives the place that the words name if they name this option."""
    key = option.name.upper()
    if not option.section:
        return (option.name,) if words == [key] else None
    if words[0] != option.section.upper() or words[-1] != key:
        return None
    if not option.is_repeated:
        return (option.section, option.name) if len(words) == 2 else None
    if len(words) != 3 or len(words[1]) > _INDEX_DIGITS_MAX or not _POSITION.match(words[1]):
        return None
    return option.section, int(words[1]), option.name


def _unknown(name: str, words: list[str]) -> ConfigurationError:
    shown = ascii(name[:96])[1:-1]
    if f"{name}_FILE" in SECRET_FILES:
        return ConfigurationError(
            f"{shown}: a secret does not stand in the environment",
            hint=f"put it into a file that only you can read, and its path into {name}_FILE",
        )
    if _SERVICE_LINK.match(name):
        return ConfigurationError(
            f"{shown}: no such option; Kubernetes sets this for a service named casemate",
            hint="set enableServiceLinks: false in the pod, or give the service another name",
        )
    # A position that was given is kept, so that the hint can be copied as it is.
    position = words[1] if len(words) == 3 and _POSITION.match(words[1][:4]) else "0"
    # Without the prefix, which would make everything look alike.
    known = [one.removeprefix(PREFIX) for one in (*_names(position), *_OWN)]
    meant = nearest(name.removeprefix(PREFIX).upper(), known)
    hint = f"did you mean {PREFIX}{meant}?" if meant else 'see "casemate config show --all"'
    return ConfigurationError(f"{shown}: no such option", hint=hint)


def _names(position: str) -> Iterator[str]:
    for option in shape.options():
        between = (position,) if option.is_repeated else ()
        section = (option.section,) if option.section else ()
        yield variable((*section, *between, option.name))


def _value(name: str, text: str, option: Option) -> object:
    """Reads a text as the option is written in TOML; what cannot be is left for the check."""
    if not text.strip():
        # An empty list of origins would admit every page: nothing is said by saying nothing.
        raise ConfigurationError(f"{name}: is empty", hint="give it a value, or unset it")
    if option.kind == "number":
        return int(text) if _NUMBER.match(text) else text
    if option.kind == "flag":
        return {"true": True, "false": False}.get(text, text)
    if option.kind == "list":
        return [one.strip() for one in text.split(",")]
    return text


def _put(values: dict[str, Any], place: Place, value: object) -> bool:
    """Puts a value at its place; says no where the file has something else than a table."""
    if len(place) == 1:
        values[str(place[0])] = value
        return True
    table = values.setdefault(str(place[0]), [] if len(place) == 3 else {})
    if len(place) == 3:
        table = _element(table, place)
    if not isinstance(table, dict):
        return False
    table[place[-1]] = value
    return True


def _element(tables: object, place: Place) -> object:
    section, position, _ = place
    if not isinstance(tables, list) or not isinstance(position, int):
        return None
    if position > len(tables):
        raise ConfigurationError(
            f"{variable(place)}: there is no {section}.{len(tables)} before it",
            hint=f"the next one is {variable((section, len(tables), place[2]))}",
        )
    if position == len(tables):
        tables.append({})
    return tables[position]
