"""Names of accounts, roles and listeners: one safe alphabet, checked in one place.

A name becomes a topic level (`%u`), a folder, a URI in a certificate and a word in a log. The
alphabet holds nothing that means something in any of these, so that no place needs escaping.
"""

from __future__ import annotations

import re
from typing import Literal

from casemate.errors import NameRefused

Kind = Literal["user", "device"]
"""What an account stands for: a person or program (`user`), or a thing (`device`)."""

KINDS: tuple[Kind, ...] = ("user", "device")

NAME_CHARACTERS_MAX = 128
ROLE_CHARACTERS_MAX = 64
LISTENER_CHARACTERS_MAX = 64

# The first character is a letter or digit: a leading dot would hide the folder (`.` and `..` are
# folders already) and a leading hyphen would read as an option. `\Z` and not `$`, which lets a
# newline pass at the end.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*\Z", re.ASCII)
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z", re.ASCII)


def is_account_name(text: str) -> bool:
    """Tells whether an account may have this name, without saying why not."""
    return 0 < len(text) <= NAME_CHARACTERS_MAX and _NAME.match(text) is not None


def admit_account_name(text: str) -> str:
    """Gives back a name that an account may have.

    Args:
        text: 1–128 characters of `A–Z a–z 0–9 . _ @ -`, the first a letter or a digit.

    Raises:
        NameRefused: The text is anything else; the message shows it with escapes.

    Source: CVE-2017-7650 (a name with a wildcard opens every topic of a template).
    """
    if is_account_name(text):
        return text
    raise NameRefused(
        f"{_shown(text)} cannot be the name of an account",
        hint="use 1 to 128 letters, digits, '.', '_', '@' or '-', a letter or digit first",
    )


def admit_role_name(text: str) -> str:
    """Gives back a name that a role may have.

    Args:
        text: 1–64 characters of `A–Z a–z 0–9 _ -`, the first a letter.

    Raises:
        NameRefused: The text is anything else.
    """
    if 0 < len(text) <= ROLE_CHARACTERS_MAX and _ROLE.match(text) is not None:
        return text
    raise NameRefused(
        f"{_shown(text)} cannot be the name of a role",
        hint="use 1 to 64 letters, digits, '_' or '-', a letter first",
    )


def admit_listener_name(text: str) -> str:
    """Gives back a name that a listener may have.

    Args:
        text: 1–64 characters of `A–Z a–z 0–9 _ -`, the first a letter; it is a word in logs.

    Raises:
        NameRefused: The text is anything else.
    """
    if 0 < len(text) <= LISTENER_CHARACTERS_MAX and _ROLE.match(text) is not None:
        return text
    raise NameRefused(
        f"{_shown(text)} cannot be the name of a listener",
        hint="use 1 to 64 letters, digits, '_' or '-', a letter first",
    )


def _shown(text: str) -> str:
    """Quotes a refused name in plain ASCII, cut to a length that fits a line."""
    shown = ascii(text[:48])
    return shown if len(text) <= 48 else f"{shown}…"
