"""One lab for all interoperability tests: a real `casemate lab` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
REQUIRED = os.environ.get("CASEMATE_REQUIRE_INTEROP") == "1"

TRANSPORTS = ("tcp", "tls", "mtls")


@dataclass(frozen=True)
class Transport:
    """Says how one transport of the lab is reached.

    Attributes:
        name: `tcp`, `tls` or `mtls`.
        host: Always loopback.
        port: The lab's.
        ca_file: With TLS.
        cert_file: With a client certificate.
        key_file: Its key.
        username: Where a password proves the client.
        password: Of that user.
    """

    name: str
    host: str
    port: int
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    username: str | None = None
    password: str | None = None


class RunningLab:
    """Is a lab in another process."""

    def __init__(self, *arguments: str) -> None:
        """Starts it and waits until it is ready."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from casemate.cli.app import main; main()", "lab", *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(
                    [str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]
                ),
                "NO_COLOR": "1",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the lab ended with {self._process.wait(10)} before it was ready"
        self.ready: dict[str, Any] = json.loads(line)

    def transport(self, name: str, user: str = "all") -> Transport:
        """Gives how a transport is reached, proven as the user or by the lab's certificate."""
        ready = self.ready
        secret = {"username": user, "password": ready["users"][user]}
        if name == "tcp":
            return Transport(name, ready["host"], ready["port"], **secret)
        if name == "tls":
            return Transport(name, ready["host"], ready["tls_port"], ready["ca_file"], **secret)
        return Transport(
            name,
            ready["host"],
            ready["mtls_port"],
            ready["ca_file"],
            ready["client_cert"],
            ready["client_key"],
        )

    def stop(self) -> int:
        """Tells it to stop; gives its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(15)
        finally:
            if self._process.poll() is None:
                self._process.kill()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def kill(self) -> None:
        """Ends it without a chance to clean up."""
        self._process.kill()
        self._process.wait(15)
        if self._process.stdout is not None:
            self._process.stdout.close()


@pytest.fixture(scope="session")
def lab() -> Iterator[RunningLab]:
    running = RunningLab()
    yield running
    assert running.stop() == 0


@pytest.fixture
def start_lab() -> Iterator[Callable[..., RunningLab]]:
    """Starts labs of a test's own; those that still run at its end are killed."""
    started: list[RunningLab] = []

    def start(*arguments: str) -> RunningLab:
        one = RunningLab(*arguments)
        started.append(one)
        return one

    yield start
    for one in started:
        with contextlib.suppress(Exception):
            one.kill()


def need(program: str, package: str) -> str:
    """Gives the path of a program; where it is missing the test is skipped, or fails."""
    path = shutil.which(program)
    if path is not None:
        return path
    reason = f'{program} is not installed (Debian package "{package}")'
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)
