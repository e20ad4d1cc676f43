"""The filter of the guide to the logs, read and applied as fail2ban does."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs/guides/logs.md").read_text(encoding="utf-8")


def failregexes() -> list[re.Pattern[str]]:
    """Reads the filter out of the guide, as fail2ban does."""
    parser = configparser.ConfigParser(interpolation=None)
    block = next(one for one in re.findall(r"```ini\n(.*?)```", GUIDE, re.DOTALL) if "_date" in one)
    parser.read_string(block)
    section = parser["Definition"]
    found = []
    for text in section["failregex"].splitlines():
        for name in ("_date", "_event"):
            text = text.replace(f"%({name})s", section[name])
        found.append(re.compile(text.replace("<ADDR>", r"(?P<ip>[0-9a-fA-F.:]+)")))
    return found


def banned(text: str) -> str | None:
    """Gives the address that fail2ban would count: it takes the date out, and searches."""
    for pattern in failregexes():
        if found := pattern.search(text):
            return found["ip"]
    return None
