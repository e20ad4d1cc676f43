"""The values that the engine hands to programs, read off its stub: events and messages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

STUB = Path(__file__).resolve().parents[2] / "python/casemate/_engine.pyi"

SHOWN = ("Event", "Publish")
"""What meets programs: `Broker(raw_events=…)` and `Subscriber`."""


def text() -> str:
    """Gives a section for each class, an entry for each attribute."""
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    classes = {one.name: one for one in tree.body if isinstance(one, ast.ClassDef)}
    return "\n".join(line for name in SHOWN for line in _class(classes[name]))


def _class(found: ast.ClassDef) -> Iterator[str]:
    yield f"````{{py:class}} casemate.native.{found.name}"
    yield ""
    yield _said(found)
    yield ""
    for member in found.body:
        if isinstance(member, ast.FunctionDef):
            yield f"```{{py:attribute}} {member.name}"
            yield f":type: {ast.unparse(member.returns) if member.returns else ''}"
            yield ""
            yield _said(member)
            yield "```"
            yield ""
    yield "````"
    yield ""


def _said(node: ast.ClassDef | ast.FunctionDef) -> str:
    said = ast.get_docstring(node)
    if said is None:
        raise ValueError(f"{STUB.name}:{node.lineno}: {node.name} has no docstring")
    return said
