"""Every option of `casemate.toml`, read off the models that check it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from casemate.config import schema_text, shape, variables

_TOP = "At the top"
_TOP_SAID = "Before any table."

Schema = Mapping[str, Any]


def text() -> str:
    """Gives the page: a section for each table, an entry for each option."""
    schema = json.loads(schema_text())
    return "\n".join(line for section in shape.sections() for line in _section(schema, section))


def _section(schema: Schema, section: str) -> Iterator[str]:
    options = [one for one in shape.options() if one.section == section]
    table = f"[[{section}]]" if options[0].is_repeated else f"[{section}]"
    yield f"## {f'`{table}`' if section else _TOP}"
    model = shape.sections()[section]
    described = schema if section == "" else schema["$defs"][model.__name__]
    yield ""
    yield _sentence(model.__doc__ or "") if section else _TOP_SAID
    yield ""
    for option in options:
        yield from _option(option, described)


def _option(option: shape.Option, described: Schema) -> Iterator[str]:
    name = f"{option.section}.{option.name}" if option.section else option.name
    said = described["properties"][option.name]
    place = (option.section,) if option.section else ()
    middle = (0,) if option.is_repeated else ()
    yield f"```{{confval}} {name}"
    yield f":type: {_type(said)}"
    if option.name in described.get("required", ()):
        yield ":default: must be set"
    elif "default" in said:
        yield f":default: `{_toml(said['default'])}`"
    yield ""
    yield option.meaning
    yield ""
    yield f"Variable: `{variables.variable((*place, *middle, option.name))}`"
    yield "```"
    yield ""


def _type(said: Schema) -> str:
    """Says what may be written, with its bounds."""
    if "enum" in said:
        return f"one of {', '.join(f'`{_toml(one)}`' for one in said['enum'])}"
    if said.get("type") == "array":
        most = f", at most {said['maxItems']:,}" if "maxItems" in said else ""
        return f"list of {_type(said['items'])}s{most}"
    if said.get("type") == "integer":
        return f"whole number{_bounds(said.get('minimum'), said.get('maximum'), '')}"
    if said.get("type") == "number":
        return f"number{_bounds(said.get('minimum'), said.get('maximum'), '')}"
    if said.get("type") == "boolean":
        return "`true` or `false`"
    if said.get("type") == "string":
        of = "path" if said.get("format") == "path" else "text"
        return f"{of}{_bounds(said.get('minLength'), said.get('maxLength'), ' characters')}"
    raise ValueError(f"the reference knows no words for {dict(said)}")


def _bounds(least: float | None, most: float | None, unit: str) -> str:
    if least is not None and most is not None:
        return f", {least:,}–{most:,}{unit}"
    if most is not None:
        return f", at most {most:,}{unit}"
    return "" if least is None else f", at least {least:,}{unit}"


def _toml(value: object) -> str:
    """Writes a value as it stands in the file."""
    return json.dumps(value, ensure_ascii=False)


def _sentence(docstring: str) -> str:
    """Gives what a docstring says before its attributes."""
    said, _, _ = docstring.partition("Attributes:")
    return re.sub(r"\s+", " ", said).strip()
