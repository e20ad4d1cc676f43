"""Each program in the guides named below runs, against a real broker, as it stands.

A comment above a block says what is published while it runs (`feed: topic payload`) and what it
must print (`prints: …`). A block without end is interrupted when it has printed that.
`broker.example` is a throw-away broker; the files and the password are those of its users.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from casemate.client import TopicPattern, client, matches
from casemate.client.blocking import BlockingClient
from casemate.testing import ThrowAwayBroker

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guides"
PAGES = ("broker", "client", "testing", "migrating-from-paho", "migrating-from-aiomqtt")

BLOCK = re.compile(r"(?:<!-- ([^>]*) -->\n)?```python\n(.*?)```", re.DOTALL)

PREAMBLE = """\
import os as _os, signal as _signal, sys as _sys
_signal.signal(_signal.SIGINT, lambda *_: (_sys.stdout.flush(), _os._exit(0)))
import casemate.client.address as _address
_address.TLS_PORT = {port}
"""


@dataclass(frozen=True)
class Block:
    """Is one program of a guide.

    Attributes:
        code: As it stands.
        feeds: Topic and payload of what is published meanwhile.
        prints: Lines that it must print, in some order.
    """

    code: str
    feeds: tuple[tuple[str, str], ...]
    prints: tuple[str, ...]


def blocks(page: str) -> Iterator[Block]:
    for said, code in BLOCK.findall((GUIDES / f"{page}.md").read_text(encoding="utf-8")):
        parts = [part.strip() for part in said.split(";")] if said else []
        feeds = [part.removeprefix("feed: ").split(" ", 1) for part in parts if "feed: " in part]
        prints = [part.removeprefix("prints: ") for part in parts if part.startswith("prints: ")]
        yield Block(code, tuple((topic, payload) for topic, payload in feeds), tuple(prints))


PROGRAMS = [
    pytest.param(block, id=f"{page} {number}")
    for page in PAGES
    for number, block in enumerate(blocks(page), 1)
    if "def test_" not in block.code
]
SUITES = [
    pytest.param(block, id=f"{page} {number}")
    for page in PAGES
    for number, block in enumerate(blocks(page), 1)
    if "def test_" in block.code
]


@pytest.fixture(scope="module")
def broker() -> Iterator[ThrowAwayBroker]:
    with ThrowAwayBroker() as one:
        yield one


@pytest.fixture(scope="module")
def password(broker: ThrowAwayBroker) -> str:
    return broker.add_user("ada")


@pytest.fixture(scope="module")
def feeder(broker: ThrowAwayBroker) -> Iterator[BlockingClient]:
    with broker.client("feeder").blocking() as one:
        yield one


def is_whole(code: str) -> bool:
    """Says whether a program runs from a file as it stands, with no `await` outside a function."""
    try:
        compile(code, "a guide", "exec")
    except SyntaxError:
        return False
    return True


def program(block: Block, port: int) -> str:
    """Gives the block as a program that runs from a file."""
    code = block.code.replace("broker.example", "localhost").replace("8883", str(port))
    if not is_whole(code):
        code = f"async def _main():\n{textwrap.indent(code, '    ')}\n"
        code += "import asyncio as _asyncio\n_asyncio.run(_main())\n"
    return PREAMBLE.format(port=port) + code


@pytest.mark.parametrize("block", PROGRAMS)
def test_each_program_of_the_guides_does_what_it_says(
    block: Block, broker: ThrowAwayBroker, password: str, feeder: BlockingClient
) -> None:
    assert block.prints, "say above the block what it prints"
    folder = broker.identity("guide").certificate.parent
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program(block, broker.listening().port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python"), "MQTT_PASSWORD": password},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = threading.Event()

    def feed() -> None:
        # Repeated, as nobody knows when the program has subscribed.
        while not told.wait(0.1):
            for topic, payload in block.feeds:
                feeder.publish(topic, payload, qos=1)

    feeding = threading.Thread(target=feed)
    feeding.start()
    stuck = threading.Timer(30, process.kill)
    stuck.start()
    missing = set(block.prints)
    try:
        assert process.stdout is not None
        while missing and (line := process.stdout.readline()):
            missing.discard(line.strip())
        if block.feeds:
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    finally:
        told.set()
        stuck.cancel()
        feeding.join()
        process.kill()
        process.wait()
    assert not missing, said
    assert process.returncode == 0, said


@pytest.mark.parametrize("block", SUITES)
def test_each_suite_of_the_guides_passes(block: Block, tmp_path: Path) -> None:
    (tmp_path / "test_guide.py").write_text(block.code, encoding="utf-8")
    settings = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{settings}\n", encoding="utf-8")
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stdout


def test_what_the_tables_name_exists() -> None:
    """Each option in a right-hand column is an argument or a method of ours."""
    known = {
        *client.Client.__init__.__annotations__,
        *client.Client.subscribe.__annotations__,
        *dir(client.Client),
        *dir(BlockingClient),
        *("content_type", "response_topic", "correlation_data", "delay_s", "properties"),
    }
    for page in ("migrating-from-paho", "migrating-from-aiomqtt"):
        text = (GUIDES / f"{page}.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| .* \| (.*) \|$", text, re.MULTILINE)
        assert len(rows) > 20
        for row in rows:
            for option in re.findall(r"\b([a-z_]+)=", row):
                assert option in known | {"timeout_s"}, f"{page}: {option}"
    assert matches("lab/+/temp", TopicPattern("lab/{x}/temp").topic(x="1"))
