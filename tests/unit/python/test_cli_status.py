"""The status of a broker: rates that are true, and a view that ends as it should."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casemate.broker import Listening, Status
from casemate.cli import dashboard
from tests.unit.python.commands import ROOT, casemate, environment, running

HOSTILE = "\x1b[31mred\u202e"


def status(counters: dict[str, int] | None = None, **others: Any) -> Status:  # noqa: ANN401
    values = {
        "version": "1",
        "pid": 7,
        "started_unix_s": 1_000,
        "updated_unix_s": 1_060,
        "listeners": (Listening("tls", "tls", "127.0.0.1", 8883, "optional"),),
        "counters": {"publishes_received": 0, **(counters or {})},
        "problems": (),
        "weakenings": (),
        **others,
    }
    return Status(**values)


def test_one_status_has_no_rate() -> None:
    assert set(dashboard.Rates().take(1.0, status()).values()) == {None}


def test_a_rate_is_what_a_counter_grew_in_a_second() -> None:
    rates = dashboard.Rates()
    for second in range(20):
        found = rates.take(100 + second * 1.25, status({"publishes_received": second * 100}))
    assert found["messages_received_per_s"] == 80.0


def test_a_rate_forgets_what_was_long_ago() -> None:
    rates = dashboard.Rates()
    rates.take(0, status())
    for second in range(100, 107):
        found = rates.take(second, status({"publishes_received": 1_000_000}))
    assert found["messages_received_per_s"] == 0.0


def test_a_status_that_was_seen_already_changes_nothing() -> None:
    rates = dashboard.Rates()
    rates.take(1, status())
    first = rates.take(2, status({"publishes_received": 5}))
    assert rates.take(2, status({"publishes_received": 5})) == first
    assert first["messages_received_per_s"] == 5.0


def test_a_restart_begins_anew() -> None:
    rates = dashboard.Rates()
    rates.take(1, status({"publishes_received": 1_000}))
    found = rates.take(2, status({"publishes_received": 3}, pid=8, started_unix_s=2))
    assert set(found.values()) == {None}


def test_a_line_holds_everything_and_no_line_break() -> None:
    found = status({"authentication_refused": 3, "malformed": 2}, problems=("a\nb",))
    said = dashboard.line(found, {"messages_sent_per_s": None, "bytes_sent_per_s": 2.5})
    assert said.startswith("1970-01-01T00:17:40Z ")
    for words in ("refused=5", "problems=1", "messages_sent_per_s=-", "bytes_sent_per_s=2.5"):
        assert words in said
    assert said.isprintable()


def test_a_status_that_is_not_written_any_more_is_a_problem() -> None:
    assert not any("old" in one for one in dashboard.lines(status(), 1_065))
    assert any("2 min old" in one for one in dashboard.lines(status(), 1_190))


def test_the_picture_shows_problems_and_weakenings_and_no_hostile_text() -> None:
    from rich.console import Console

    found = status(
        {"authentication_refused": 3}, problems=(HOSTILE,), weakenings=("tcp: plaintext (a cable)",)
    )
    screen = Console(width=100, force_terminal=False)
    with screen.capture() as captured:
        screen.print(dashboard.view(found, dashboard.Rates().take(1, found), 1_061))
    for words in ("logins refused", "a cable", r"\x1b[31mred\u202e", "TLS 1.3", "pid 7", "1 min"):
        assert words in captured.get()
    assert "\x1b" not in captured.get()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Any]:
    with running("lab", "--data", tmp_path) as one:
        one.until("data_dir")
        yield one


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_watching_writes_a_line_each_second_and_ends_in_order(
    lab: Any,  # noqa: ANN401
    tmp_path: Path,
    form: list[str],
) -> None:
    with running("status", "--watch", "--home", tmp_path / "home", *form) as watching:
        for _ in range(2):
            said = watching.until("connections")
            if form:
                found = json.loads(said)
                assert found["running"]
                assert set(found["rates"]) == set(dashboard.RATES)
        assert watching.stop(signal.SIGINT) == 0, watching.text
        assert "Traceback" not in watching.text
    assert lab.stop() == 0


def test_watching_ends_with_1_when_the_broker_stops(
    lab: Any,  # noqa: ANN401
    tmp_path: Path,
) -> None:
    with running("status", "--watch", "--home", tmp_path / "home") as watching:
        watching.until("connections")
        assert lab.stop() == 0
        assert watching.end() == 1
        assert "error: " in watching.text
        assert "Traceback" not in watching.text


def test_a_terminal_gets_a_picture_without_colour_where_that_is_asked_for(
    lab: Any,  # noqa: ANN401
    tmp_path: Path,
) -> None:
    ours, theirs = pty.openpty()
    program = [sys.executable, "-c", "from casemate.cli.app import main; main()"]
    with subprocess.Popen(
        [*program, "status", "--watch", "--home", str(tmp_path / "home")],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env={**environment(), "TERM": "xterm-256color", "NO_COLOR": "1"},
    ) as watching:  # fmt: skip
        os.close(theirs)
        seen, until = b"", time.monotonic() + 20
        while b"ends this view" not in seen and time.monotonic() < until:
            seen += os.read(ours, 4_096)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 0
    os.close(ours)
    text = seen.decode()
    assert "TLS 1.3" in text
    # Bold and dim may stay; 30 to 49 and 90 to 107 would be colours.
    codes = [
        int(code or 0) for one in re.findall(r"\x1b\[([\d;]*)m", text) for code in one.split(";")
    ]
    assert not [code for code in codes if 30 <= code <= 49 or code >= 90]
    assert lab.stop() == 0


def test_the_exit_code_says_what_is_the_case(tmp_path: Path) -> None:
    assert casemate("status", "--home", tmp_path / "nowhere").returncode == 3
    home = tmp_path / "home"
    assert casemate("init", "--home", home).returncode == 0
    for form in ([], ["--watch"], ["--json"], ["--watch", "--json"]):
        assert casemate("status", "--home", home, *form).returncode == 1
