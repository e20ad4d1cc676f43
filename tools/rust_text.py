"""Reads Rust source closely enough for the rules: comments, functions, and what only tests see.

This is no parser: it knows strings, comments, character literals and braces, which is all that
finding a function's end or a comment's text needs, and it never has to understand a macro.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_RAW_STRING = re.compile(r'(?:b|c)?r(#*)"')
_CHARACTER = re.compile(r"b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]+\}|.)|[^\\'\n])'")
_FUNCTION = re.compile(r"\bfn\s+(r#)?([A-Za-z_]\w*)")
_TEST_ATTRIBUTE = re.compile(r"#\[\s*(?:\w+::)*test\s*(?:\([^]]*\))?\]")
_CFG_TEST = re.compile(r"#\[\s*cfg\s*\(\s*(?:all\s*\()?\s*test\b[^]]*\]")
_MODULE = re.compile(r"\s*(?:#\[[^]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*([;{])")
_PATH_ATTRIBUTE = re.compile(r'#\[\s*path\s*=\s*"([^"]+)"\s*\]')


@dataclass(frozen=True)
class Function:
    """One function with a body; lines count from 1 and include both ends."""

    name: str
    first_line: int
    last_line: int
    is_test: bool

    @property
    def lines(self) -> int:
        """Length from the signature to the closing brace, in lines."""
        return self.last_line - self.first_line + 1


class RustText:
    """The text of one Rust file, in three views of equal length and equal line breaks.

    Attributes:
        text: The file as it is.
        code: The same with comments and the insides of strings turned to spaces.
        comments: The same with everything but comments turned to spaces.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.code, self.comments = _split(text)
        self.lines = text.splitlines()
        self.code_lines = self.code.splitlines()
        self.comment_lines = self.comments.splitlines()
        self._starts = [0]
        for match in re.finditer("\n", text):
            self._starts.append(match.end())

    def line_of(self, offset: int) -> int:
        """Returns the line, from 1, in which the character at `offset` stands."""
        low, high = 0, len(self._starts)
        while high - low > 1:
            middle = (low + high) // 2
            if self._starts[middle] <= offset:
                low = middle
            else:
                high = middle
        return low + 1

    def functions(self) -> Iterator[Function]:
        """Yields every function that has a body, nested ones too, in order of their names."""
        for match in _FUNCTION.finditer(self.code):
            opening = _body_opening(self.code, match.end())
            if opening is None:
                continue
            closing = closing_brace(self.code, opening)
            yield Function(
                name=match[2],
                first_line=self.line_of(match.start()),
                last_line=self.line_of(closing),
                is_test=self._carries_test_attribute(match.start()),
            )

    def test_spans(self) -> list[tuple[int, int]]:
        """Returns the first and last line of each part that only a test build compiles."""
        spans = []
        for match in _CFG_TEST.finditer(self.code):
            end = _item_end(self.code, match.end())
            spans.append((self.line_of(match.start()), self.line_of(end)))
        return spans

    def test_modules(self) -> list[str]:
        """Names the files, relative to this one's folder for children, that are test modules.

        Returns:
            Module names of `#[cfg(test)] mod name;`, or the value of their `path` attribute.
        """
        names = []
        for match in _CFG_TEST.finditer(self.code):
            module = _MODULE.match(self.code, match.end())
            if module is None or module[2] != ";":
                continue
            # The view without strings has lost the path; the offsets are the same in the text.
            path = _PATH_ATTRIBUTE.search(self.text, match.end(), module.end())
            names.append(path[1] if path else module[1])
        return names

    def _carries_test_attribute(self, offset: int) -> bool:
        line = self.line_of(offset) - 1
        if _TEST_ATTRIBUTE.search(self.code_lines[line].split("fn ")[0]):
            return True
        while line > 0:
            line -= 1
            stripped = self.code_lines[line].strip()
            if stripped and not stripped.startswith(("#[", "#![")) and not stripped.endswith(")]"):
                return False
            if _TEST_ATTRIBUTE.search(stripped):
                return True
        return False


