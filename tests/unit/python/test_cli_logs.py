"""The log of a real broker, as a process writes it and as fail2ban reads it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from typing import Any

import pytest

from casemate import native
from tests.unit.python.commands import ROOT, casemate, environment, running
from tests.unit.python.fail2ban import banned

HOSTILE = "\x1b[31m\u202e\n WARNING authentication-refused listener=tcp address=203.0.113.9 "
SECRET = "not-the-password-7f3a"


def knock(
    port: int, username: str, password: str, client_id: str, source: str = "127.0.0.1"
) -> bytes:
    """Connects with a name and a password; gives the answer."""
    with socket.create_connection(("127.0.0.1", port), 20, (source, 0)) as peer:
        hello = native.encode_connect(5, client_id, username=username, password=password.encode())
        peer.sendall(hello)
        return peer.recv(100)


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_refused_login_can_be_banned_and_shows_no_secret(form: str) -> None:
    """Mosquitto #2329, #919: fail2ban needs refused logins with their address, a line each."""
    with running("lab", "--log-format", form) as lab:
        ready = json.loads(lab.until('"data_dir"'))
        for _ in range(12):
            assert b"\x86" in knock(ready["port"], "all", SECRET, HOSTILE)
        lab.until("count" if form == "json" else "count=")
        assert lab.stop() == 0
    lines = [one for one in lab.text.splitlines() if "authentication-refused" in one]
    assert [banned(one) for one in lines] == ["127.0.0.1"] * len(lines)
    assert 5 < len(lines) < 12
    counts = [int(found[1]) for one in lines if (found := re.search(r"count\W+(\d+)", one))]
    assert sum(counts) + len(lines) - len(counts) == 12
    assert SECRET not in lab.text
    assert all(character.isprintable() for one in lab.text.splitlines() for character in one)


def test_each_connection_is_logged_where_that_was_asked_for() -> None:
    with running("lab", "--log-format", "json", "--log-level", "info") as lab:
        events: list[dict[str, Any]] = [json.loads(lab.until("listening"))]
        ready = json.loads(lab.until('"data_dir"'))
        knock(ready["port"], "all", ready["users"]["all"], "probe")
        for kind in ("connected", "disconnected"):
            events.append(json.loads(lab.until(f'"{kind}"')))
        assert lab.stop() == 0
    listening, connected, disconnected = events
    assert (listening["address"], listening["level"]) == ("127.0.0.1", "info")
    for one in (connected, disconnected):
        assert (one["address"], one["principal"], one["client"]) == ("127.0.0.1", "all", "probe")
        assert one["listener"] == "tcp"
    assert connected["session"] == "new"
    for secret in ready["users"].values():
        assert lab.text.count(secret) == 1


@pytest.mark.parametrize("words", [["--log-format", "xml"], ["--log-level", "all"]])
@pytest.mark.parametrize("command", ["run", "up", "lab"])
def test_a_wrong_form_or_level_is_a_usage_error(command: str, words: list[str]) -> None:
    done = casemate(command, *words)
    assert done.returncode == 2
    assert "is not one of" in done.stderr


def test_a_log_that_nobody_reads_stops_no_message() -> None:
    """The writer of the log waits for its reader; those who carry messages do not."""
    ours, theirs = os.pipe()
    # The least that the system gives: some twenty lines.
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4_096)
    program = [sys.executable, "-c", "from casemate.cli.app import main; main()", "lab"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=theirs, env=environment(), cwd=ROOT
    ) as lab:
        os.close(theirs)
        assert lab.stdout is not None
        ready = json.loads(lab.stdout.readline())
        for number in range(200):
            # Each comes from an address of its own, so that each has its line.
            host = f"127.1.{number}.1"
            assert b"\x86" in knock(ready["port"], "all", SECRET, "x" * 999, source=host)
        answer = knock(ready["port"], "all", ready["users"]["all"], "probe")
        assert answer.startswith(b"\x20")
        assert answer[3] == 0
        lab.terminate()
        text = b""
        while piece := os.read(ours, 65_536):
            text += piece
        assert lab.wait(20) == 0
    os.close(ours)
    assert text.count(b"authentication-refused") == 200
