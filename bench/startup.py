"""How long it takes until a broker accepts a connection, and a command helps or sends a message."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from casemate import Broker
from casemate.home import OPERATOR, Home

PATIENCE_S = 30
COLUMN = "ms"


def measure(rounds: int, say: Callable[[str], None]) -> dict[str, dict[str, list[float]]]:
    """Measures each start, round by round.

    Args:
        rounds: Runs of each.
        say: Is told of each, in a line.

    Returns:
        For each start ms, one value for each run.

    Raises:
        RuntimeError: A broker does not accept connections in time.
    """
    found: dict[str, dict[str, list[float]]] = {name: {COLUMN: []} for name in STARTS}
    with tempfile.TemporaryDirectory(prefix="casemate-bench-") as folder:
        home = Path(folder) / "home"
        Home.init(home)
        for number in range(rounds):
            for name, start in STARTS.items():
                taken_ms = round(start(home) / 1e6, 1)
                found[name][COLUMN].append(taken_ms)
                say(f"startup {name}, round {number + 1}: {taken_ms} ms")
    return found


def _embedded(home: Path | None) -> int:
    if home is not None:
        _choose_port(home)
    from_ns = time.perf_counter_ns()
    with Broker(home) as broker:
        one = broker.addresses[0]
        _await(one.host, one.port)
        return time.perf_counter_ns() - from_ns


def _command(home: Path) -> int:
    port = _choose_port(home)
    program = str(Path(sys.executable).with_name("casemate"))
    from_ns = time.perf_counter_ns()
    process = subprocess.Popen(
        [program, "run", "--home", str(home)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await("127.0.0.1", port)
        return time.perf_counter_ns() - from_ns
    finally:
        process.terminate()
        process.wait()


def _says(*words: str) -> int:
    program = str(Path(sys.executable).with_name("casemate"))
    from_ns = time.perf_counter_ns()
    subprocess.run([program, *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter_ns() - from_ns


def _sends(home: Path) -> int:
    _choose_port(home)
    with Broker(home):
        return _says("pub", "bench/startup", "x", "-q", "1", "--home", str(home), "--as", OPERATOR)


def _choose_port(home: Path) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (home / "casemate.toml").write_text(
        f'[[listeners]]\nkind = "tls"\nhost = "127.0.0.1"\nport = {port}\n', encoding="utf-8"
    )
    return port


def _await(host: str, port: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            with socket.create_connection((host, port), timeout=1):
                return
        except OSError:
            time.sleep(0.001)
    raise RuntimeError(f"nothing accepts connections after {PATIENCE_S} s")


STARTS: dict[str, Callable[[Path], int]] = {
    "`Broker(home)` in a running program": _embedded,
    "`Broker()` with an authority of its own": lambda _: _embedded(None),
    "`casemate run`": _command,
    "`casemate --help`": lambda _: _says("--help"),
    "`casemate pub --help`": lambda _: _says("pub", "--help"),
    "`casemate pub --as NAME`, one message to its acknowledgement": _sends,
}
