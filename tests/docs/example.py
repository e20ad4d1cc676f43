"""Runs an example as a reader would paste it, and holds it to what it says that it prints.

A comment behind `print(…)` says what is printed, with `…` for any text; `await`, `async with` and
`async for` may stand at the top. An example that defines tests is run by pytest.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any

PATIENCE_S = 60


def run(code: str, name: str, folder: Path) -> None:
    """Runs an example in a folder.

    Raises:
        AssertionError: It prints something else than it says, or says nothing that could be wrong.
    """
    if re.search(r"^\s*(?:async )?def test_", code, re.MULTILINE):
        _test(code, folder)
        return
    said = says(code)
    assert said or "assert " in code, f"{name} says nothing about what it does"
    compiled = compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {"__name__": "example"}
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        ended = eval(compiled, names)  # noqa: S307 - the example is what is under test.
        if inspect.iscoroutine(ended):
            asyncio.run(asyncio.wait_for(ended, PATIENCE_S))
    lines = printed.getvalue().splitlines()
    assert len(lines) == len(said), f"{name} says {said} and prints {lines}"
    for line, one in zip(lines, said, strict=True):
        pattern = ".*".join(re.escape(part) for part in one.split("…"))
        assert re.fullmatch(pattern, line), f"{name} says {one!r} and prints {line!r}"


def says(code: str) -> list[str]:
    """Gives what an example says that it prints, in order."""
    lines = code.splitlines()
    found = []
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            if "print(" in lines[row - 1][:column]:
                found.append(token.string.removeprefix("#").strip())
    return found


def _test(code: str, folder: Path) -> None:
    (folder / "test_example.py").write_text(code, encoding="utf-8")
    settings = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function"
    (folder / "pytest.ini").write_text(f"[pytest]\n{settings}\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
