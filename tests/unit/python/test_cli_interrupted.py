"""Ctrl-C and a closed pipe at each moment: the right exit code, no traceback, nothing held up.

The moments are named, not waited for: the process interrupts itself while it imports, or whoever
hears it does when a packet, a prompt or a full pipe says where it stands.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from casemate.home import Home
from casemate.testing import ThrowAwayBroker
from tests.unit.python.commands import MAIN, PATIENCE_S, environment
from tests.unit.python.scripted import CONNACK_5, Peer, publish, scripted

# As a shell sees both: ended by the signal, or with the code that says so.
INTERRUPTED = (130, -signal.SIGINT)


@pytest.fixture(scope="module")
def broker() -> Iterator[ThrowAwayBroker]:
    with ThrowAwayBroker() as one:
        one.identity("desk")
        yield one


def as_desk(broker: ThrowAwayBroker) -> list[str]:
    return ["--as", "desk", "--home", str(broker.home)]


# While it loads

IMPORTS = """
import os, signal, sys
left = int(sys.argv.pop(1))
begun = False

def hear(event, arguments):
    global begun, left
    if event == "import":
        begun = begun or arguments[0] == "casemate.cli.app"
        left -= begun
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hear)
from casemate.cli.__main__ import main
main()
"""


@pytest.mark.parametrize("imported", [1, 2, 7, 20, 60, 110, 150, 200, 240])
def test_ctrl_c_while_it_loads_is_silent(imported: int, tmp_path: Path) -> None:
    words = ["pub", "-L", f"unix:{tmp_path}/nowhere", "-t", "a", "-m", "b"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(imported), *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode == 1:
        # It was faster than that: not so many modules are loaded.
        assert imported > 100
        assert "there is no socket" in done.stderr
        return
    assert done.returncode in INTERRUPTED
    assert done.stderr == ""


NAMES = """
import os, signal, socket, sys, threading

