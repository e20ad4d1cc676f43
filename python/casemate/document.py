"""A TOML document that remembers on which line each key and value stands.

The parser of the standard library decides what is valid and what it means; it keeps no places.
A second pass, over text that is known to be valid, finds the line of every key, table and array
element, so that an error can name it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.errors import ConfigurationError, HomeError, PolicyError
from casemate.files import read_bounded, reason

Place = tuple[str | int, ...]
"""Keys and array positions from the top of a document down to one value."""

_LINE = re.compile(r"at line (\d+)")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^\s,\]}#]+(?: \d[^\s,\]}#]*)?")


@dataclass(frozen=True)
class Document:
    """Holds a parsed TOML file, its values and their lines.

    Attributes:
        file: Where it was read from.
        values: The whole document as the standard library parsed it.
        lines: Line, from 1, of each key, table and array element.
        fault: Error class that its readers raise.
    """

    file: Path
    values: dict[str, Any]
    lines: Mapping[Place, int]
    fault: type[ConfigurationError | PolicyError]

    @classmethod
    def read(cls, file: Path, fault: type[ConfigurationError | PolicyError]) -> Document:
        """Reads and parses a file of at most 1 MiB of UTF-8.

        Raises:
            ConfigurationError | PolicyError: The class given as `fault`: the file is missing,
                unreadable, not UTF-8, or not TOML.
        """
        try:
            content = read_bounded(file)
        except FileNotFoundError as error:
            raise fault(
                "the file is missing", file=file, hint='run "casemate init" to make a home'
            ) from error
        except OSError as error:
            raise fault("the file cannot be read", file=file, cause=reason(error)) from error
        except HomeError as error:
            raise fault("the file cannot be read", file=file, cause=str(error)) from error
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise fault(
                "the text is not UTF-8",
                file=file,
                line=content.count(b"\n", 0, error.start) + 1,
                hint="save the file as UTF-8",
            ) from error
        return cls.parse(text, file, fault)

    @classmethod
    def parse(
        cls, text: str, file: Path, fault: type[ConfigurationError | PolicyError]
    ) -> Document:
        """Parses text as if it had been read from `file`.

        Raises:
            ConfigurationError | PolicyError: The class given as `fault`: the text is not TOML.
        """
        try:
            values = tomllib.loads(text)
            lines = _Locator(text.replace("\r\n", "\n")).locate()
        except tomllib.TOMLDecodeError as error:
            found = _LINE.search(str(error))
            line = int(found[1]) if found else text.count("\n") + 1
            raise fault(
                "the text is not TOML",
                file=file,
                line=line,
                cause=str(error).partition(" (at ")[0].lower(),
                hint="mend the line; strings need quotes and tables stand in [brackets]",
            ) from error
        except RecursionError as error:
            raise fault("the values are nested too deeply", file=file) from error
        return cls(file, values, lines, fault)

    def line(self, place: Iterable[str | int]) -> int | None:
        """Finds the line of a value, or of the nearest table that would hold it."""
        place = tuple(place)
        while place:
            if place in self.lines:
                return self.lines[place]
            place = place[:-1]
        return None

    def wrong(
        self, place: Iterable[str | int], message: str, *, hint: str = ""
    ) -> ConfigurationError | PolicyError:
        """Makes the document's error for one place in it, ready to be raised."""
        return self.fault(message, file=self.file, line=self.line(place), hint=hint)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Finds the known word that was probably meant, if one is close."""
    # Cut before comparing: the cost of the comparison grows with the square of the length.
    matches = difflib.get_close_matches(word[:64], list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


class _Locator:
    """Walks over text that is known to be valid TOML and notes where things begin."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.counted = 0
        self.line = 1
        self.lines: dict[Place, int] = {}
        self.elements: dict[Place, int] = {}

    def locate(self) -> dict[Place, int]:
        table: Place = ()
        while self._skip_blank():
            if self.text.startswith("[[", self.at):
                self.at += 2
                table = self._element(self._keys())
                self.at += 2
            elif self.text[self.at] == "[":
                self.at += 1
                table = self._resolved(self._keys())
                self.at += 1
            else:
                self._assignment(table)
        return self.lines

    def _note(self, place: Place) -> None:
        self._count()
        self.lines.setdefault(place, self.line)

    def _count(self) -> None:
        # Counted from the last count on, so that the whole pass stays linear.
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at

    def _element(self, keys: list[str]) -> Place:
        """Enters the next element of an array of tables."""
        array = (*self._resolved(keys[:-1]), keys[-1])
        position = self.elements.get(array, -1) + 1
        self.elements[array] = position
        self._note(array)
        self._note((*array, position))
        return (*array, position)

    def _resolved(self, keys: list[str]) -> Place:
        """Places a header's keys; a key of an array of tables means its last element."""
        place: Place = ()
        for key in keys:
            place = (*place, key)
            # A table that no header names begins where the first one below it does.
            self._note(place)
            if place in self.elements:
                place = (*place, self.elements[place])
        return place

    def _assignment(self, table: Place) -> None:
        # Noted before the key is read past: a key never spans lines, but a comment may follow.
        self._count()
        place = table
        for key in self._keys():
            place = (*place, key)
            self.lines.setdefault(place, self.line)
        self.at += 1
        self._skip_blank()
        self._value(place)

    def _value(self, place: Place) -> None:
        start = self.text[self.at]
        if start in "\"'":
            self._string()
        elif start == "[":
            self.at += 1
            position = 0
            while self._skip_separators() and self.text[self.at] != "]":
                self._note((*place, position))
                self._value((*place, position))
                position += 1
            self.at += 1
        elif start == "{":
            self.at += 1
            while self._skip_separators() and self.text[self.at] != "}":
                self._assignment(place)
            self.at += 1
        else:
            found = _SCALAR.match(self.text, self.at)
            self.at = found.end() if found else len(self.text)

    def _keys(self) -> list[str]:
        """Reads a dotted key and stops at the `=` or `]` behind it."""
        keys = []
        while True:
            self._skip_blank()
            if self.text[self.at] in "\"'":
                begin = self.at
                self._string()
                literal = self.text[begin : self.at]
                keys.append(next(iter(tomllib.loads(f"{literal} = 0"))))
            else:
                found = _BARE.match(self.text, self.at)
                # Valid TOML has a key here; an empty one keeps the pass moving if it had not.
                keys.append(found[0] if found else "")
                self.at = found.end() if found else self.at
            self._skip_blank()
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _string(self) -> None:
        quote = self.text[self.at]
        if self.text.startswith(quote * 3, self.at):
            self._long_string(quote)
            return
        self.at += 1
        while self.text[self.at] != quote:
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += 1

    def _long_string(self, quote: str) -> None:
        self.at += 3
        while not self.text.startswith(quote * 3, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += 3
        # Up to two quotes may stand before the closing three, and belong to the string.
        while self.text.startswith(quote, self.at):
            self.at += 1

    def _skip_blank(self) -> bool:
        """Moves past white space and comments; tells whether anything is left."""
        return self._skip(" \t\n")

    def _skip_separators(self) -> bool:
        return self._skip(" \t\n,")

    def _skip(self, blank: str) -> bool:
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in blank:
                self.at += 1
            else:
                return True
        return False
