"""Progress is for somebody who watches: shown while work lasts, cleared behind it, else nowhere."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import subprocess
import sys
import threading

import pytest

from casemate.cli.progress import progress, watched
from casemate.testing import ThrowAwayBroker
from tests.unit.python.commands import MAIN, PATIENCE_S, environment


class Screen(io.StringIO):
    """Is a terminal that keeps what it was told, and says when it was."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.told.set()
        return super().write(text)


async def test_it_is_shown_while_work_lasts_and_cleared_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    count = 0
    async with progress(lambda: f"{count:,} messages sent", every_s=0.001):
        await screen.told.wait()
    assert screen.getvalue().startswith("\r\x1b[K0 messages sent")
    assert screen.getvalue().endswith("sent\r\x1b[K")


async def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    async with progress(lambda: "never"):
        await asyncio.sleep(0)
    assert screen.getvalue() == ""


@pytest.mark.parametrize("closed", [True, False])
async def test_a_file_or_a_pipe_gets_nothing(closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", None if closed else pipe)
    async with progress(lambda: "never", every_s=0.001):
        # Nobody works beside this test.
        assert len(asyncio.all_tasks()) == 1
    assert pipe.getvalue() == ""


async def test_what_fails_fails_as_it_would_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Screen())
    with pytest.raises(ZeroDivisionError):
        async with progress(lambda: "working", every_s=0.001):
            raise ZeroDivisionError


def test_pub_shows_how_many_lines_it_has_sent() -> None:
    ours, theirs = pty.openpty()
    with ThrowAwayBroker() as broker:
        broker.identity("desk")
        with subprocess.Popen(
            [*MAIN, "pub", "-t", "a", "-l", "-q", "1", "--as", "desk", "--home", str(broker.home)],
            env=environment(),
            stdin=subprocess.PIPE,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            assert process.stdin is not None
            process.stdin.write(b"one\ntwo\n")
            process.stdin.flush()
            said = b""
            while b"2 messages sent" not in said:
                said += os.read(ours, 1_000)
            process.stdin.close()
            assert process.wait(PATIENCE_S) == 0
    os.close(ours)


@pytest.mark.parametrize("is_watched", [True, False])
def test_work_without_a_loop_is_shown_to_who_watches_alone(
    is_watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, screen = threading.Event(), Screen()
    monkeypatch.setattr(sys, "stderr", screen if is_watched else io.StringIO())

    def words() -> str:
        looked.set()
        return "reading"

    def work() -> int:
        # Without anybody who watches there is nothing to wait for.
        assert not is_watched or looked.wait(PATIENCE_S)
        return 7

    assert watched(work, words, every_s=0.001) == 7
    shown = screen.getvalue()
    assert shown.startswith("\r\x1b[Kreading") == is_watched
    assert shown.endswith("\r\x1b[K") == is_watched
    assert looked.is_set() == is_watched


def test_what_work_raises_is_raised_to_who_waits_for_it() -> None:
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        watched(work, str)
