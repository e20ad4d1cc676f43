"""Every event of the broker: its level and field from the code, its meaning from here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from casemate import logs

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "crates/python/src/report.rs"
PACKAGE = ROOT / "python/casemate"

_TOLD_BY_RUST = re.compile(r"\(\"([a-z][a-z-]*)\", ")
_TOLD_BY_PYTHON = re.compile(
    r"\"event\": \"([a-z-]+)\"(?:, \"fields\": \{\"(\w+)\")?"
    r"|write\(logging\.(\w+), \"([a-z-]+)\", (?:\{\"(\w+)\"|fields)"
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """Explains one event.

    Attributes:
        happened: What has happened.
        look: What an operator looks at, if anything.
    """

    happened: str
    look: str = ""


ENGINE = {
    "connected": Meaning("a client has proven itself and has its session"),
    "disconnected": Meaning("a connection has ended"),
    "taken-over": Meaning(
        "the same client has connected anew and the older connection was closed",
        "many in a row: two devices share an identity and a client id",
    ),
    "session-expired": Meaning("a session without a connection has reached its end"),
    "account-gone": Meaning("a live connection was closed, as its account was removed or changed"),
    "authentication-refused": Meaning(
        "a client could not prove who it is",
        "many from one address: guesses ([fail2ban](../guides/logs.md#fail2ban)); one from a "
        "device of yours: an old certificate or password",
    ),
    "publish-denied": Meaning(
        "no rule lets this client publish there", "`casemate role show` for the roles it holds"
    ),
    "subscribe-denied": Meaning(
        "no rule lets this client subscribe there", "`casemate role show` for the roles it holds"
    ),
    "will-denied": Meaning(
        "a will was not published, as no rule lets its client publish there",
        "the topic of the will, and the role",
    ),
    "malformed": Meaning("a client has sent bytes that are no MQTT", "its library and version"),
    "limit-reached": Meaning("a client asked for more than `[limits]` allows", "that limit"),
    "overflow": Meaning(
        "the queue of a session was full and messages were refused for it; told once until there "
        "is room again",
        "whether that client still reads, and `queue_messages_max`",
    ),
    "handshake-failed": Meaning(
        "TLS has failed", "the cause; a client with a wrong CA says so in its own log too"
    ),
    "handshake-timeout": Meaning("TLS was begun and not finished in time"),
    "plain-on-tls": Meaning("somebody spoke plaintext on a TLS port", "a client without TLS"),
    "tls-on-plain": Meaning("somebody began with TLS on a plaintext port", "the client's port"),
    "plain-on-websocket": Meaning("somebody spoke MQTT on a WebSocket port", "the client's port"),
    "http-on-mqtt": Meaning("somebody spoke HTTP on an MQTT port", "a browser or a scanner"),
    "upgrade-refused": Meaning("an HTTP request did not become a WebSocket", "path and `origins`"),
    "frame-refused": Meaning("a client has broken the rules of WebSocket", "its library"),
    "proxy-refused": Meaning(
        "an address in `proxy_from` sent no valid PROXY header", "the load balancer's settings"
    ),
    "empty-records": Meaning("a client sent TLS records that carry nothing, and too many of them"),
    "store-failing": Meaning(
        "nothing can be kept: what must be is refused (0x97) or not acknowledged; told once",
        "the cause, and [when the disk fails](../durability.md#when-the-disk-is-full-or-fails)",
    ),
    "store-full": Meaning(
        "the same, for lack of room; all goes on by itself once there is some",
        "the disk of the store",
    ),
    "store-recovered": Meaning("all is kept again"),
    "store-damaged": Meaning(
        "a part of what was kept was not found at the start; the rest is served",
        "[damage](../durability.md#damage), and a backup",
    ),
    "connections-full": Meaning(
        "there are as many connections as there may be", "`connections_max`, or who holds them"
    ),
    "accept-failed": Meaning(
        "the system gives no more connections", "the limit of open files (`ulimit -n`)"
    ),
}
"""What the engine tells."""

LOG = {
    "listening": Meaning("a listener is open"),
    "reloaded": Meaning("a part of the state on disk is in force"),
    "reload": Meaning("what came of a reload that was asked for"),
    "reload-refused": Meaning("parts of it are as they were", "the message, then reload again"),
    "problem": Meaning("a change on disk is not in force, and why", "the message"),
    "store-reading": Meaning(
        "there is much to read of what was kept; clients can connect when that is done"
    ),
    "events-lost": Meaning("events came faster than they could be taken", "`casemate status`"),
    "note": Meaning("anything else that was worth a line"),
}
"""What only the log tells."""


def text() -> str:
    """Gives the page's tables.

    Raises:
        ValueError: Code and meanings do not name the same events.
    """
    _require_same(told_by_engine(), ENGINE.keys(), REPORT.name)
    _require_same({*told_by_log(), "note"}, LOG.keys(), "the package")
    return "\n".join(
        [
            "## Of the engine",
            "",
            "Hooks and streams of a program get them as values of",
            "[classes](broker.md#questions-and-events).",
            "",
            *_table(ENGINE),
            "",
            "## Of the log",
            "",
            *_table(LOG),
            "",
        ]
    )


def told_by_engine() -> set[str]:
    """Gives the kinds that the engine's events have."""
    return set(_TOLD_BY_RUST.findall(REPORT.read_text(encoding="utf-8")))


def told_by_log() -> dict[str, str]:
    """Gives the events that Python writes, with the field that each has of its own."""
    found: dict[str, str] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for match in _TOLD_BY_PYTHON.finditer(file.read_text(encoding="utf-8")):
            found[match[1] or match[4]] = match[2] or match[5] or ""
    return found


def _table(meanings: dict[str, Meaning]) -> Iterator[str]:
    own = {**told_by_log(), **logs._DETAILS}  # noqa: SLF001 - the table that the log itself reads.
    yield "| event | level | its field | what has happened | look at |"
    yield "|---|---|---|---|---|"
    for name, one in meanings.items():
        field = f"`{own[name]}`" if own.get(name) else ""
        yield f"| `{name}` | {_level(name)} | {field} | {one.happened} | {one.look} |"


def _level(name: str) -> str:
    if name in ENGINE:
        return logging.getLevelName(logs._LEVELS.get(name, logging.WARNING)).lower()  # noqa: SLF001
    fixed = {
        "problem": "error",
        "reload-refused": "error",
        "events-lost": "warning",
        "store-reading": "warning",
        "note": "any",
    }
    return fixed.get(name, "info")


def _require_same(told: set[str], explained: Iterable[str], where: str) -> None:
    known = set(explained)
    if told != known:
        odd = ", ".join(sorted(told ^ known))
        raise ValueError(f"{where} and docs/generate/events.py do not name the same events: {odd}")
