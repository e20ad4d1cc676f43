"""One lab for all interoperability tests: a real `casemate lab` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# The scenarios' assertions tell what they saw, as those of a test do.
pytest.register_assert_rewrite("tests.interop.scenarios")

ROOT = Path(__file__).parents[2]
REQUIRED = os.environ.get("INTEROP_REQUIRED") == "1"

TRANSPORTS = ("tcp", "tls", "mtls", "ws", "wss")
PORTS = {"tcp": "port", **{name: f"{name}_port" for name in TRANSPORTS[1:]}}


@dataclass(frozen=True)
class Transport:
    """Says how one transport of the lab is reached.

    Attributes:
        name: One of `TRANSPORTS`.
        host: Always loopback.
        port: The lab's.
        ca_file: With TLS.
        cert_file: With a client certificate.
        key_file: Its key.
        username: Where a password proves the client.
        password: Of that user.
        path: Of WebSocket.
    """

    name: str
    host: str
    port: int
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    username: str | None = None
    password: str | None = None
    path: str | None = None


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
        found: dict[str, Any] = {}
        if name in ("tls", "mtls", "wss"):
            found["ca_file"] = ready["ca_file"]
        if name == "mtls":
            found |= {"cert_file": ready["client_cert"], "key_file": ready["client_key"]}
        else:
            found |= {"username": user, "password": ready["users"][user]}
        if name in ("ws", "wss"):
            found["path"] = ready["ws_path"]
        return Transport(name, ready["host"], ready[PORTS[name]], **found)

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
    running = RunningLab("--shards", "4")
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


# The clients of others

OUTCOMES = pytest.StashKey[dict[str, bool]]()
DESELECTED = pytest.StashKey[bool]()
MISSING = pytest.StashKey[dict[str, str | None]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-table",
        action="store_true",
        help="write what came of the matrix to docs/interop.md",
    )


def committed_is_to_be_written(config: pytest.Config) -> bool:
    """Tells whether docs/interop.md is written rather than compared."""
    # The option is there only where pytest was given this folder.
    return bool(config.getoption("--write-table", default=False))


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[DESELECTED] = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Lets the table be judged after all that it tells of."""
    config.stash.setdefault(OUTCOMES, {})
    config.stash.setdefault(DESELECTED, False)
    items.sort(key=lambda item: item.path.name == "test_table.py")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Installs the clients that were asked for, before any test's time begins to run."""
    from tests.interop.clients import missing

    cases: list[Any] = [
        item.callspec.params["case"]
        for item in session.items
        if isinstance(item, pytest.Function) and item.path.name == "test_matrix.py"
    ]
    kinds = {case.kind.folder: case.kind for case in cases}
    if not session.config.option.collectonly:
        session.config.stash[MISSING] = {name: missing(kind) for name, kind in kinds.items()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    told = report.when == "call" and not report.skipped
    if told and item.path.name == "test_matrix.py" and isinstance(item, pytest.Function):
        item.config.stash[OUTCOMES][str(item.callspec.params["case"])] = report.passed
    return report


@pytest.fixture(scope="session")
def ready_kind(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Skips the test of a client that could not be installed, or fails where it must be there."""

    from tests.interop.clients import missing

    def check(kind: Any) -> None:  # noqa: ANN401 - a `Kind`, whose room imports this one.
        known = request.config.stash[MISSING]
        if kind.folder not in known:
            known[kind.folder] = missing(kind)
        reason = known[kind.folder]
        if reason is not None and REQUIRED:
            pytest.fail(reason)
        if reason is not None:
            pytest.skip(reason)

    return check
