"""Every reason code of MQTT 5.0: its name, and what the broker says with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from casemate import native

WORDING = Path(__file__).resolve().parents[2] / "crates/engine/src/wording.rs"

_ARM = re.compile(r"^\s{8}([A-Z]\w+(?: \| [A-Z]\w+)*) => \"([^\"]+)\",$", re.MULTILINE)
_REFUSAL = 0x80


def text() -> str:
    """Gives the page's two tables: answers that are no refusal, and refusals."""
    return "\n".join(
        [
            "## Answers",
            "",
            *_table(code for code in codes() if code < _REFUSAL),
            "",
            "## Refusals",
            "",
            *_table(code for code in codes() if code >= _REFUSAL),
            "",
        ]
    )


def codes() -> list[int]:
    """Gives each code that MQTT 5.0 defines."""
    return [code for code in range(256) if native.reason_name(code) is not None]


def words() -> dict[str, str]:
    """Gives the broker's sentence for each code that has one, by the code's name without blanks."""
    found = {
        name.lower(): said
        for names, said in _ARM.findall(WORDING.read_text(encoding="utf-8"))
        for name in names.split(" | ")
    }
    if not found:
        raise ValueError(f"{WORDING.name} has no words that this can read")
    return found


def _table(wanted: Iterator[int]) -> Iterator[str]:
    said = words()
    yield "| code | name | what a casemate broker says with it |"
    yield "|---|---|---|"
    for code in wanted:
        # As in "Not authorized (0x87)".
        name = (native.reason_name(code) or "").rpartition(" (")[0]
        yield f"| 0x{code:02X} | {name} | {said.get(name.replace(' ', '').lower(), '–')} |"
