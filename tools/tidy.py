"""Holds the house style by program: sizes, headings, names, leftovers.

`python tools/tidy.py` names each fault with its file and line and exits 1 where there is one.
What was too large when a rule came stands in `tools/ratchet.json` with its size and may only
shrink; `--tighten` writes smaller sizes down, and no option writes larger ones.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rust_text import RustText, attached_from

ROOT = Path(__file__).resolve().parent.parent
RATCHET = ROOT / "tools" / "ratchet.json"

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100

# Folders that hold what tools wrote, not what people wrote.
SKIPPED_FOLDERS = {
    ".git",
    ".venv",
    ".casemate",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".import_linter_cache",
    "__pycache__",
    "target",
    "node_modules",
    "artifacts",
    "corpus",
    "dist",
    "site",
    "work",
}
CODE_SUFFIXES = {".rs", ".py", ".pyi"}
NARROW_SUFFIXES = CODE_SUFFIXES | {".sh", ".toml"}
NARROW_NAMES = {"Makefile", "run"}
TEXT_SUFFIXES = NARROW_SUFFIXES | {".md", ".yml", ".yaml", ".json", ".cfg"}

# Drawers into which anything fits, so that nothing is ever found again.
DRAWERS = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "stuff"}
_DRAWER_MODULE = re.compile(rf"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+({'|'.join(sorted(DRAWERS))})\b")
_DRAWER_TYPE = re.compile(
    r"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:struct|enum|trait|type|class)\s+"
    r"(\w*(?:Manager|Helpers?|Utils?)|\w*[A-Za-z]2)\b"
)

# Written in pieces: this file obeys its own rules.
_UNFINISHED = re.compile(
    r"\b(?:to" + r"do!|unimple" + r"mented!|NotImplemented" + r"Error|TO" + r"DO|FIX" + r"ME)(?!\w)"
)
# A path that exists on one machine only; `<folder>` and `~` are for the reader to fill.
_MACHINE_PATH = re.compile(r"(?<![\w.~>-])/(?:root|home|Users|work|tmp)/\w")
_RUST_LEFTOVER = re.compile(
    r"^\s*//(?![/!])\s*(?:"
    r"(?:pub\s+)?(?:let|fn|use|mod|impl|struct|enum|const|static|match|while|loop|return)\b.*[;{}]"
    r"|(?:if|for)\b.*\{"
    r"|[\w.:]+\(.*\)\s*\??;"
    r"|[\w.\[\]*]+\s*[-+|&]?=[^=].*;"
    r"|\}"
    r")\s*$"
)
_HEADING_END = re.compile(r'[.?!:](?:""")?$')


@dataclass(frozen=True)
class Fault:
    """One breach of one rule; `key` and `size` are set where a ratchet may hold it."""

    path: str
    line: int
    says: str
    key: str = ""
    size: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.says}"


