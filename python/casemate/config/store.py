"""The store: what a broker keeps over its end, when that counts as kept, and under which key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StrictStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from casemate.config.section import Reason, Section, admit_path, contradiction, strip_reason

Durability = Literal["disk", "os", "memory"]

_OWN_PREFIX = "CASEMATE_"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z", re.ASCII)
_SOURCES = ("key_file", "key_variable", "key_command")
_OF_A_FOLDER = ("folder", *_SOURCES, "former_key_files", "insecure_plain")


class Store(Section):
    """Describes what is kept over the broker's end, and when it counts as kept.

    Attributes:
        durability: When a message, a session or a retained message is acknowledged: `disk` (the
            disk has said that it is safe, so that it survives the loss of power), `os` (the
            operating system has it, so that it survives the end of the broker and no more) or
            `memory` (nothing survives the end of the broker; that of a broker without a home).
        folder: Where it is kept, relative to the home; absent: `store` in the home.
        key_file: File with the key that new data is encrypted under, 64 hexadecimal digits,
            relative to the home and readable by its owner alone; absent, as the two below: not
            encrypted.
        key_variable: Name of the variable of the environment that holds the key instead.
        key_command: Command that prints the key instead, its words as a list; it has 30 s.
        former_key_files: Files of keys that older data is encrypted under, at most 16.
        insecure_plain: Written reason, 10–500 characters, for reading data that is not encrypted
            although there is a key: a store gets its first key so.
    """

    durability: Durability = "disk"
    folder: Path | None = None
    key_file: Path | None = None
    key_variable: StrictStr | None = None
    key_command: tuple[StrictStr, ...] = ()
    former_key_files: Annotated[tuple[Path, ...], Field(max_length=16)] = ()
    insecure_plain: Reason | None = None

    @field_validator("folder", "key_file", mode="before")
    @classmethod
    def _admit_path(cls, path: object) -> object:
        return path if path is None else admit_path(path)

    @field_validator("insecure_plain", mode="before")
    @classmethod
    def _strip_reason(cls, text: object) -> object:
        return strip_reason(text)

    @field_validator("key_variable")
    @classmethod
    def _admit_variable(cls, name: str | None) -> str | None:
        if name is not None and (not _VARIABLE.match(name) or name.startswith(_OWN_PREFIX)):
            message = f"expected the name of a variable that does not begin with {_OWN_PREFIX}"
            raise PydanticCustomError("variable", message, {})
        return name

    @field_validator("key_command")
    @classmethod
    def _admit_command(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if words and not words[0]:
            raise PydanticCustomError("command", "expected a program as the first word", {})
        return words

    @model_validator(mode="after")
    def _refuse_what_would_be_ignored(self) -> Self:
        said = [one for one in _OF_A_FOLDER if getattr(self, one) not in (None, ())]
        if self.durability == "memory" and said:
            raise contradiction(
                said[0],
                f'{said[0]} means nothing with durability = "memory"',
                'use durability = "disk", or remove the line',
            )
        sources = [one for one in _SOURCES if one in said]
        if len(sources) > 1:
            raise contradiction(
                sources[1],
                f"{sources[0]} and {sources[1]} both name the key",
                "keep one of them",
            )
        if self.insecure_plain is not None and not sources:
            raise contradiction(
                "insecure_plain",
                "without a key nothing is encrypted",
                "add key_file = …, or remove the line",
            )
        return self

    @property
    def is_encrypted(self) -> bool:
        """Whether new data is encrypted."""
        return any(getattr(self, one) not in (None, ()) for one in _SOURCES)

    @property
    def is_chosen(self) -> bool:
        """Whether somebody has said how durable it is to be."""
        return "durability" in self.model_fields_set

    def in_home(self, home: Path) -> Store:
        """Gives the same with every path absolute.

        Args:
            home: Folder that relative paths start from.
        """
        paths: dict[str, object] = {}
        if self.folder is not None:
            paths["folder"] = home / self.folder
        if self.key_file is not None:
            paths["key_file"] = home / self.key_file
        if self.former_key_files:
            paths["former_key_files"] = tuple(home / one for one in self.former_key_files)
        said = self.model_fields_set
        made = self.model_copy(update=paths)
        # What was said stays what was said: a copy must not count as a choice.
        made.__pydantic_fields_set__ = set(said)
        return made
