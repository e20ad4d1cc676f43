"""The configuration, `casemate.toml`: what the broker listens on, and how much it may be asked.

Every option has a safe zero value. An unknown key is an error, never ignored. What weakens the
broker is spelled `insecure_*` and needs a written reason.
"""

from casemate.config.configuration import (
    FILE_NAME,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    Configuration,
    default_text,
    load,
    parse,
)
from casemate.config.limits import Limits
from casemate.config.listener import Listener
from casemate.config.section import REASON_CHARACTERS_MAX, REASON_CHARACTERS_MIN

__all__ = [
    "FILE_NAME",
    "REASON_CHARACTERS_MAX",
    "REASON_CHARACTERS_MIN",
    "SERVER_CERTIFICATE",
    "SERVER_KEY",
    "Configuration",
    "Limits",
    "Listener",
    "default_text",
    "load",
    "parse",
]