def stuck(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()

socket.getaddrinfo = stuck
from casemate.cli.__main__ import main
main()
"""


def test_ctrl_c_does_not_wait_for_a_name_server() -> None:
    words = ["pub", "-h", "broker.example", "-t", "a", "-m", "b"]
    done = subprocess.run(
        [sys.executable, "-c", NAMES, *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "")


# While it speaks with a broker

SUBACK = "90 04 00 01 00 00"
Moment = Callable[[Peer], Awaitable[None]]


async def accepted(_: Peer) -> None:
    """Nothing was read yet."""


async def connecting(peer: Peer) -> None:
    await peer.expect(1)


async def publishing(peer: Peer) -> None:
    await peer.accept()
    await peer.expect(3)


async def subscribing(peer: Peer) -> None:
    await peer.accept()
    await peer.expect(8)


async def listening(peer: Peer) -> None:
    await subscribing(peer)
    await peer.say(SUBACK)
    # What it answers shows that it has the subscription.
    await peer.say(publish(1, 7))
    await peer.expect(4)


MOMENTS: dict[str, tuple[list[str], Moment, int]] = {
    "pub, accepted": (["pub", "a", "b"], accepted, 130),
    "pub, CONNECT sent": (["pub", "a", "b"], connecting, 130),
    "pub, PUBLISH sent": (["pub", "a", "b", "-q", "1"], publishing, 130),
    "pub -l, PUBLISH sent": (["pub", "-t", "a", "-l", "-q", "1"], publishing, 130),
    "pub -l, waiting for stdin": (["pub", "-t", "a", "-l"], publishing, 130),
    "sub, CONNECT sent": (["sub", "a"], connecting, 130),
    "sub, SUBSCRIBE sent": (["sub", "a"], subscribing, 130),
    "sub, listening": (["sub", "a", "-q", "1"], listening, 0),
    "sub -C, listening": (["sub", "a", "-q", "1", "-C", "2"], listening, 130),
    "rr, SUBSCRIBE sent": (["rr", "a", "b", "-e", "c"], subscribing, 130),
}


@pytest.mark.parametrize("often", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("name", MOMENTS)
async def test_ctrl_c_ends_what_speaks_with_a_broker(name: str, often: int) -> None:
    words, moment, code = MOMENTS[name]
    started: asyncio.Future[asyncio.subprocess.Process] = asyncio.get_running_loop().create_future()

    async def story(peer: Peer) -> None:
        process = await started
        await moment(peer)
        process.send_signal(signal.SIGINT)
        if often == 2:
            # It says goodbye, and is pressed again before anybody has heard it.
            await peer.reader.read(1)
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
        await peer.gone()

    async with scripted(story) as port:
        process = await asyncio.create_subprocess_exec(
            *MAIN, *words, "-h", "127.0.0.1", "-p", str(port), "--insecure-plaintext",
            env=environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"a line, and then nothing\n")
        started.set_result(process)
        async with asyncio.timeout(PATIENCE_S):
            said = await process.stderr.read()
            ended = await process.wait()
        process.stdin.close()
    assert said == b""
    assert ended == code or (often == 2 and ended in (0, *INTERRUPTED))


async def test_a_broker_that_goes_ends_pub_l_at_once() -> None:
    async def story(peer: Peer) -> None:
        await publishing(peer)
        peer.cut()

    async with scripted(story) as port:
        process = await asyncio.create_subprocess_exec(
            *MAIN, "pub", "-t", "a", "-l", "-L", f"mqtt://127.0.0.1:{port}",
            env=environment(),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"a line, and then nothing\n")
        async with asyncio.timeout(PATIENCE_S):
            said = await process.stderr.read()
            assert await process.wait() == 1
        process.stdin.close()
    assert said.decode().startswith(f"error: 127.0.0.1:{port} closed the connection")


@pytest.mark.parametrize("words", [["pub", "a", "b", "-q", "1"], ["rr", "a", "b", "-e", "c"]])
async def test_a_broker_that_goes_fails_what_was_asked_of_it(words: list[str]) -> None:
    async def story(peer: Peer) -> None:
        await peer.accept(CONNACK_5)
        await peer.packet()
        peer.cut()

    async with scripted(story) as port:
        process = await asyncio.create_subprocess_exec(
            *MAIN, *words, "-h", "127.0.0.1", "-p", str(port), "--insecure-plaintext",
            env=environment(),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith(f"error: 127.0.0.1:{port} closed the connection")


async def test_sub_comes_back_to_a_broker_that_went_and_says_so() -> None:
    async def gone(peer: Peer) -> None:
        await subscribing(peer)
        await peer.say(SUBACK)
        peer.cut()

    async def back(peer: Peer) -> None:
        await subscribing(peer)
        await peer.say(SUBACK)
        await peer.say(publish(0, 0, b"back"))
        await peer.gone()

    async with scripted(gone, back) as port:
        process = await asyncio.create_subprocess_exec(
            *MAIN, "sub", "t", "-C", "1", "-L", f"mqtt://127.0.0.1:{port}",
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            printed, said = await process.communicate()
    assert (process.returncode, printed) == (0, b"back\n")
    assert b"connecting again in" in said


# While it waits for somebody here


def test_ctrl_c_ends_what_reads_stdin_whole(broker: ThrowAwayBroker) -> None:
    with subprocess.Popen(
        [*MAIN, "pub", "-t", "a", "-s", *as_desk(broker)],
        env=environment(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        # More than a pipe holds: when it is written, the process reads.
        process.stdin.write(b"x" * 1_000_000)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) in INTERRUPTED
        process.stdin.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_ctrl_c_at_a_prompt_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*MAIN, "init", "--encrypt", "--home", str(home)],
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(theirs)
        said = b""
        while b"Passphrase" not in said:
            said += os.read(ours, 1_000)
        os.write(ours, b"\x03")
        assert process.wait(PATIENCE_S) in INTERRUPTED
    os.close(ours)
    assert not home.exists()
    assert list(tmp_path.iterdir()) == []


def waiting(descriptor: int) -> int:
    """Gives how many bytes wait in a pipe."""
    held = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
    return int(struct.unpack("i", held)[0])


def test_a_reader_that_stalls_holds_up_neither_pings_nor_ctrl_c(broker: ThrowAwayBroker) -> None:
    with broker.client("other").blocking() as other:
        other.publish("large", b"x" * 400_000, retain=True, qos=1)
    with subprocess.Popen(
        [*MAIN, "sub", "large", "-C", "1", "-k", "1", *as_desk(broker)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pipe = process.stdout.fileno()
        until = time.monotonic() + PATIENCE_S
        while waiting(pipe) < 65_536:
            assert time.monotonic() < until
        # Three keep alives of one second later the broker would have cut a client without pings.
        pings = broker.counters()["packets_received"]
        while broker.counters()["packets_received"] < pings + 4:
            assert time.monotonic() < until
        assert waiting(pipe) == 65_536
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr.read() == b""


def test_sub_ends_silently_when_its_reader_has_gone(broker: ThrowAwayBroker) -> None:
    with broker.client("other").blocking() as other:
        other.publish("stored", b"x", retain=True, qos=1)
    done = read_by_nobody("sub", "stored", *as_desk(broker))
    assert done == (141, b"")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted") / "home"
    Home.init(folder)
    return folder


PRINTING = [
    ["--help"], ["--version"], ["pub", "--help"], ["config", "show"], ["config", "schema"],
    ["device", "list"], ["user", "list", "--json"], ["role", "show", "sensor"], ["doctor"],
]  # fmt: skip


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_pipe_that_nobody_reads_ends_a_command_silently(words: list[str], home: Path) -> None:
    assert read_by_nobody(*words, CASEMATE_HOME=str(home)) == (141, b"")


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_full_disk_is_said_in_one_line(words: list[str], home: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*MAIN, *words],
            env={**environment(), "CASEMATE_HOME": str(home)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 1
    assert "the output cannot be written: no space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def read_by_nobody(*words: str, **variables: str) -> tuple[int, bytes]:
    """Runs a command whose output is a pipe without a reader; gives exit code and stderr."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*MAIN, *words],
            env={**environment(), **variables},
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        os.close(writing)
    return done.returncode, done.stderr
