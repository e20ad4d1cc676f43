"""How a running broker is doing, as numbers a second: computed, drawn, and said in a line."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from casemate.broker import Status
from casemate.cli.console import printable
from casemate.cli.posture import describe, store_lines

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SPAN_S = 5.0
"""Time over which a rate is taken, in seconds: long enough to be calm, short enough to be news."""

STALE_S = 10
"""Age from which a status is no news, in seconds."""

RATES = {
    "messages_received_per_s": "publishes_received",
    "messages_sent_per_s": "publishes_sent",
    "bytes_received_per_s": "bytes_received",
    "bytes_sent_per_s": "bytes_sent",
    "connections_per_s": "connections_total",
}
"""The rates, and the counter that each is taken from."""

NOW = {
    "connections_now": "connections",
    "sessions_now": "sessions",
    "subscriptions_now": "subscriptions",
    "retained_now": "retained messages",
}

REFUSED = {
    "authentication_refused": "logins refused",
    "publish_denied": "publishes denied",
    "subscribe_denied": "subscriptions denied",
    "will_denied": "wills denied",
    "malformed": "malformed packets",
    "limit_refusals": "limits reached",
    "handshake_failures": "handshakes failed",
    "handshake_timeouts": "handshakes too slow",
    "upgrades_refused": "WebSockets refused",
    "frames_refused": "WebSocket frames refused",
    "http_on_mqtt": "HTTP on a port of MQTT",
    "proxy_refused": "PROXY headers refused",
    "connect_deadlines": "connects too slow",
    "slow_readers": "readers too slow",
    "refused_full": "connections refused, full",
    "refused_newest": "messages refused, queue full",
    "dropped_oldest": "messages dropped, QoS 0",
    "events_lost": "events lost",
}
"""What the broker turned away, by counter, in the order in which it is shown."""


class Rates:
    """Takes one status after another and says how fast its counters grow."""

    def __init__(self) -> None:
        """Has seen nothing yet."""
        self._samples: deque[tuple[float, Status]] = deque()

    def take(self, at_s: float, status: Status) -> dict[str, float | None]:
        """Takes a status and gives the rates over the last seconds.

        Args:
            at_s: When it was written, in seconds of any clock that does not jump.
            status: Of the broker; after a restart counting begins anew.

        Returns:
            Each rate by its name; None while there is nothing to compare with.
        """
        samples = self._samples
        if samples and not _is_same(samples[-1][1], status):
            samples.clear()
        if not samples or at_s > samples[-1][0]:
            samples.append((at_s, status))
        # One sample before the span stays, or a slow writer would leave nothing to compare with.
        while len(samples) > 2 and samples[1][0] <= at_s - SPAN_S:
            samples.popleft()
        (first_s, first), (last_s, last) = samples[0], samples[-1]
        if last_s <= first_s:
            return dict.fromkeys(RATES)
        return {
            rate: round((last.counters[name] - first.counters[name]) / (last_s - first_s), 1)
            for rate, name in RATES.items()
            if name in last.counters and name in first.counters
        }


def snapshot(status: Status, rates: dict[str, float | None]) -> dict[str, object]:
    """Gives what JSON shows."""
    return {**asdict(status), "running": True, "rates": rates}


def line(status: Status, rates: dict[str, float | None]) -> str:
    """Gives a status in one line, for what is no terminal."""
    counters = status.counters
    fields: list[tuple[str, object]] = [
        ("connections", counters.get("connections_now")),
        ("sessions", counters.get("sessions_now")),
        *rates.items(),
        ("refused", sum(counters.get(name, 0) for name in REFUSED)),
        ("problems", len(status.problems)),
        ("weakenings", len(status.weakenings)),
        ("store", "failing" if status.store.failing else status.store.durability),
    ]
    at = datetime.fromtimestamp(status.updated_unix_s, UTC)
    said = " ".join(f"{name}={'-' if value is None else value}" for name, value in fields)
    return f"{at:%Y-%m-%dT%H:%M:%SZ} {said}"


def lines(status: Status, now_unix_s: int) -> list[str]:
    """Gives a status in lines for people."""
    counters = status.counters
    found = [f"running    pid {status.pid}, for {span(now_unix_s - status.started_unix_s)}"]
    found += [f"listening  {describe(one)}" for one in status.listeners]
    found += [f"weakened   {one}" for one in status.weakenings]
    found += [f"problem    {one}" for one in _problems(status, now_unix_s)]
    found += store_lines(status.store)
    shown = {
        **NOW,
        "publishes_received": "messages received",
        "publishes_sent": "messages sent",
        "bytes_received": "bytes received",
        "bytes_sent": "bytes sent",
    }
    found += [f"{counters[key]:>12,}  {words}" for key, words in shown.items() if key in counters]
    found += [
        f"{counters[key]:>12,}  {words}" for key, words in REFUSED.items() if _is(counters, key)
    ]
    return found


def view(status: Status, rates: dict[str, float | None], now_unix_s: int) -> Group:
    """Draws a status for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    counters = status.counters
    uptime = span(now_unix_s - status.started_unix_s)
    head = Text(f"casemate {status.version}, pid {status.pid}, for {uptime}", style="bold")
    doors = Table.grid(padding=(0, 2))
    for one in status.listeners:
        doors.add_row(Text(printable(one.name)), Text(printable(describe(one))))
    numbers = [(words, f"{counters[key]:,}") for key, words in NOW.items() if key in counters]
    numbers += [
        (rate.removesuffix("_per_s").replace("_", " ") + "/s", _rate(value))
        for rate, value in rates.items()
    ]
    refused = [
        (words, f"{counters[key]:,}") for key, words in REFUSED.items() if _is(counters, key)
    ]
    both = Table.grid(padding=(0, 6))
    both.add_row(_numbers("now", numbers), _numbers("turned away", refused or [("nothing", "")]))
    notes = [Text(printable(f"problem   {one}"), "red") for one in _problems(status, now_unix_s)]
    notes += [Text(printable(f"weakened  {one}"), "yellow") for one in status.weakenings]
    style = "red" if status.store.failing or status.store.damage else "dim"
    notes += [Text(printable(one), style) for one in store_lines(status.store)]
    return Group(head, doors, Text(), both, *notes, Text("Ctrl-C ends this view.", "dim"))


def span(seconds: int) -> str:
    """Gives a time in its largest unit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def _numbers(title: str, rows: list[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column()
    table.add_row(Text(), Text(title, "bold"))
    for words, number in rows:
        table.add_row(number, words)
    return table


def _problems(status: Status, now_unix_s: int) -> list[str]:
    age_s = now_unix_s - status.updated_unix_s
    stale = [f"the status is {span(age_s)} old; can the home be written?"]
    return [*status.problems, *(stale if age_s > STALE_S else [])]


def _is(counters: dict[str, int], key: str) -> bool:
    return counters.get(key, 0) > 0


def _is_same(before: Status, after: Status) -> bool:
    return (before.pid, before.started_unix_s) == (after.pid, after.started_unix_s)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
