"""The fixtures for pytest, as a user has them: alone, in scopes, under asyncio and xdist.

Each test writes a small suite into a folder and runs pytest on it in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

SYNC = """
def test_a_reading_arrives(casemate_broker, casemate_client):
    console = casemate_client(role="console")
    console.subscribe("devices/+/temp", qos=1)
    casemate_client("t7", role="sensor").publish("devices/t7/temp", "21.5", qos=1)
    assert console.messages.take(timeout_s=5).text == "21.5"
"""

ASYNC = """
async def test_a_reading_arrives(casemate_broker):
    async with (
        casemate_broker.client(role="console") as console,
        casemate_broker.client("t7", role="sensor") as sensor,
    ):
        await console.subscribe("devices/+/temp", qos=1)
        await sensor.publish("devices/t7/temp", "21.5", qos=1)
        assert (await anext(console.messages)).text == "21.5"
"""


def run(folder: Path, suite: str, *arguments: str, ini: str = "") -> tuple[int, str]:
    """Runs pytest on a suite, every warning an error; gives its exit code and output."""
    (folder / "test_suite.py").write_text(suite)
    settings = "filterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    (folder / "pytest.ini").write_text(f"[pytest]\n{settings}{ini}\n")
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python"), "TMPDIR": str(scratch(folder))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return said.returncode, said.stdout + said.stderr


def scratch(folder: Path) -> Path:
    made = folder / "scratch"
    made.mkdir(exist_ok=True)
    return made


def test_fixtures_work_without_an_event_loop_and_leave_nothing(tmp_path: Path) -> None:
    code, out = run(tmp_path, SYNC)
    assert code == 0, out
    assert list(scratch(tmp_path).glob("casemate-*")) == []


def test_fixtures_work_in_asyncio_tests(tmp_path: Path) -> None:
    code, out = run(tmp_path, ASYNC, ini="asyncio_mode = auto")
    assert code == 0, out


UVLOOP = """
import uvloop
def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}
"""


def test_fixtures_work_under_uvloop(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(UVLOOP)
    suite = """
import asyncio
async def test_the_loop_is_uvloops():
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
"""
    code, out = run(tmp_path, suite + ASYNC, ini="asyncio_mode = auto")
    assert code == 0, out


def test_workers_of_xdist_do_not_meet(tmp_path: Path) -> None:
    suite = f"""
import pytest
@pytest.mark.parametrize("number", range(8))
def test_many(number, casemate_client):
    one = casemate_client(role="sensor")
    one.subscribe("devices/sensor/commands/#", qos=1)
    assert one.publish("devices/sensor/x", qos=1) == 0
{SYNC}"""
    code, out = run(tmp_path, suite, "-n", "2", "--timeout", "60")
    assert code == 0, out
    assert "9 passed" in out
    assert list(scratch(tmp_path).glob("casemate-*")) == []


ONE_PER = """
seen = set()
def test_one(casemate_broker):
    seen.add(casemate_broker.listening().port)
def test_two(casemate_broker):
    seen.add(casemate_broker.listening().port)
def test_count():
    assert len(seen) == COUNT
"""


@pytest.mark.parametrize(("scope", "count"), [("session", 1), ("module", 1), ("function", 2)])
def test_the_scope_of_the_broker_is_chosen_in_the_settings(
    tmp_path: Path, scope: str, count: int
) -> None:
    suite = ONE_PER.replace("COUNT", str(count))
    code, out = run(tmp_path, suite, ini=f"casemate_broker_scope = {scope}")
    assert code == 0, out


def test_a_scope_that_cannot_be_is_refused_in_words(tmp_path: Path) -> None:
    code, out = run(tmp_path, SYNC, ini="casemate_broker_scope = forever")
    assert code != 0
    assert "casemate_broker_scope is one of session" in out


def test_a_failing_test_still_stops_its_broker(tmp_path: Path) -> None:
    code, out = run(
        tmp_path,
        "def test_it(casemate_client, casemate_relay):\n    casemate_client()\n    assert False\n",
    )
    assert code == 1, out
    assert list(scratch(tmp_path).glob("casemate-*")) == []


def test_a_suite_that_asks_for_nothing_loads_nothing(tmp_path: Path) -> None:
    suite = """
import sys
def test_it():
    loaded = [name for name in sys.modules if name.startswith("casemate.")]
    assert "casemate.broker" not in loaded and "casemate._engine" not in loaded, loaded
"""
    code, out = run(tmp_path, suite)
    assert code == 0, out
