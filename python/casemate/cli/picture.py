"""How `sub` shows a message to somebody who watches a terminal: a heading, then the payload."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from casemate.cli import record
from casemate.cli.console import safe

if TYPE_CHECKING:
    from casemate.cli.form import Piece
    from casemate.client import Message

SHOWN_BYTES_MAX = 16_384
"""Bytes of a payload that are shown; a picture of a firmware image helps nobody."""

_ROW_BYTES = 16
_COLOURS = {
    "topic": "1;36", "plain": "2", "key": "34", "string": "32", "number": "33", "literal": "35",
}  # fmt: skip


def is_coloured() -> bool:
    """Says whether stdout wants colour: a terminal that is not dumb, and no `NO_COLOR`."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()


def pictures(*, coloured: bool) -> Piece:
    """Gives what shows a message.

    JSON is laid out, other text shown by lines, and what is no text as bytes. No character of a
    message reaches the terminal that could steer it.

    Args:
        coloured: Whether words are coloured.
    """

    def paint(kind: str, word: str) -> str:
        shown = safe(word)
        return f"\x1b[{_COLOURS[kind]}m{shown}\x1b[0m" if coloured else shown

    def show(message: Message, at_ns: int) -> bytes:
        clock = time.strftime("%H:%M:%S", time.localtime(at_ns // 1_000_000_000))
        facts = [f"{len(message.payload):,} B", f"QoS {message.qos}"]
        if message.retain:
            facts.append("retained")
        if message.properties.content_type is not None:
            facts.append(message.properties.content_type)
        heading = f"{paint('topic', message.topic)}  {paint('plain', '  '.join([clock, *facts]))}"
        body = _body(message.payload, paint)
        return "\n".join([heading, *(f"  {line}" for line in body)]).encode()

    return show


def _body(payload: bytes, paint: record.Paint) -> list[str]:
    if not payload:
        return []
    shown = payload[:SHOWN_BYTES_MAX]
    rest = len(payload) - len(shown)
    text = None if rest else record.read(payload)
    if text is not None:
        lines = record.lay_out(text, paint).split("\n")
    else:
        lines = _lines(shown, is_cut=rest > 0)
    if rest:
        lines.append(paint("plain", f"… and {rest:,} B more, which -F raw prints"))
    return lines


def _lines(payload: bytes, *, is_cut: bool) -> list[str]:
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        # A character that the bound has cut in two is text all the same.
        if not is_cut or error.start < len(payload) - 3:
            return [_row(payload, at) for at in range(0, len(payload), _ROW_BYTES)]
        text = payload[: error.start].decode()
    return [safe(line) for line in text.removesuffix("\n").split("\n")]


def _row(payload: bytes, at: int) -> str:
    row = payload[at : at + _ROW_BYTES]
    letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
    return f"{at:06x}  {row.hex(' '):<{_ROW_BYTES * 3 - 1}}  {letters}"
