"""The log of a serving broker: one line for each event, whatever a peer has written into it.

Each line names its time, level and event, then fields with stable names, so that fail2ban, `jq` and
people read the same. Everything that a peer wrote stands behind what the broker knows, cut and
escaped. Under a flood the lines of one kind from one address become one line each second, with
their number; nothing is left out unseen.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TextIO

from casemate import native
from casemate.config import Log

EVENTS_LOGGER = "casemate.events"

CHARACTERS_MAX = 256
"""Longest value that is shown whole; an error's trace may be longer."""

TRACE_CHARACTERS_MAX = 8_192

WINDOW_S = 1.0
"""Time over which a flood is gathered, in seconds."""

LINES_PER_ADDRESS_MAX = 5
"""Lines of one kind from one address in a window; five is where fail2ban bans by default."""

LINES_MAX = 500
"""Lines of single events in a window, whoever they are from."""

ADDRESSES_MAX = 1_024
"""Kinds and addresses that are counted apart in a window; those beyond share one line a kind."""

MANY = "*"
"""Stands for the address where a line is about more addresses than were counted apart."""

Value = str | int | None
Fields = Mapping[str, Value]

_EVENTS = logging.getLogger(EVENTS_LOGGER)

_LEVELS = {
    "connected": logging.INFO,
    "disconnected": logging.INFO,
    "taken-over": logging.INFO,
    "session-expired": logging.INFO,
    "account-gone": logging.INFO,
    "accept-failed": logging.ERROR,
    "store-failing": logging.ERROR,
    "store-full": logging.ERROR,
    "store-damaged": logging.ERROR,
}
"""Levels of the kinds that are no warning; a kind that is not named here is one."""

_DETAILS = {
    "connected": "session",
    "disconnected": "cause",
    "authentication-refused": "reason",
    "publish-denied": "topic",
    "subscribe-denied": "filter",
    "will-denied": "topic",
    "malformed": "cause",
    "overflow": "refused",
    "limit-reached": "limit",
    "handshake-failed": "cause",
    "upgrade-refused": "cause",
    "frame-refused": "cause",
    "proxy-refused": "cause",
    "accept-failed": "cause",
    "store-failing": "cause",
    "store-full": "cause",
    "store-recovered": "batches",
    "store-damaged": "damage",
}
"""What the detail of an event is called; of others it is called `detail`."""