def files(root: Path) -> Iterator[Path]:
    """Yields every file that people wrote below `root`, in order."""
    for path in sorted(root.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir():
            if path.name not in SKIPPED_FOLDERS:
                yield from files(path)
        elif path.suffix in TEXT_SUFFIXES or path.name in NARROW_NAMES:
            yield path


def examine(path: Path, root: Path) -> Iterator[Fault]:
    """Yields each fault of one file.

    Args:
        path: The file, below `root`.
        root: Folder to which the reported path is relative.
    """
    name = path.relative_to(root).as_posix()
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        yield Fault(name, 1, f"is not UTF-8 (byte {fault.start})")
        return
    yield from _names(name)
    yield from _lines(name, text, path)
    if path.suffix in CODE_SUFFIXES:
        yield from _heading(name, text)
        yield from _size(name, text)
    if path.suffix == ".rs":
        yield from _rust(name, RustText(text))
    elif path.suffix in (".py", ".pyi"):
        yield from _python(name, text)


def _names(name: str) -> Iterator[Fault]:
    for part in Path(name).parts:
        if Path(part).stem.lower() in DRAWERS:
            yield Fault(name, 1, f'"{part}" names a drawer; name the thing that is in it')


def _lines(name: str, text: str, path: Path) -> Iterator[Fault]:
    narrow = path.suffix in NARROW_SUFFIXES or path.name in NARROW_NAMES
    for number, line in enumerate(text.splitlines(), 1):
        if narrow and len(line) > COLUMNS_MAX:
            yield Fault(name, number, f"is {len(line)} columns wide, {COLUMNS_MAX} are allowed")
        if line != line.rstrip() and path.suffix != ".md":
            yield Fault(name, number, "ends in blanks")
        if found := _MACHINE_PATH.search(line):
            yield Fault(name, number, f'"{found[0]}…" is a path of one machine')
        if found := _UNFINISHED.search(line):
            yield Fault(name, number, f'"{found[0]}" marks unfinished work')


def _heading(name: str, text: str) -> Iterator[Fault]:
    lines = text.splitlines()
    if not lines:
        return
    at = 1 if lines[0].startswith("#!") and not lines[0].startswith("#![") else 0
    first = lines[at] if at < len(lines) else ""
    opening = "//! " if name.endswith(".rs") else '"""'
    if not first.startswith(opening):
        yield Fault(name, at + 1, f"has no heading; the first line is {opening}and one sentence")
    elif not _HEADING_END.search(first.rstrip()):
        yield Fault(name, at + 1, "has a heading that is not one whole sentence on the first line")


def _size(name: str, text: str) -> Iterator[Fault]:
    lines = len(text.splitlines())
    if lines > FILE_LINES_MAX:
        says = f"has {lines} lines, {FILE_LINES_MAX} are allowed: make two rooms of it"
        yield Fault(name, 1, says, key=name, size=lines)


def _rust(name: str, source: RustText) -> Iterator[Fault]:
    for function in source.functions():
        if function.lines > FUNCTION_LINES_MAX:
            yield _long_function(name, function.name, function.first_line, function.lines)
        if function.is_test and "_" not in function.name:
            yield Fault(name, function.first_line, f'test "{function.name}" is not a sentence')
    for number, line in enumerate(source.code_lines, 1):
        if found := _DRAWER_MODULE.search(line) or _DRAWER_TYPE.search(line):
            yield Fault(name, number, f'"{found[1]}" names a drawer; name the thing that is in it')
    for number, line in enumerate(source.comment_lines, 1):
        # Only a line that is nothing but comment can be code that was switched off.
        alone = not source.code_lines[number - 1].strip() if source.code_lines else True
        if alone and _RUST_LEFTOVER.match(line):
            yield Fault(name, number, "looks like commented-out code")
    yield from _ignored_tests(name, source)


def _ignored_tests(name: str, source: RustText) -> Iterator[Fault]:
    for function in source.functions():
        if not function.is_test:
            continue
        first = attached_from(source, function)
        for number in range(first, function.first_line):
            if re.search(r"#\[\s*ignore\s*\]", source.code_lines[number - 1]):
                yield Fault(name, number, 'a test is ignored without its reason: ignore = "…"')


def _python(name: str, text: str) -> Iterator[Fault]:
    try:
        tree = ast.parse(text)
    except SyntaxError as fault:
        yield Fault(name, fault.lineno or 1, f"does not parse: {fault.msg}")
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _python_lines(node)
            if lines > FUNCTION_LINES_MAX:
                yield _long_function(name, node.name, node.lineno, lines)
        elif isinstance(node, ast.ClassDef) and (found := _DRAWER_TYPE.match(f"class {node.name}")):
            yield Fault(name, node.lineno, f'"{found[1]}" names a drawer; name what is in it')
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and _python_leftover(token.string):
            yield Fault(name, token.start[0], "looks like commented-out code")


def _python_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Counts a function's lines without its docstring, as Rust counts none for `///`."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        first = node.body[0]
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def _python_leftover(comment: str) -> bool:
    text = comment.lstrip("#").strip()
    if re.match(r"(?:noqa|type:|pragma:|ruff:|mypy:)", text):
        return False
    if re.match(r"(?:if|elif|for|while|with|def|class|try|else|except)\b.*:$", text):
        text += " pass"
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return False
    statements = (
        ast.Assign | ast.AugAssign | ast.Import | ast.ImportFrom | ast.Return | ast.FunctionDef
        | ast.ClassDef | ast.If | ast.For | ast.While | ast.With | ast.Delete | ast.Raise
    )  # fmt: skip
    return any(
        isinstance(node, statements)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await))
        for node in body
    )


def _long_function(name: str, function: str, line: int, lines: int) -> Fault:
    says = f"{function} has {lines} lines, {FUNCTION_LINES_MAX} are allowed"
    return Fault(name, line, says, key=f"{name}::{function}", size=lines)


def weigh(faults: list[Fault], ratchet: dict[str, int]) -> tuple[list[Fault], dict[str, int]]:
    """Sets the known offenders apart.

    Args:
        faults: What `examine` found.
        ratchet: Key of an offender → the size, in lines, that it may have.

    Returns:
        The faults that count, and the ratchet as it would be when tightened: no entry for what
        is gone, none larger than before.
    """
    counted, tightened = [], {}
    for fault in faults:
        allowed = ratchet.get(fault.key, 0) if fault.key else 0
        if fault.size > allowed or not fault.key:
            counted.append(fault)
        if fault.key in ratchet:
            tightened[fault.key] = min(fault.size, ratchet[fault.key])
    return counted, tightened


def main(arguments: list[str] | None = None) -> int:
    """Examines the tree and prints each fault; the exit status is 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tighten", action="store_true", help="write down what has shrunk")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to examine")
    parser.add_argument("paths", nargs="*", type=Path, help="only these files")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    chosen = [path.resolve() for path in options.paths] or list(files(root))
    book = json.loads(RATCHET.read_text(encoding="utf-8")) if RATCHET.exists() else {}
    ratchet: dict[str, int] = book.get("lines", {})
    found = [fault for path in chosen for fault in examine(path, root)]
    faults, tightened = weigh(found, ratchet)
    for fault in faults:
        print(fault)
    if options.tighten and not options.paths and tightened != ratchet:
        book["lines"] = dict(sorted(tightened.items()))
        RATCHET.write_text(json.dumps(book, indent=2) + "\n", encoding="utf-8")
    print(f"tidy: {len(chosen)} files, {len(faults)} faults, {len(tightened)} held by the ratchet")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
