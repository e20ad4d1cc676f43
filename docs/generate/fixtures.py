"""The fixtures that pytest finds by itself, read off the plugin that brings them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PLUGIN = Path(__file__).resolve().parents[2] / "python/casemate/testing/plugin.py"

_GENERATORS = ("Iterator", "AsyncIterator")


def text() -> str:
    """Gives an entry for each fixture."""
    return "\n".join(line for function in found() for line in _fixture(function))


def found() -> list[ast.FunctionDef]:
    """Gives the functions that are fixtures."""
    tree = ast.parse(PLUGIN.read_text(encoding="utf-8"))
    return [
        one
        for one in tree.body
        if isinstance(one, ast.FunctionDef) and any(map(_is_fixture, one.decorator_list))
    ]


def _fixture(function: ast.FunctionDef) -> Iterator[str]:
    said = ast.get_docstring(function)
    if said is None:
        raise ValueError(f"{PLUGIN.name}:{function.lineno}: {function.name} has no docstring")
    yield f"```{{py:data}} {function.name}"
    yield f":type: {_given(function.returns)}"
    yield ""
    yield said
    yield "```"
    yield ""


def _is_fixture(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called) == "pytest.fixture"


def _given(returns: ast.expr | None) -> str:
    """Says what a test gets, which a generator yields."""
    if isinstance(returns, ast.Subscript) and ast.unparse(returns.value) in _GENERATORS:
        returns = returns.slice
    return "" if returns is None else ast.unparse(returns)
