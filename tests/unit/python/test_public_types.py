"""The types of what is offered: complete for every checker, and those of the engine are true.

mypy's own stubtest compares the stub with the built module, which `test_engine_stub` does by hand
for parameters and defaults; `make lint` asks a second checker whether every type is written down.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

ALLOWED = """
# A union of the packet classes, for checkers only.
casemate._engine.Packet
# Only native.py imports the module, name by name.
casemate._engine.__all__
"""


def stubtest(folder: Path, allowed: str) -> subprocess.CompletedProcess[str]:
    (folder / "allowed").write_text(allowed)
    (folder / "mypy.ini").write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT / 'python'}\n")
    command = [sys.executable, "-m", "mypy.stubtest", "casemate._engine"]
    options = ["--allowlist", "allowed", "--mypy-config-file", "mypy.ini"]
    return subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


def test_the_stub_of_the_engine_is_true(tmp_path: Path) -> None:
    done = stubtest(tmp_path, ALLOWED)
    assert done.returncode == 0, done.stdout
    assert "no issues found in 1 module" in done.stdout


def test_stubtest_would_say_where_the_stub_is_wrong(tmp_path: Path) -> None:
    """What is allowed is wrong in fact, so that the test above can fail."""
    done = stubtest(tmp_path, "")
    assert done.returncode == 1
    assert "Packet is not present at runtime" in done.stdout


WRONG = {
    "Broker(home=3)": 'Argument "home"',
    "Client(3)": "Argument 1",
    "Client('x', keep_alive='60')": '"keep_alive"',
    "Will('a', payload=3)": 'Argument "payload"',
    "Client('x').publish('a', qos='1')": 'Argument "qos"',
    "Client('x').inbox.topic": '"topic"',
}


def test_a_checker_finds_each_wrong_argument(tmp_path: Path) -> None:
    """The classes of the package are loaded late, and still a checker knows what they take."""
    program = "\n".join(["from casemate import Broker, Client, Will", *WRONG])
    (tmp_path / "program.py").write_text(f"{program}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "program.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    for number, said in enumerate(WRONG.values(), 2):
        found = [one for one in done.stdout.splitlines() if one.startswith(f"program.py:{number}:")]
        assert any(said in one for one in found), done.stdout
