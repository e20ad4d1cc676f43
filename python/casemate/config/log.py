"""The log: its form, and how much of it there is."""

from __future__ import annotations

from typing import Literal

from casemate.config.section import Section

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]


class Log(Section):
    """Describes what the broker writes to stderr while it serves.

    Attributes:
        format: `console` (a line for people and for fail2ban) or `json` (an object a line).
        level: `error`, `warning` (refusals and problems too; the default, which is what
            fail2ban needs), `info` (each connection too) or `debug`.
    """

    format: Format = "console"
    level: Level = "warning"
