"""What the sections of the configuration share: strictness, reasons, paths, contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

CONNECTIONS_MAX = 1_000_000

REASON_CHARACTERS_MIN = 10
REASON_CHARACTERS_MAX = 500

Reason = Annotated[
    str, Field(strict=True, min_length=REASON_CHARACTERS_MIN, max_length=REASON_CHARACTERS_MAX)
]


class Section(BaseModel):
    """Refuses unknown keys and never changes after it was read."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


def admit_path(path: object) -> object:
    """Admits the path of a file."""
    if isinstance(path, Path) or (isinstance(path, str) and path and "\0" not in path):
        return path
    raise PydanticCustomError("path", "expected the path of a file", {})


def strip_reason(text: object) -> object:
    """Takes the blanks around a reason away: ten spaces are not a reason."""
    return text.strip() if isinstance(text, str) else text


def contradiction(
    place: str | tuple[str | int, ...], message: str, hint: str
) -> PydanticCustomError:
    """Makes the error of two options that cannot both stand.

    Args:
        place: The key to name, or keys and positions below the section that is checked.
        message: What is wrong, in words.
        hint: What to do.
    """
    # The place rides along in the context: pydantic itself only knows the whole section here.
    where = (place,) if isinstance(place, str) else place
    return PydanticCustomError(
        "contradiction",
        "{what}",
        {
            "what": message,
            "hint": hint,
            "place": where,
        },
    )