_BARE = re.compile(r"[A-Za-z0-9._:/@+*%-]+\Z", re.ASCII)
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def begin(settings: Log, stream: TextIO) -> None:
    """Lets the log of this process through to a stream, in the form that was asked for.

    Args:
        settings: Form and level. Of other libraries nothing below `info` is shown.
        stream: Where to; one line a record.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if settings.format == "json" else ConsoleLines())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("casemate").setLevel(level)


class JsonLines(logging.Formatter):
    """Writes each record as one JSON object of plain ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Gives the line of a record."""
        values = {
            "time": _time(record),
            "level": record.levelname.lower(),
            **{name: _whole(value) for name, value in _fields(record).items()},
        }
        return json.dumps(values, ensure_ascii=True)


class ConsoleLines(logging.Formatter):
    """Writes each record as time, level, event and `name=value`, quoted where there is need."""

    def format(self, record: logging.LogRecord) -> str:
        """Gives the line of a record."""
        fields = dict(_fields(record))
        event = fields.pop("event")
        said = "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        return f"{_time(record)} {record.levelname} {_quoted(event)}{said}"


@dataclass(slots=True)
class _Tally:
    """Counts the events of one kind and address in a window."""

    written: int = 0
    held: int = 0
    last: native.Event | None = None


class EventLog:
    """Writes the engine's events to the log, between `start` and `stop`, or inside `with`."""

    def __init__(self) -> None:
        """Has seen nothing yet."""
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str | None], _Tally] = {}
        self._written = 0
        self._lost: Callable[[], int] = int
        self._lost_said = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def count_losses(self, lost: Callable[[], int]) -> None:
        """Names where to ask how many events were lost before anybody could take them."""
        self._lost = lost

    def take(self, event: native.Event) -> None:
        """Writes an event, or counts it where too many of its kind come from its address."""
        level = _LEVELS.get(event.kind, logging.WARNING)
        if not _EVENTS.isEnabledFor(level):
            return
        with self._lock:
            if self._holds_back(event):
                return
        write(level, event.kind, event_fields(event), event.time_unix_ms)

    def flush(self) -> None:
        """Ends a window: writes what was held back, and what was lost."""
        with self._lock:
            tallies, self._tallies, self._written = self._tallies, {}, 0
        for (kind, address), tally in tallies.items():
            if tally.last is not None:
                fields = {
                    "listener": tally.last.listener,
                    "address": address,
                    "count": tally.held,
                }
                write(_LEVELS.get(kind, logging.WARNING), kind, fields, tally.last.time_unix_ms)
        lost = self._lost()
        if lost > self._lost_said:
            write(logging.WARNING, "events-lost", {"count": lost - self._lost_said})
            self._lost_said = lost

    def start(self) -> None:
        """Begins to end windows by itself."""
        self._thread = threading.Thread(target=self._run, name="casemate-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Writes what is held back, and ends; idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()

    def __enter__(self) -> Self:
        """Starts."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops."""
        self.stop()

    def _run(self) -> None:
        while not self._stopping.wait(WINDOW_S):
            self.flush()

    def _holds_back(self, event: native.Event) -> bool:
        address: str | None = _host_and_port(event.address)[0]
        tally = self._tallies.get((event.kind, address))
        if tally is None:
            if len(self._tallies) >= ADDRESSES_MAX:
                address = MANY
            tally = self._tallies.setdefault((event.kind, address), _Tally())
        if address != MANY and tally.written < LINES_PER_ADDRESS_MAX and self._written < LINES_MAX:
            tally.written += 1
            self._written += 1
            return False
        tally.held += 1
        tally.last = event
        return True


def event_fields(event: native.Event) -> dict[str, Value]:
    """Gives what an event says: first what the broker knows, then what a peer may have chosen."""
    address, port = _host_and_port(event.address)
    fields: dict[str, Value] = {"listener": event.listener, "address": address, "port": port}
    if event.principal:
        fields["principal"] = event.principal
    if event.client_id:
        fields["client"] = event.client_id
    detail = event.detail
    if event.kind == "connected":
        detail = detail or "new"
    elif event.kind == "disconnected":
        # The engine's own word, as in KeepAlive: no peer can choose it.
        detail = _WORD_START.sub("-", detail).lower()
    if detail:
        fields[_DETAILS.get(event.kind, "detail")] = detail
    return fields


def write(level: int, event: str, fields: Fields, time_unix_ms: int | None = None) -> None:
    """Writes one event, which need not be the engine's.

    Args:
        level: As in `logging`.
        event: Its name, one word with hyphens.
        fields: What there is to say.
        time_unix_ms: When it happened; None is now.
    """
    extra = {"event": event, "fields": fields, "time_unix_ms": time_unix_ms}
    _EVENTS.log(level, event, extra=extra)


def _fields(record: logging.LogRecord) -> dict[str, Value]:
    """Gives the fields of a record, its event first.

    Whoever logs may add `extra={"event": …, "fields": {…}}`; what has no event is a `note`.
    """
    event = str(getattr(record, "event", "note"))
    fields: dict[str, Value] = {"event": event, **getattr(record, "fields", {})}
    message = record.getMessage()
    if message != event:
        fields["message"] = message
    if record.exc_info and record.exc_info[0] is not None:
        fields["error"] = record.exc_info[0].__name__
        trace = logging.Formatter().formatException(record.exc_info)
        # The end names the place; what is cut is cut in front.
        fields["trace"] = trace[-TRACE_CHARACTERS_MAX:]
    return {
        name: value if name == "trace" or not isinstance(value, str) else _cut(value)
        for name, value in fields.items()
    }


def _time(record: logging.LogRecord) -> str:
    at_ms = getattr(record, "time_unix_ms", None)
    at_s = record.created if at_ms is None else at_ms / 1_000
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%S}.{int(at_s * 1_000) % 1_000:03}Z"


# One connection may make a hundred thousand events a second; its address is read once.
@functools.lru_cache(maxsize=ADDRESSES_MAX)
def _host_and_port(address: str | None) -> tuple[str | None, int | None]:
    """Takes `192.0.2.1:1234` or `[2001:db8::1]:1234` apart; a socket in a file has neither."""
    if address is None:
        return None, None
    host, _, port = address.rpartition(":")
    try:
        parsed = ipaddress.ip_address(host.strip("[]"))
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        # A ban of the mapped form would not keep the IPv4 address out.
        return str(mapped or parsed), int(port)
    except ValueError:
        return address, None


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS_MAX else f"{text[:CHARACTERS_MAX]}…"


def _whole(value: Value) -> Value:
    """Gives a value that strict readers of JSON take: no half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def _quoted(value: Value) -> str:
    """Gives a value as one word, or in quotes with everything escaped that could mislead."""
    if value is None:
        return "-"
    text = str(value)
    if _BARE.match(text):
        return text
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else ascii(character)[1:-1]
