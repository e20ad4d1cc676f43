"""What is kept as JSON lines: written by `casemate store export`, read by `casemate store import`.

The first line says what this is, the last one how much it was, so that a file that was cut short is
known. Between them each session is a line, what waits in it one line each behind it, and each
retained message a line. docs/durability.md describes the fields.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from casemate import __version__, native
from casemate.errors import StoreError

FORMAT = 1

_BYTES = ("payload", "properties")
_INSIDE = {
    "session": frozenset(
        {
            "tenant", "realm", "name", "client_id", "bound", "roles", "expiry_s", "ends_unix_ms",
            "will", "subscriptions", "incoming", "first_exchange", "exchanges", "waiting",
        }
    ),
    "waiting": frozenset({"message", "qos", "retain", "subscription_ids", "share"}),
    "retained": frozenset({"tenant", "message"}),
}  # fmt: skip
"""The fields of each kind of line."""


@dataclass(slots=True)
class Tally:
    """Counts what went over.

    Attributes:
        sessions: Sessions.
        waiting: Messages that wait in them; those whose exchange has begun are not counted.
        retained: Retained messages.
    """

    sessions: int = 0
    waiting: int = 0
    retained: int = 0

    def words(self) -> str:
        """Gives it in words."""
        return (
            f"{self.sessions:,} sessions, {self.waiting:,} messages that wait, "
            f"{self.retained:,} retained messages"
        )


def write(store: native.Store, out: IO[str], tally: Tally) -> None:
    """Writes everything that is kept.

    Args:
        store: That nobody serves.
        out: Takes the lines.
        tally: Counts while it goes.

    Raises:
        OSError: The lines cannot be written.
        StoreRefused: As `native.Store.export`.
    """

    def put(kind: str, values: dict[str, Any]) -> None:
        out.write(json.dumps({"kind": kind, **_written(values)}) + "\n")

    def session(values: dict[str, Any]) -> None:
        waiting = values["waiting"]
        put("session", {**values, "waiting": len(waiting)})
        tally.sessions += 1
        for entry in waiting:
            put("waiting", entry)
            tally.waiting += 1

    def retained(tenant: int, message: dict[str, Any]) -> None:
        put("retained", {"tenant": tenant, "message": message})
        tally.retained += 1

    at_ms = int(time.time() * 1_000)
    head = {"casemate_store": FORMAT, "version": __version__, "exported_unix_ms": at_ms}
    out.write(json.dumps(head) + "\n")
    store.export(session, retained)
    put("end", _counts(tally))


def read(file: Path, filling: native.StoreFilling, tally: Tally) -> None:
    """Puts the lines of a file into a store that holds nothing.

    Args:
        file: As `write` has written it.
        filling: The store.
        tally: Counts while it goes.

    Raises:
        StoreError: The file cannot be read, is not whole, or says what no broker can have kept.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            _Reader(file, lines, filling, tally).read()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{file} cannot be read", cause=str(error)) from error


class _Reader:
    """Goes through the lines once."""

    def __init__(
        self, file: Path, lines: IO[str], filling: native.StoreFilling, tally: Tally
    ) -> None:
        self._file, self._lines, self._filling, self._tally = file, lines, filling, tally
        self._number = 0

    def read(self) -> None:
        found = self._values()
        head = next(found, {})
        if head.get("casemate_store") != FORMAT:
            said = head.get("casemate_store", "none")
            raise self._wrong(f"expected an export of format {FORMAT}, found {said}")
        for values in found:
            kind = values.pop("kind", None)
            if kind == "end":
                if values != _counts(self._tally):
                    raise self._wrong(f"the end counts {values}, found {_counts(self._tally)}")
                if next(found, None) is not None:
                    raise self._wrong("expected nothing behind the end")
                return
            if kind == "session":
                self._session(self._known("session", values), found)
            elif kind == "retained":
                self._retained(self._known("retained", values))
            else:
                raise self._wrong(f"expected session, retained or end, found {kind!a:.40}")
        self._number += 1
        raise self._wrong("the end is missing: the file was cut short")

    def _values(self) -> Iterator[dict[str, Any]]:
        for line in self._lines:
            self._number += 1
            try:
                values = json.loads(line)
            except ValueError as error:
                raise self._wrong("expected a JSON object") from error
            if not isinstance(values, dict):
                raise self._wrong("expected a JSON object")
            yield values

    def _session(self, values: dict[str, Any], found: Iterator[dict[str, Any]]) -> None:
        at, count = self._number, values["waiting"]
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise self._wrong("waiting is the number of lines that follow")
        waiting = []
        for _ in range(count):
            entry = next(found, {})
            if entry.pop("kind", None) != "waiting":
                raise self._wrong(f"expected {count:,} messages behind the session of line {at}")
            waiting.append(self._known("waiting", entry))
        self._put(lambda: self._filling.session({**values, "waiting": waiting}), at)
        self._tally.sessions += 1
        self._tally.waiting += count

    def _retained(self, values: dict[str, Any]) -> None:
        self._put(lambda: self._filling.retained(values["tenant"], values["message"]))
        self._tally.retained += 1

    def _known(self, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """Refuses fields that would be ignored, and gives bytes as bytes."""
        if values.keys() != _INSIDE[kind]:
            odd = sorted(values.keys() ^ _INSIDE[kind])
            raise self._wrong(f"{kind}: missing or unknown: {', '.join(map(ascii, odd[:4]))}")
        try:
            read: dict[str, Any] = _read(values)
        except ValueError as error:
            raise self._wrong("payload and properties are base64") from error
        return read

    def _put(self, put: Callable[[], None], line: int | None = None) -> None:
        try:
            put()
        except native.StoreRefused:
            raise
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            cause = error.__cause__
            words = str(error) if cause is None else f"{error}: {cause}"
            raise self._wrong(words, line) from error

    def _wrong(self, message: str, line: int | None = None) -> StoreError:
        at = self._number if line is None else line
        return StoreError(f"{self._file}:{at}: {message}", hint="nothing was imported")


def _counts(tally: Tally) -> dict[str, int]:
    return {
        "sessions": tally.sessions,
        "waiting": tally.waiting,
        "retained": tally.retained,
    }


def _written(value: Any) -> Any:  # noqa: ANN401 - JSON.
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: _written(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_written(one) for one in value]
    return value


def _read(value: Any, key: str = "") -> Any:  # noqa: ANN401 - JSON.
    if key in _BYTES and isinstance(value, str):
        return base64.b64decode(value, validate=True)
    if isinstance(value, dict):
        return {name: _read(one, name) for name, one in value.items()}
    if isinstance(value, list):
        listed = [_read(one) for one in value]
        return tuple(listed) if key == "share" else listed
    return value