def attached_from(source: RustText, function: Function) -> int:
    """Returns the first line of the comments and attributes that stand on a function."""
    line = function.first_line
    while line > 1:
        above_code = source.code_lines[line - 2].strip()
        above_comment = source.comment_lines[line - 2].strip()
        is_attribute = above_code.startswith("#[")
        is_comment = not above_code and bool(above_comment)
        if not is_attribute and not is_comment:
            break
        line -= 1
    return line


def closing_brace(code: str, opening: int) -> int:
    """Returns the offset of the brace that closes the one at `opening`, or the text's end."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, opening):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    return len(code) - 1


def test_files(root: Path) -> set[Path]:
    """Finds the files of a crate's `src` that only a test build compiles.

    Args:
        root: A folder that holds Rust sources, such as `crates/engine/src`.

    Returns:
        Paths below `root`, those of the test modules' own children included.
    """
    found: set[Path] = set()
    for path in sorted(root.rglob("*.rs")):
        children = path.parent
        if path.name not in ("lib.rs", "main.rs", "mod.rs"):
            children = path.parent / path.stem
        for name in RustText(path.read_text(encoding="utf-8")).test_modules():
            if name.endswith(".rs"):
                found.add((path.parent / name).resolve())
                continue
            for candidate in (children / f"{name}.rs", children / name / "mod.rs"):
                if candidate.exists():
                    found.add(candidate.resolve())
            found.update(inner.resolve() for inner in (children / name).rglob("*.rs"))
    return found


def _split(text: str) -> tuple[str, str]:
    code, comments = list(text), [" "] * len(text)
    for index, character in enumerate(text):
        if character == "\n":
            comments[index] = "\n"
    position = 0
    while position < len(text):
        end, kind = _token(text, position)
        if kind == "comment":
            comments[position:end] = text[position:end]
        if kind in ("comment", "string"):
            keep = 0 if kind == "comment" else 1
            for index in range(position + keep, end - keep):
                if text[index] != "\n":
                    code[index] = " "
        position = end
    return "".join(code), "".join(comments)


def _token(text: str, position: int) -> tuple[int, str]:
    """Returns where the token at `position` ends, and whether it is comment, string or code."""
    character = text[position]
    if character == "/" and text.startswith("//", position):
        end = text.find("\n", position)
        return (len(text) if end < 0 else end), "comment"
    if character == "/" and text.startswith("/*", position):
        return _block_comment_end(text, position), "comment"
    previous = text[position - 1] if position else " "
    starts_word = not (previous.isalnum() or previous == "_")
    if character in "bcr" and starts_word:
        raw = _RAW_STRING.match(text, position)
        if raw:
            end = text.find('"' + raw[1], raw.end())
            return (len(text) if end < 0 else end + 1 + len(raw[1])), "string"
    if character == '"':
        return _string_end(text, position), "string"
    if character == "'" or (character == "b" and text.startswith("b'", position) and starts_word):
        literal = _CHARACTER.match(text, position)
        if literal:
            return literal.end(), "string"
    return position + 1, "code"


def _block_comment_end(text: str, position: int) -> int:
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(text, position):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def _string_end(text: str, position: int) -> int:
    index = position + 1
    while index < len(text):
        if text[index] == "\\":
            index += 2
        elif text[index] == '"':
            return index + 1
        else:
            index += 1
    return len(text)


def _body_opening(code: str, position: int) -> int | None:
    """Returns the offset of a function's opening brace, or None for a mere declaration."""
    depth = 0
    for index in range(position, len(code)):
        character = code[index]
        if character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
            if depth < 0:
                return None
        elif depth == 0 and character == ";":
            return None
        elif depth == 0 and character == "{":
            return index
    return None


def _item_end(code: str, position: int) -> int:
    depth = 0
    for index in range(position, len(code)):
        character = code[index]
        if character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif depth == 0 and character == ";":
            return index
        elif depth == 0 and character == "{":
            return closing_brace(code, index)
    return len(code) - 1
