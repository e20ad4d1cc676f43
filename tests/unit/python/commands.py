"""The command line as people run it: a process, its output, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
PATIENCE_S = 30

MAIN = [sys.executable, "-c", "from casemate.cli.__main__ import main; main()"]


def environment() -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if "CASEMATE_" not in name},
        "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]),
        # As in an environment that was activated, so that printed lines say plainly `casemate`.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def casemate(
    *arguments: str | Path, folder: Path | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    done = subprocess.run(
        [*MAIN, *map(str, arguments)],
        cwd=folder,
        env=environment(),
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


class Running:
    """Is a command that runs on."""

    def __init__(
        self,
        arguments: list[str],
        folder: Path | None,
        variables: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.process = subprocess.Popen(
            arguments,
            cwd=folder,
            env={**environment(), **(variables or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=descriptors,
        )
        self.heard: list[str] = []

    def until(self, words: str) -> str:
        """Reads lines until one holds these words; gives that line."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        for line in self.process.stdout:
            self.heard.append(line)
            if words in line:
                return line
            assert time.monotonic() < deadline, self.heard
        raise AssertionError(f"it ended without {words!r}: {''.join(self.heard)}")

    def stop(self, number: int = signal.SIGINT) -> int:
        """Sends a signal; gives the exit code."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        """Waits for the end; gives the exit code."""
        rest, _ = self.process.communicate(timeout=PATIENCE_S)
        self.heard.append(rest)
        return self.process.returncode

    @property
    def text(self) -> str:
        return "".join(self.heard)


@contextmanager
def running(
    *arguments: str | Path,
    folder: Path | None = None,
    program: list[str] | None = None,
    variables: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> Iterator[Running]:
    """Runs a command beside the test; it is killed at the end if it still lives."""
    words = [*(program or MAIN), *map(str, arguments)]
    one = Running(words, folder, variables, descriptors)
    try:
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait()
        if one.process.stdout is not None:
            one.process.stdout.close()
