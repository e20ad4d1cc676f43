"""Finds the tags of normative statements: where one is enforced, and which tests prove it.

A tag is `[MQTT-3.1.4-3]` for MQTT 5.0 and `[MQTT-3.1.1 3.1.4-2]` for 3.1.1, in a comment (or in
the message of an assertion) at the line that enforces the statement, and in its test.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rust_text import Function, RustText, attached_from, test_files

TAG = re.compile(r"\[MQTT-(3\.1\.1 )?(\d+(?:\.\d+)+-\d+)\]")
# What was meant as a tag and is none would silently not count.
NEARLY = re.compile(r"\[MQTT[-_ ][^\]\n]{0,30}\]|\[MQTT-(?:3\.1\.1 )?\d+(?:\.\d+)+-\d+,")

SPECIFICATIONS = {"mqtt-5.0.txt": "MQTT-", "mqtt-3.1.1.txt": "MQTT-3.1.1 "}
KINDS = {"server", "client-only", "transport", "websocket", "moot"}
REASONED = {"transport", "websocket", "moot"}
# The crates that a client's bytes run through.
ENFORCING = ("codec", "engine", "server")


@dataclass(frozen=True)
class Statement:
    """One normative statement; `identifier` is the inside of its tag."""

    identifier: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Place:
    """A line that enforces; `code_line` is the first line of code at or below the tag."""

    path: str
    tag_line: int
    code_line: int
    code: str

    @property
    def digest(self) -> str:
        """Identifies the text of the enforcing line, whatever its number and indentation."""
        return hashlib.sha256(self.code.encode()).hexdigest()[:16]

    @property
    def is_signature(self) -> bool:
        """True where the tag stands on a whole function rather than on a line of one."""
        return re.search(r"\bfn\s+\w+", self.code) is not None


@dataclass(frozen=True)
class Proof:
    """A test that carries a tag; a row of a table has no name and runs under `runners`."""

    path: str
    line: int
    name: str
    runners: tuple[str, ...] = ()

    @property
    def tests(self) -> tuple[str, ...]:
        """Names of the test functions that run this proof."""
        return (self.name,) if self.name else self.runners


@dataclass
class Tags:
    """All tags of a tree, by identifier, and the faults met on the way."""

    places: dict[str, list[Place]] = field(default_factory=dict)
    proofs: dict[str, list[Proof]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def statements(folder: Path, has_websocket: bool) -> tuple[list[Statement], list[str]]:
    """Reads the lists of statements.

    Args:
        folder: Holds one file for each specification: identifier, kind and reason in a line.
        has_websocket: Whether there is a listener that the statements on WebSocket bind.

    Returns:
        The statements in order, and a sentence for each line that is wrong.
    """
    found: list[Statement] = []
    faults = []
    for name, prefix in SPECIFICATIONS.items():
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if not line or line.startswith("#"):
                continue
            identifier, kind, reason = (*line.split(maxsplit=2), "", "")[:3]
            if kind not in KINDS:
                faults.append(f'{name}:{number}: "{kind}" is none of {", ".join(sorted(KINDS))}')
            elif (kind in REASONED) != bool(reason):
                wanted = "needs a reason" if kind in REASONED else "takes no reason"
                faults.append(f"{name}:{number}: {kind} {wanted}")
            if kind == "websocket" and has_websocket:
                kind = "server"
            if any(known.identifier == prefix + identifier for known in found):
                faults.append(f"{name}:{number}: {identifier} stands there twice")
            found.append(Statement(prefix + identifier, kind, reason))
    return found, faults


def collect(root: Path) -> Tags:
    """Reads every tag below `root`: Rust sources and tests, tables of vectors, Python tests."""
    tags = Tags()
    for crate in sorted((root / "crates").iterdir()):
        only_tests = test_files(crate / "src")
        for path in sorted([*crate.rglob("*.rs"), *crate.rglob("vectors/**/*.txt")]):
            name = path.relative_to(root).as_posix()
            inner = path.relative_to(crate)
            if inner.parts[0] not in ("src", "tests", "vectors"):
                continue
            text = path.read_text(encoding="utf-8")
            _nearly(name, text, tags)
            is_table = any(part.startswith("vectors") for part in inner.parts)
            if is_table:
                _table(name, text, _vector_runners(crate), tags)
            elif inner.parts[0] == "tests" or path.resolve() in only_tests:
                _rust_tests(name, RustText(text), [(1, len(text.splitlines()))], tags)
            else:
                source = RustText(text)
                spans = source.test_spans()
                _rust_tests(name, source, spans, tags)
                if crate.name in ENFORCING:
                    _places(name, source, spans, tags)
    for path in sorted((root / "tests").rglob("*.py")):
        # The tests of these tools speak of tags without proving a statement.
        if "tools" not in path.relative_to(root).parts:
            _python_tests(path.relative_to(root).as_posix(), path.read_text("utf-8"), tags)
    return tags


def _nearly(name: str, text: str, tags: Tags) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        for found in NEARLY.finditer(line):
            if not TAG.match(line, found.start()):
                tags.faults.append(f"{name}:{number}: {found[0]} is no tag; one pair for each")


def _identifiers(line: str) -> Iterator[str]:
    for found in TAG.finditer(line):
        yield f"MQTT-{found[1] or ''}{found[2]}"


def _places(name: str, source: RustText, spans: list[tuple[int, int]], tags: Tags) -> None:
    for number, line in enumerate(source.lines, 1):
        if line.lstrip().startswith("//!") or _within(number, spans):
            continue
        for identifier in _identifiers(line):
            code_line = _code_line(source, number)
            code = source.lines[code_line - 1].strip()
            place = Place(name, number, code_line, code)
            tags.places.setdefault(identifier, []).append(place)


def _code_line(source: RustText, number: int) -> int:
    """Returns the first line at or below `number` that holds code and more than an attribute."""
    for candidate in range(number, len(source.code_lines) + 1):
        code = source.code_lines[candidate - 1].strip()
        if code and not re.fullmatch(r"#!?\[[^\]]*\]", code):
            return candidate
    return number


def _within(number: int, spans: list[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in spans)


def _rust_tests(name: str, source: RustText, spans: list[tuple[int, int]], tags: Tags) -> None:
    tests = [
        (attached_from(source, function), function)
        for function in source.functions()
        if function.is_test
    ]
    every = tuple(function.name for _, function in tests)
    for number, line in enumerate(source.lines, 1):
        if not _within(number, spans):
            continue
        for identifier in _identifiers(line):
            owner = _owner(number, tests)
            proof = Proof(name, number, owner, () if owner else every)
            tags.proofs.setdefault(identifier, []).append(proof)


def _owner(number: int, tests: list[tuple[int, Function]]) -> str:
    for first, function in tests:
        if first <= number <= function.last_line:
            return function.name
    return ""


def _vector_runners(crate: Path) -> tuple[str, ...]:
    """Names the tests that run a table: those that take the `rows_of_statement`.

    A test that merely reads all rows (to count them, to cut them) asserts nothing about one.
    """
    runners = []
    for path in sorted([*crate.glob("src/**/*.rs"), *crate.glob("tests/**/*.rs")]):
        source = RustText(path.read_text(encoding="utf-8"))
        for function in source.functions():
            body = source.code_lines[function.first_line - 1 : function.last_line]
            if function.is_test and any("rows_of_statement(" in line for line in body):
                runners.append(function.name)
    return tuple(dict.fromkeys(runners))


def _table(name: str, text: str, runners: tuple[str, ...], tags: Tags) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        for identifier in _identifiers(line):
            tags.proofs.setdefault(identifier, []).append(Proof(name, number, "", runners))


def _python_tests(name: str, text: str, tags: Tags) -> None:
    spans = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("test_"):
            first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
            spans.append((first, node.end_lineno or node.lineno, node.name))
    for number, line in enumerate(text.splitlines(), 1):
        for identifier in _identifiers(line):
            owner = next((test for first, last, test in spans if first <= number <= last), "")
            every = () if owner else tuple(test for _, _, test in spans)
            tags.proofs.setdefault(identifier, []).append(Proof(name, number, owner, every))
