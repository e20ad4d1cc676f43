"""A reader who does what a page says, in order: types each command, saves each file, and looks.

A page is a sequence of blocks. In a `console` block each line that begins with `$ ` is a command;
the lines below it are what it prints: each must come, in this order, with `…` for any text; others
may come between them. A comment right above a block says what else holds (several with `;`):

`exit: 1`             the last command of the block ends with this code; all others with 0
`stays`               the last command runs on, and has printed what stands below it
`prints: casemate up` what the block shows comes from that command, which runs on
`stop: casemate up`   that command is ended first, as by Ctrl-C; may stand alone
`file: app.py`        the block is saved under this name
`append: f.toml`      the block is put at the end of the file
`replace: f.toml`     the block takes the place of what was appended last
`elsewhere: why`      the block is not run here, and why
`measured: suite`     what stands from here to `end` is written by the benchmark

A `python` block that is no file is an example, as in `example`.

Ports of the pages become free ones, so that any number of readers sit side by side.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs import example

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120

PORTS = ("8883", "8884", "8084", "8000", "1883")
_LAGS = re.compile(r"casemate status\b")
_ACCOUNTS = re.compile(r"\bcasemate (?:device|user) (?:add|remove|passwd)\b")

_PART = re.compile(
    r"^<!-- (?P<said>[^>]*) -->\n(?P<fence>```)?"
    r"|^(?P<start>```)",
    re.MULTILINE,
)
_BLOCK = re.compile(r"(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_KNOWN = {
    "exit",
    "stays",
    "prints",
    "stop",
    "file",
    "append",
    "replace",
    "elsewhere",
    "measured",
    "end",
}


@dataclass(frozen=True)
class Block:
    """Is one block of a page.

    Attributes:
        line: Where it begins.
        language: As it is named; empty for a comment that stands alone.
        text: What it holds.
        said: What the comment above it says.
    """

    line: int
    language: str
    text: str
    said: dict[str, str] = field(default_factory=dict)


def blocks(page: Path) -> Iterator[Block]:
    """Yields the blocks of a page.

    Raises:
        ValueError: A comment says what nobody knows.
    """
    text = page.read_text(encoding="utf-8")
    at = 0
    while found := _PART.search(text, at):
        line = text.count("\n", 0, found.start()) + 1
        said = _said(found["said"] or "", f"{page.name}:{line}")
        at = found.end()
        if found["fence"] or found["start"]:
            block = _BLOCK.match(text, at)
            if block is None:
                raise ValueError(f"{page.name}:{line}: the block has no end")
            at = block.end()
            yield Block(line, block[1], block[2], said)
        elif said:
            yield Block(line, "", "", said)


def _said(text: str, where: str) -> dict[str, str]:
    parts = [part.strip().partition(":") for part in text.split(";") if part.strip()]
    said = {name: value.strip() for name, _, value in parts}
    if said.keys() - _KNOWN:
        raise ValueError(f"{where}: the comment says what nobody knows: {text}")
    return said


class Running:
    """Is a command that runs on, and everything that it has printed."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        self.command = command
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._seen = 0

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def expect(self, wanted: list[str]) -> None:
        """Waits until these lines have come, after those that were expected before."""
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            for one in wanted:
                while (position := _find(one, self._lines, self._seen)) is None:
                    lives = self._reader.is_alive()
                    assert lives, f"{self.command} ended without {one!r}: {self._lines}"
                    left = deadline - time.monotonic()
                    assert left > 0, f"{self.command} did not print {one!r}: {self._lines}"
                    self._news.wait(min(left, 1.0))
                self._seen = position + 1

    def stop(self) -> int:
        """Ends it as Ctrl-C does; gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self._reader.join()
            if self.process.stdout is not None:
                self.process.stdout.close()


class Terminal:
    """Reads pages in a folder of its own; `close` ends what still runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start = folder
        self._running: list[Running] = []
        self._appended: dict[str, str] = {}
        self._ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        kept = {name: value for name, value in os.environ.items() if "CASEMATE_" not in name}
        self._environment = {
            **kept,
            "HOME": str(folder),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "python"),
            "NO_COLOR": "1",
            "TERM": "dumb",
            "COLUMNS": "200",
        }

    def read(self, page: Path) -> None:
        """Does what a page says.

        Raises:
            AssertionError: Something else happened than the page shows.
        """
        for block in blocks(page):
            try:
                self._do(block)
            except AssertionError as error:
                raise AssertionError(f"{page.name}:{block.line}: {error}") from error

    def close(self) -> dict[str, int]:
        """Ends what still runs; gives the exit code of each command that was still there."""
        ended = {one.command: one.stop() for one in reversed(self._running)}
        self._running.clear()
        return ended

    def _do(self, block: Block) -> None:
        said = block.said
        if "stop" in said:
            self._stop(said["stop"])
        if "elsewhere" in said or not block.language:
            return
        text = self._here(block.text)
        if "file" in said:
            (self._folder / said["file"]).write_text(text, encoding="utf-8")
        elif "append" in said or "replace" in said:
            self._put(said.get("append") or said["replace"], text, again="replace" in said)
        elif "prints" in said:
            self._of(said["prints"]).expect(text.splitlines())
        elif block.language == "console":
            self._type(text, said)
        elif block.language == "python":
            example.run(text, "the block", self._folder)
        else:
            raise AssertionError("nobody says what this block is")

    def _type(self, text: str, said: dict[str, str]) -> None:
        typed = re.sub(r"\\\n\s*", "", text)
        commands = re.split(r"^\$ ", typed, flags=re.MULTILINE)[1:]
        assert commands, "the block has no command"
        for number, one in enumerate(commands, 1):
            command, *shown = one.rstrip("\n").split("\n")
            command = re.sub(r"\s+# .*$", "", command)
            is_last = number == len(commands)
            if is_last and ("stays" in said or _serves(command)):
                running = Running(self._asked(command), self._folder, self._environment)
                self._running.append(running)
                running.expect(shown)
            else:
                self._run(command, shown, int(said.get("exit", 0)) if is_last else 0)

    def _run(self, command: str, shown: list[str], code: int, until: float = 0.0) -> None:
        # Whoever reads a status that is up to a second old looks again.
        until = until or time.monotonic() + PATIENCE_S
        place, variables = self._start / ".folder", self._start / ".variables"
        after = f"pwd > {shlex.quote(str(place))}; env -0 > {shlex.quote(str(variables))}"
        script = f"{command}\nended=$?\n{after}\nexit $ended\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, f"{command} ended with {done.returncode}: {done.stdout}"
        missing = _missing(shown, done.stdout.splitlines())
        if missing is not None and _LAGS.match(command) and time.monotonic() < until:
            self._run(command, shown, code, until)
            return
        assert missing is None, f"{command} did not print {missing!r}: {done.stdout}"
        self._folder = Path(place.read_text(encoding="utf-8").strip())
        # What a reader exports counts for the rest of the page.
        pairs = [one.partition("=") for one in variables.read_text(encoding="utf-8").split("\0")]
        self._environment = {name: value for name, _, value in pairs if name}
        if _ACCOUNTS.search(command) and (home := self._home(command)) is not None:
            self._let_it_see(home)

    def _home(self, command: str) -> Path | None:
        """Gives the home that a command is about, where one is named."""
        found = re.search(r"--home (\S+)", command)
        named = self._environment.get("CASEMATE_HOME") if found is None else found[1]
        return None if named is None else self._folder / named

    def _let_it_see(self, home: Path) -> None:
        """Waits, as a person's next command does, until a running broker knows of an account."""
        reload = ["casemate", "reload", "--home", str(home)]
        subprocess.run(
            reload, cwd=self._folder, env=self._environment, capture_output=True, check=False
        )

    def _put(self, name: str, text: str, *, again: bool) -> None:
        file = self._folder / name
        before = file.read_text(encoding="utf-8")
        if again:
            assert self._appended[name] in before
            before = before.replace(self._appended[name], "")
        self._appended[name] = f"\n{text}"
        # Whole at once, as editors do: a broker that looks meanwhile must not see half of it.
        beside = file.with_suffix(".new")
        beside.write_text(f"{before}\n{text}", encoding="utf-8")
        beside.chmod(file.stat().st_mode)
        beside.replace(file)

    def _of(self, command: str) -> Running:
        for one in reversed(self._running):
            if one.command.startswith(command):
                return one
        raise AssertionError(f"{command} does not run")

    def _stop(self, command: str) -> None:
        running = self._of(command)
        self._running.remove(running)
        code = running.stop()
        assert code == 0, f"{command} ended with {code}"

    def _asked(self, command: str) -> str:
        """Has a first `casemate up` listen on the ports that stand for those of the page."""
        home = self._home(command)
        if home is None or (home / "casemate.toml").exists() or "casemate up" not in command:
            return command
        host = "" if "--host" in command else " --host localhost"
        return f"{command}{host} --port {self._ports['8883']} --wss-port {self._ports['8084']}"

    def _here(self, text: str) -> str:
        """Puts the reader's own ports in place of those of the page."""
        return re.sub(
            r"\b(?:" + "|".join(PORTS) + r")\b", lambda found: self._ports[found[0]], text
        )


def _serves(command: str) -> bool:
    return re.match(r"casemate (?:up|run)\b", command) is not None


def _missing(wanted: list[str], lines: list[str]) -> str | None:
    """Gives the first line of a page that is not among the lines that came, in order."""
    at = 0
    for one in wanted:
        position = _find(one, lines, at)
        if position is None:
            return one
        at = position + 1
    return None


def _find(wanted: str, lines: list[str], begin: int) -> int | None:
    """Finds the first line from `begin` that a line of a page stands for."""
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in wanted.split("…")))
    for position in range(begin, len(lines)):
        if pattern.fullmatch(lines[position].strip()):
            return position
    return None


def _free_ports(count: int) -> list[str]:
    """Gives ports that were free a moment ago, each another one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [str(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
